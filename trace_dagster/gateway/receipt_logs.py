"""The answer to eth_getLogs, built of the receipts of the blocks that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

_ABSENT = msgspec.Raw(b"")
MOST_BLOCKS = 1000
"""Blocks of one call whose receipts are read; a call about more of them goes to the node."""


class _Log(msgspec.Struct):
    """Fields of a log of eth_getLogs. Some nodes leave out in a receipt's logs what the receipt itself has."""

    address: str
    topics: list[str]
    data: msgspec.Raw
    blockNumber: msgspec.Raw = _ABSENT  # noqa: N815
    blockHash: msgspec.Raw = _ABSENT  # noqa: N815
    transactionHash: msgspec.Raw = _ABSENT  # noqa: N815
    transactionIndex: msgspec.Raw = _ABSENT  # noqa: N815
    logIndex: msgspec.Raw = _ABSENT  # noqa: N815

    def is_complete(self, position: int) -> bool:
        """Return whether nothing is missing, and the log is counted as the one at this position in its block."""
        of_receipt = (self.blockNumber, self.blockHash, self.transactionHash, self.transactionIndex)
        return _ABSENT not in of_receipt and bytes(self.logIndex) == b'"0x%x"' % position


class _Receipt(msgspec.Struct):
    logs: list[msgspec.Raw]
    blockHash: msgspec.Raw = _ABSENT  # noqa: N815
    transactionHash: msgspec.Raw = _ABSENT  # noqa: N815


_RECEIPTS = msgspec.json.Decoder(list[_Receipt])
_LOG = msgspec.json.Decoder(_Log)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode

Matches = Callable[[_Log], bool]


def logs_of(receipts: bytes, log_filter: Mapping[str, Any]) -> bytes:
    """Return the logs of one block's receipts that a filter selects, in order.

    ``logIndex`` counts the logs in the block, whatever the node counts. Raises msgspec.MsgspecError if a log lacks what
    only a log has, or if the filter has an unknown form.
    """
    is_wanted = _matcher(log_filter)
    found: list[bytes] = []
    position = 0
    for index, receipt in enumerate(_RECEIPTS.decode(receipts)):
        for raw in receipt.logs:
            log = _LOG.decode(raw)
            if is_wanted(log):
                whole = log.is_complete(position)
                found.append(bytes(raw) if whole else _completed(raw, position, receipt, index, log_filter))
            position += 1
    return b"[" + b",".join(found) + b"]"


def joined(answers: Iterable[bytes]) -> bytes:
    """Return several answers to eth_getLogs as one."""
    return b"[" + b",".join(each[1:-1] for each in answers if each != b"[]") + b"]"


def single_blocks(log_filter: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the filters for each of the blocks of a filter, or an empty list if there are too many or none."""
    first, last = int(log_filter["fromBlock"], 16), int(log_filter["toBlock"], 16)
    if not 0 <= last - first < MOST_BLOCKS:
        return []
    return [{**log_filter, "fromBlock": hex(n), "toBlock": hex(n)} for n in range(first, last + 1)]


def is_known_form(log_filter: Mapping[str, Any]) -> bool:
    """Return whether a filter selects by nothing but blocks, addresses and topics."""
    return log_filter.keys() <= {"fromBlock", "toBlock", "address", "topics"}


def _matcher(log_filter: Mapping[str, Any]) -> Matches:
    addresses = _alternatives(log_filter.get("address"))
    topics = [_alternatives(each) for each in _list(log_filter.get("topics") or [])]

    def matches(log: _Log) -> bool:
        if addresses is not None and log.address.lower() not in addresses:
            return False
        if len(topics) > len(log.topics):
            return False
        return all(each is None or topic.lower() in each for each, topic in zip(topics, log.topics, strict=False))

    return matches


def _alternatives(value: object) -> frozenset[str] | None:
    """Return what a place of a filter accepts, in lower case; None if it accepts all."""
    if value is None or value == []:
        return None
    return frozenset(each.lower() for each in msgspec.convert(value if isinstance(value, list) else [value], list[str]))


def _list(value: object) -> list[Any]:
    return msgspec.convert(value, list[Any])


def _completed(log: msgspec.Raw, position: int, receipt: _Receipt, index: int, log_filter: Mapping[str, Any]) -> bytes:
    """Return a log with the fields that a node left out of a receipt's logs, counted in its block."""
    known = {
        "blockNumber": msgspec.Raw(_encode(log_filter["fromBlock"])),
        "blockHash": receipt.blockHash,
        "transactionHash": receipt.transactionHash,
        "transactionIndex": msgspec.Raw(b'"0x%x"' % index),
    }
    fields = {name: value for name, value in known.items() if bytes(value)} | _FIELDS.decode(log)
    return _encode({**fields, "logIndex": msgspec.Raw(b'"0x%x"' % position)})
