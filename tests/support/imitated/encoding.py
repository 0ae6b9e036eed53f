"""RLP, Keccak-256, the trie of a list, and blooms (yellow paper, appendices B, D and section 4.3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from Crypto.Hash import keccak as _keccak

Item: TypeAlias = "bytes | int | Sequence[Item]"
"""What RLP encodes; a number stands for its big-endian bytes without leading zeros."""

_Path = tuple[int, ...]


def keccak(content: bytes) -> bytes:
    """Return the Keccak-256 digest."""
    return _keccak.new(digest_bits=256, data=content).digest()


def rlp(item: Item) -> bytes:
    """Encode an item."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < 0x80 else _headed(0x80, item)
    return _headed(0xC0, b"".join(map(rlp, item)))


def _headed(base: int, content: bytes) -> bytes:
    if len(content) < 56:
        return bytes([base + len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([base + 55 + len(size)]) + size + content


def list_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the trie that maps rlp(index) to each leaf."""
    if not leaves:
        return keccak(rlp(b""))
    pairs = [(_nibbles(rlp(index)), leaf) for index, leaf in enumerate(leaves)]
    return keccak(rlp(_node(pairs)))


def _node(pairs: list[tuple[_Path, bytes]]) -> Item:
    """Return the trie node below which these paths lie. No path is the beginning of another: RLP is prefix-free."""
    if len(pairs) == 1:
        path, leaf = pairs[0]
        return [_packed(path, 2), leaf]
    shared = 0
    while len({path[shared] for path, _ in pairs}) == 1:
        shared += 1
    if shared:
        prefix = pairs[0][0][:shared]
        return [_packed(prefix, 0), _reference([(path[shared:], leaf) for path, leaf in pairs])]
    branches = [[(path[1:], leaf) for path, leaf in pairs if path[0] == nibble] for nibble in range(16)]
    return [*[_reference(below) if below else b"" for below in branches], b""]


def _reference(pairs: list[tuple[_Path, bytes]]) -> Item:
    node = _node(pairs)
    encoded = rlp(node)
    return node if len(encoded) < 32 else keccak(encoded)


def _nibbles(key: bytes) -> _Path:
    return tuple(int(digit, 16) for digit in key.hex())


def _packed(path: _Path, flag: int) -> bytes:
    """Return a path in hex-prefix encoding; ``flag`` is 2 for a leaf and 0 for an extension."""
    digits = [flag + len(path) % 2, *([] if len(path) % 2 else [0]), *path]
    return bytes.fromhex("".join(f"{digit:x}" for digit in digits))


def bloom(entries: Iterable[bytes]) -> int:
    """Return the bloom of addresses and topics as a number of 2,048 bits."""
    bits = 0
    for entry in entries:
        digest = keccak(entry)
        for start in (0, 2, 4):
            bits |= 1 << int.from_bytes(digest[start : start + 2], "big") % 2048
    return bits
