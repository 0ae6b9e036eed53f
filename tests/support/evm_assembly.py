"""A very small EVM assembler for test contracts that emit real logs and make real calls.

Words are opcodes, ``@name`` (push the offset of a label), ``name:`` (a label and its JUMPDEST) or a literal (``12``,
``0xddf2...``) that becomes the shortest PUSH. ``;`` starts a comment.
"""

from __future__ import annotations

OPCODES = {
    "STOP": 0x00, "ADD": 0x01, "SUB": 0x03, "LT": 0x10, "GT": 0x11, "EQ": 0x14, "ISZERO": 0x15, "SHR": 0x1C,
    "ADDRESS": 0x30, "CALLER": 0x33, "CALLVALUE": 0x34, "CALLDATALOAD": 0x35, "CALLDATASIZE": 0x36,
    "CALLDATACOPY": 0x37, "CODECOPY": 0x39, "RETURNDATASIZE": 0x3D, "RETURNDATACOPY": 0x3E,
    "POP": 0x50, "MLOAD": 0x51, "MSTORE": 0x52, "SLOAD": 0x54, "SSTORE": 0x55, "JUMP": 0x56, "JUMPI": 0x57,
    "GAS": 0x5A, "JUMPDEST": 0x5B, "DUP1": 0x80, "DUP2": 0x81, "DUP3": 0x82, "SWAP1": 0x90, "SWAP2": 0x91,
    "LOG1": 0xA1, "LOG2": 0xA2, "LOG3": 0xA3, "CALL": 0xF1, "RETURN": 0xF3, "DELEGATECALL": 0xF4,
    "STATICCALL": 0xFA, "REVERT": 0xFD,
}  # fmt: skip
PUSH1 = 0x60
PUSH2 = 0x61


def assemble(source: str) -> bytes:
    """Return the machine code of ``source``. Raises ``KeyError`` for an unknown label, ``ValueError`` for an
    unknown word.
    """
    code = bytearray()
    labels: dict[str, int] = {}
    references: dict[int, str] = {}
    for word in _words(source):
        if word.endswith(":"):
            labels[word[:-1]] = len(code)
            code.append(OPCODES["JUMPDEST"])
        elif word.startswith("@"):
            references[len(code) + 1] = word[1:]
            code += bytes([PUSH2, 0, 0])
        else:
            code += bytes([OPCODES[word]]) if word in OPCODES else _push(int(word, 0))
    for at, label in references.items():
        code[at : at + 2] = labels[label].to_bytes(2, "big")
    return bytes(code)


def creation_code(runtime: bytes) -> bytes:
    """Return code that a contract-creating transaction runs to deploy ``runtime``."""
    loader_bytes = 12  # PUSH2 n, DUP1, PUSH1 12, PUSH1 0, CODECOPY, PUSH1 0, RETURN
    loader = bytes([PUSH2, *len(runtime).to_bytes(2, "big"), OPCODES["DUP1"], PUSH1, loader_bytes, PUSH1, 0])
    return loader + bytes([OPCODES["CODECOPY"], PUSH1, 0, OPCODES["RETURN"]]) + runtime


def _words(source: str) -> list[str]:
    return [word for line in source.splitlines() for word in line.split(";")[0].split()]


def _push(value: int) -> bytes:
    width = max(1, (value.bit_length() + 7) // 8)
    return bytes([PUSH1 + width - 1]) + value.to_bytes(width, "big")
