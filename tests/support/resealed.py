"""Changed blocks that are valid again: hashes, roots and bloom are computed anew from the members of the answers.

The encoder is the devchain's libraries (rlp, eth_bloom, trie), and shares no code with ``trace_dagster.verify``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import rlp
from eth_bloom import BloomFilter
from eth_hash.auto import keccak
from trie import HexaryTrie

Json = dict[str, Any]
Fields = Sequence[str]

ETHEREUM_HEADER = (
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty",
    "number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas", "withdrawalsRoot",
    "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash",
)  # fmt: skip
AMSTERDAM_HEADER = (*ETHEREUM_HEADER, "blockAccessListHash", "slotNumber")
AVALANCHE_HEADER = (
    *ETHEREUM_HEADER[:15], "extDataHash", "baseFeePerGas", "extDataGasUsed", "blockGasCost", "blobGasUsed",
    "excessBlobGas", "parentBeaconBlockRoot", "timestampMilliseconds", "minDelayExcess",
)  # fmt: skip
_CALL = ("gas", "to", "value", "input")
_FEES = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", *_CALL, "accessList")
_TRANSACTIONS: Mapping[str, Fields] = {
    "0x0": ("nonce", "gasPrice", *_CALL, "v", "r", "s"),
    "0x1": ("chainId", "nonce", "gasPrice", *_CALL, "accessList", "yParity", "r", "s"),
    "0x2": (*_FEES, "yParity", "r", "s"),
    "0x4": (*_FEES, "authorizationList", "yParity", "r", "s"),
    "0x64": ("chainId", "requestId", "from", "to", "value"),
    "0x65": ("chainId", "from", "nonce", "maxFeePerGas", *_CALL),
    "0x66": ("chainId", "requestId", "from", "maxFeePerGas", *_CALL),
    "0x68": (
        "chainId", "nonce", "from", "maxFeePerGas", *_CALL, "ticketId", "refundTo", "maxRefund", "submissionFeeRefund",
    ),
    "0x6a": ("chainId", "input"),
    "0x7e": ("sourceHash", "from", "to", "mint", "value", "gas", "isSystemTx", "input"),
}  # fmt: skip
_BYTES = {
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "extraData",
    "mixHash", "withdrawalsRoot", "parentBeaconBlockRoot", "requestsHash", "to", "input", "from", "sourceHash",
    "address", "data", "extDataHash", "blockAccessListHash", "requestId", "ticketId", "refundTo",
}  # fmt: skip


def resealed(block: Json, receipts: list[Json], header: Fields = ETHEREUM_HEADER) -> tuple[Json, list[Json]]:
    """Return the answers with the hashes, roots and bloom that their other members give."""
    block, receipts = deepcopy(block), deepcopy(receipts)
    encoded = [_transaction(each) for each in block["transactions"]]
    for transaction, receipt, raw in zip(block["transactions"], receipts, encoded, strict=True):
        transaction["hash"] = receipt["transactionHash"] = _hex(keccak(raw))
    blooms = [_bloom(receipt["logs"]) for receipt in receipts]
    for receipt, bloom in zip(receipts, blooms, strict=True):
        receipt["logsBloom"] = _hex(_of_bloom(bloom))
    whole = BloomFilter()
    for bloom in blooms:
        whole = whole | bloom
    block["transactionsRoot"] = _root(encoded)
    block["receiptsRoot"] = _root([_receipt(each) for each in receipts])
    block["logsBloom"] = _hex(_of_bloom(whole))
    block["hash"] = _hex(keccak(rlp.encode([_field(block, name) for name in header if block.get(name) is not None])))
    return block, receipts


def with_deposit(block: Json, receipts: list[Json], at: int = 0, **members: Any) -> tuple[Json, list[Json]]:
    """Return the block with an OP deposit in place of the transaction at an index, with the same call and logs.

    ``members`` are further members of the deposit; None removes one. A ``version`` is the receipt's.
    """
    block, receipts = deepcopy(block), deepcopy(receipts)
    before = block["transactions"][at]
    kept = ("blockHash", "blockNumber", "transactionIndex", "from", "to", "value", "gas", "input", "nonce")
    version = members.pop("version", "0x1")
    deposit = {name: before[name] for name in kept} | {
        "type": "0x7e", "sourceHash": "0x" + "5e" * 32, "mint": "0x0", "gasPrice": "0x0", "v": "0x0", "r": "0x0",
        "s": "0x0",
    } | members  # fmt: skip
    block["transactions"][at] = {name: value for name, value in deposit.items() if value is not None}
    receipts[at] |= {"type": "0x7e", "effectiveGasPrice": "0x0"}
    if version is not None:
        receipts[at] |= {"depositNonce": deposit["nonce"], "depositReceiptVersion": version}
    return resealed(block, receipts)


def _transaction(raw: Json) -> bytes:
    kind = raw.get("type") or "0x0"
    instead = {"yParity": "v", "maxFeePerGas": "gasPrice"}
    renamed = {name: other for name, other in instead.items() if name not in raw}
    return _typed(kind, [_field(raw, renamed.get(name, name)) for name in _TRANSACTIONS[kind]])


def _receipt(raw: Json) -> bytes:
    logs = [[_bytes(log["address"]), [_bytes(topic) for topic in log["topics"]], _bytes(log["data"])]
            for log in raw["logs"]]  # fmt: skip
    fields = [_number(raw["status"]), _number(raw["cumulativeGasUsed"]), _bytes(raw["logsBloom"]), logs]
    if raw.get("type") == "0x7e" and raw.get("depositReceiptVersion") is not None:
        fields += [_number(raw["depositNonce"]), _number(raw["depositReceiptVersion"])]
    return _typed(raw.get("type") or "0x0", fields)


def _typed(kind: str, fields: list[Any]) -> bytes:
    prefix = bytes([int(kind, 16)]) if int(kind, 16) else b""
    return prefix + bytes(rlp.encode(fields))


def _field(raw: Json, name: str) -> Any:
    value = raw.get(name)
    special: dict[str, Callable[[], Any]] = {
        "accessList": lambda: [[_bytes(each["address"]), [_bytes(key) for key in each["storageKeys"]]]
                               for each in raw[name]],
        "authorizationList": lambda: [
            [*_numbers(each, "chainId"), _bytes(each["address"]), *_numbers(each, "nonce", "yParity", "r", "s")]
            for each in raw[name]
        ],
        "isSystemTx": lambda: b"\x01" if value else b"",
    }  # fmt: skip
    if name in special:
        return special[name]()
    if value is None:
        return b""
    is_bytes = name in _BYTES or (name == "nonce" and "stateRoot" in raw)
    return _bytes(value) if is_bytes else _number(value)


def _numbers(raw: Json, *names: str) -> list[bytes]:
    return [_number(raw[name]) for name in names]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _number(text: str) -> bytes:
    value = int(text, 16)
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _bloom(logs: list[Json]) -> BloomFilter:
    bloom = BloomFilter()
    for log in logs:
        for each in (log["address"], *log["topics"]):
            bloom.add(_bytes(each))
    return bloom


def _of_bloom(bloom: BloomFilter) -> bytes:
    return int(bloom).to_bytes(256, "big")


def _root(items: list[bytes]) -> str:
    trie = HexaryTrie({})
    for index, item in enumerate(items):
        trie[rlp.encode(index)] = item
    return _hex(trie.root_hash)


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
