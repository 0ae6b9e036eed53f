"""Hashes of headers, from the JSON of a block, by the form of the chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tests.support.imitated.encoding import Item, keccak, rlp
from tests.support.imitated.hexadecimal import Json, octets, quantity, shown

HeaderKind = Literal["ethereum", "avalanche", "aura", "scroll", "amsterdam", "longer", "none"]
"""``longer`` is Ethereum's header with a field that nobody knows; ``none`` is no header in RLP at all."""

_LONDON = ("baseFeePerGas",)
_CANCUN = (*_LONDON, "withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot")
_PRAGUE = (*_CANCUN, "requestsHash")
_LATER: dict[str, tuple[str, ...]] = {
    "ethereum": _PRAGUE,
    "aura": _PRAGUE,
    "scroll": _PRAGUE,
    "amsterdam": (*_PRAGUE, "blockAccessListHash", "slotNumber"),
    "longer": (*_PRAGUE, "somethingNew"),
    "avalanche": (
        "extDataHash",
        "baseFeePerGas",
        "extDataGasUsed",
        "blockGasCost",
        "blobGasUsed",
        "excessBlobGas",
        "parentBeaconBlockRoot",
        "timestampMilliseconds",
        "minDelayExcess",
    ),
}
_HASHES = {
    "withdrawalsRoot",
    "parentBeaconBlockRoot",
    "requestsHash",
    "blockAccessListHash",
    "extDataHash",
    "somethingNew",
}


def header_hash(block: Json, kind: HeaderKind = "ethereum") -> bytes:
    """Return the hash of a block. The JSON of every node of the chain gives the same one."""
    return keccak(rlp(header_items(block, kind))) if kind != "none" else _without_rlp(block)


def header_items(block: Json, kind: HeaderKind) -> list[Item]:
    """Return what a header's hash is taken of, in order."""
    extra = b"" if kind == "scroll" else octets(block["extraData"])
    return [
        *[octets(block[name]) for name in ("parentHash", "sha3Uncles", "miner", "stateRoot")],
        *[octets(block[name]) for name in ("transactionsRoot", "receiptsRoot", "logsBloom")],
        *[quantity(block[name]) for name in ("difficulty", "number", "gasLimit", "gasUsed", "timestamp")],
        extra,
        *_SEALS.get(kind, _work)(block),
        *[_read(name)(block[name]) for name in _LATER[kind] if block.get(name) is not None],
    ]


def _read(name: str) -> Callable[[str], Item]:
    return octets if name in _HASHES else quantity


def _work(block: Json) -> list[Item]:
    return [octets(block["mixHash"]), octets(block["nonce"])]


def _authority(block: Json) -> list[Item]:
    """Return the seal of AuRa, which each client shows in its own way, or the usual one if the block has none."""
    if "auraSeal" in block:
        return [quantity(block["auraStep"]), octets(block["auraSeal"])]
    if "signature" in block:
        step = block["step"]
        return [step if isinstance(step, int) else quantity(step), octets(block["signature"])]
    return _work(block)


_SEALS: dict[str, Callable[[Json], list[Item]]] = {"aura": _authority}


def _without_rlp(block: Json) -> bytes:
    """Return a hash in the manner of zkSync Era: of number, time, parent and the transactions' rolling hash."""
    rolling = bytes(32)
    for transaction in block["transactions"]:
        rolling = keccak(rolling + octets(transaction["hash"]))
    number, time = (quantity(block[name]).to_bytes(32, "big") for name in ("number", "timestamp"))
    return keccak(number + time + octets(block["parentHash"]) + rolling)


def with_hash(block: Json, kind: HeaderKind) -> Json:
    """Return the block with its hash."""
    return {**block, "hash": shown(header_hash(block, kind))}
