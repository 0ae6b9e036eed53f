"""Calls whose answers never change, and those whose answer is a part of another call's answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from trace_dagster.gateway import receipt_logs
from trace_dagster.gateway.jsonrpc import decoded

_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,15})")
_BY_NUMBER = frozenset({"eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getLogs"})
_TRACES = ("debug_trace", "trace_")
CHAIN_ID = "eth_chainId"
BLOCK = "eth_getBlockByNumber"
RECEIPTS = "eth_getBlockReceipts"
LOGS = "eth_getLogs"


@dataclass(frozen=True, slots=True)
class CacheableCall:
    """Call for immutable data, normalised so that equal calls of different callers compare equal."""

    method: str
    params: bytes

    @property
    def wider(self) -> CacheableCall | None:
        """The call whose answer contains this one's answer: the block with transactions, or the block's receipts.

        None if there is no such call.
        """
        if self.method == BLOCK and self.params.endswith(b",false]"):
            return CacheableCall(BLOCK, self.params[: -len(b"false]")] + b"true]")
        if self.method == LOGS and (block := _only_block(self.params)):
            return CacheableCall(RECEIPTS, _encode([block]))
        return None

    @property
    def both_forms(self) -> tuple[CacheableCall, CacheableCall]:
        """The calls for the same block with its transactions and with their hashes, if this is one of them."""
        return block_of(self, full=True), block_of(self, full=False)


def cacheable_call(method: str, params: msgspec.Raw) -> CacheableCall | None:
    """Return the normalised call, or None if its answer may change (block tags, hashes, balances, ...)."""
    if method == CHAIN_ID:
        return CacheableCall(CHAIN_ID, b"[]")
    if method not in _BY_NUMBER and not method.startswith(_TRACES):
        return None
    try:
        values = decoded(params)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(values, list) or not values:
        return None
    first = _logs_filter(values[0]) if method == LOGS else _number(values[0])
    if first is None:
        return None
    if method == BLOCK:
        return CacheableCall(BLOCK, _encode([first, len(values) > 1 and values[1] is True]))
    return CacheableCall(method, _encode([first, *values[1:]]))


def single_blocks(question: CacheableCall) -> list[CacheableCall]:
    """Return the calls for each block of a call for the logs of several blocks; none if they cannot be derived."""
    wanted = _filter_of(question) if question.method == LOGS else {}
    if not wanted or not receipt_logs.is_known_form(wanted):
        return []
    return [CacheableCall(LOGS, _encode([each])) for each in receipt_logs.single_blocks(wanted)]


def block_of(question: CacheableCall, *, full: bool = False) -> CacheableCall:
    """Return the call for the block that a call for receipts is about."""
    (number, *_) = msgspec.json.decode(question.params)
    return CacheableCall(BLOCK, _encode([number, full]))


def first_block(question: CacheableCall) -> int | None:
    """Return the number of the first block that a call is about; None if it is about none."""
    return _bounds(question)[0]


def last_block(question: CacheableCall) -> int | None:
    """Return the number of the last block that a call is about; None if it is about none."""
    return _bounds(question)[1]


def block_hash(block: bytes) -> str | None:
    """Return the hash in an answer about a block, in lower case; None if it has none."""
    try:
        return _HASHED.decode(block).hash.lower()
    except (msgspec.MsgspecError, RecursionError):
        return None


def derive(question: CacheableCall, wider: bytes) -> bytes | None:
    """Return the answer to ``question``, extracted from the answer to its wider call; None if that is not possible."""
    try:
        return _thinned(wider) if question.method == BLOCK else receipt_logs.logs_of(wider, _filter_of(question))
    except (msgspec.MsgspecError, RecursionError):
        return None


def is_cacheable_result(result: bytes) -> bool:
    """Return whether a result may be cached: null or an empty list may mean that the node does not have the
    block yet.
    """
    return result not in {b"null", b"[]", b'""', b"{}"}


class _Hashed(msgspec.Struct):
    hash: str


_HASHED = msgspec.json.Decoder(_Hashed)
_BLOCK = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TRANSACTIONS = msgspec.json.Decoder(list[_Hashed])
_encode = msgspec.json.Encoder(order="sorted").encode
_encode_as_is = msgspec.json.encode


def _thinned(block: bytes) -> bytes | None:
    fields = _BLOCK.decode(block)
    if "transactions" not in fields:
        return None
    hashes = [transaction.hash for transaction in _TRANSACTIONS.decode(fields["transactions"])]
    fields["transactions"] = msgspec.Raw(_encode_as_is(hashes))
    return _encode_as_is(fields)


def _number(value: Any) -> str | None:
    """Return a hexadecimal quantity in lower case, or None for tags and hashes."""
    return value.lower() if isinstance(value, str) and _QUANTITY.fullmatch(value) else None


def _logs_filter(value: Any) -> dict[str, Any] | None:
    """Return a filter over numbered blocks without the fields that do not filter, or None for any other filter."""
    if not isinstance(value, dict):
        return None
    first, last = _number(value.get("fromBlock")), _number(value.get("toBlock"))
    if first is None or last is None or "blockHash" in value:
        return None
    rest = {name: each for name, each in value.items() if each not in (None, [])}
    return {**rest, "fromBlock": first, "toBlock": last}


def _bounds(question: CacheableCall) -> tuple[int, int] | tuple[None, None]:
    values = msgspec.json.decode(question.params)
    if not values:
        return None, None
    if question.method == LOGS:
        return int(values[0]["fromBlock"], 16), int(values[0]["toBlock"], 16)
    return int(values[0], 16), int(values[0], 16)


def _filter_of(question: CacheableCall) -> dict[str, Any]:
    (found,) = msgspec.json.decode(question.params)
    return dict(found)


def _only_block(params: bytes) -> str | None:
    (wanted,) = msgspec.json.decode(params)
    if not receipt_logs.is_known_form(wanted) or wanted["fromBlock"] != wanted["toBlock"]:
        return None
    return str(wanted["fromBlock"])
