"""Turns the call frames of ``debug_traceBlockByNumber`` (callTracer) into rows of geth_calls, as Cryo 0.3.2 does.

Answers may be hostile: anything malformed raises VerificationFailed. No commitment covers the frames; the check of the
rows compares the root frames with the proven transactions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.decoder.deep_json import decode_deep
from trace_dagster.decoder.limits import numbers, row_schema
from trace_dagster.decoder.uint256 import numbers_of_hex, uint256_of_numbers
from trace_dagster.errors import Unavailable, VerificationFailed
from trace_dagster.verify.mismatch import mismatch, shortened

MOST_DEPTH = 1100
"""Levels of frames. The EVM ends at a call depth of 1,024."""

MOST_ADDRESS_CHARACTERS = 1 << 26
"""Characters of all trace addresses of a block. Real blocks stay far below; deep trees of a hostile node do not."""

_ADDRESS_CHARACTERS = 2 + 40


class Frame(msgspec.Struct, rename="camel", gc=False):
    """A call frame. Values stay text until whole columns are decoded."""

    type: str
    sender: str = msgspec.field(name="from")
    to: str | None = None
    value: str | None = None
    gas: str = "0x0"
    gas_used: str = "0x0"
    input: str = "0x"
    output: str | None = None
    error: str | None = None
    calls: list[Frame] | None = None


class Trace(msgspec.Struct, rename="camel", gc=False):
    """The trace of one transaction: its root frame, or the node's error. Older nodes leave out ``txHash``."""

    result: Frame | None = None
    error: Any = None
    tx_hash: str | None = None


_TRACES = msgspec.json.Decoder(list[Trace])


@dataclass(slots=True)
class Frames:
    """The rows of consecutive blocks, before their values are decoded."""

    frames: list[Frame] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def add_block(self, block: int, answer: bytes | msgspec.Raw, hashes: Sequence[bytes]) -> None:
        """Add the frames of a block; ``hashes`` are those of its transactions, in order.

        Raises VerificationFailed if a trace belongs to no transaction, Unavailable if the node could not trace one.
        """
        for index, trace in _assigned(block, _decoded(block, answer), hashes):
            if trace.result is None:
                raise Unavailable(
                    "the node could not trace a transaction", block=block, transaction=index,
                    reason=shortened(trace.error),
                )  # fmt: skip
            count = _flatten(block, trace.result, self.frames, self.addresses)
            self.indices += [index] * count
            self.hashes += [hashes[index]] * count
            self.blocks += [block] * count

    def table(self, dataset: Dataset, columns: Sequence[str], chain_id: int) -> pa.Table:
        """Return the rows with ``columns``. Raises VerificationFailed if a value is malformed."""
        schema, wanted = row_schema(dataset, columns), frozenset(columns)
        found: dict[str, pa.Array] = {
            "typ": pa.array([each.type for each in self.frames], pa.large_string()),
            "error": pa.array([each.error for each in self.frames], pa.large_string()),
            "block_number": numbers("block_number", self.blocks, self.blocks),
            "transaction_hash": pa.array(self.hashes, pa.large_binary()),
            "transaction_index": pa.array(self.indices, pa.uint64()),
            "trace_address": pa.array(self.addresses, pa.large_string()),
            "chain_id": pa.repeat(pa.scalar(chain_id, pa.uint64()), len(self.frames)),
        }
        for name, texts in self._data().items():
            if name in wanted:
                found[name] = self._bytes(name, texts)
        for name, texts in self._numbers().items():
            if any(column.rpartition("_")[0] == name for column in wanted):
                found |= uint256_of_numbers(name, numbers_of_hex(texts))
        return pa.table([found[each.name] for each in schema], schema)

    def _data(self) -> dict[str, list[str | None]]:
        return {
            "from_address": [each.sender for each in self.frames],
            "to_address": [each.to for each in self.frames],
            "input": [each.input for each in self.frames],
            "output": [each.output for each in self.frames],
        }

    def _numbers(self) -> dict[str, list[str | None]]:
        return {
            "value": [each.value for each in self.frames],
            "gas": [each.gas for each in self.frames],
            "gas_used": [each.gas_used for each in self.frames],
        }

    def _bytes(self, name: str, texts: list[str | None]) -> pa.Array:
        """Return a binary column from hex text. Addresses must have 20 bytes."""
        values = pl.Series(texts, dtype=pl.String)
        good = values.str.starts_with("0x")
        if name.endswith("_address"):
            good &= values.str.len_bytes() == _ADDRESS_CHARACTERS
        try:
            if good.fill_null(True).all():
                return values.str.slice(2).str.decode("hex").to_arrow().cast(pa.large_binary())
        except pl.exceptions.PolarsError:
            pass
        for block, text in zip(self.blocks, texts, strict=True):
            if text is not None and not _is_hex(text, 40 if name.endswith("_address") else None):
                raise VerificationFailed(f"a call frame's {name} is no hex", block=block, got=shortened(text))
        raise VerificationFailed(f"a call frame's {name} is no hex", block=self.blocks[0])


def _decoded(block: int, answer: bytes | msgspec.Raw) -> list[Trace]:
    try:
        return _TRACES.decode(answer)
    except RecursionError:
        return _decoded_deep(block, bytes(answer))
    except (msgspec.MsgspecError, ValueError) as error:
        raise _malformed(block, error) from None


def _decoded_deep(block: int, text: bytes) -> list[Trace]:
    """Decode traces that are too deep for msgspec, frame by frame."""
    try:
        raw = decode_deep(text, 2 * MOST_DEPTH)
        traces = msgspec.convert([{**each, "result": None} for each in raw], list[Trace])
        for trace, each in zip(traces, raw, strict=True):
            trace.result = None if each.get("result") is None else _tree(each["result"])
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
        raise _malformed(block, error) from None
    return traces


def _tree(raw: Any) -> Frame:
    root = _frame(raw)
    waiting = [(root, raw)]
    while waiting:
        frame, source = waiting.pop()
        inside = source.get("calls") or []
        frame.calls = [_frame(each) for each in inside]
        waiting += zip(frame.calls, inside, strict=True)
    return root


def _frame(raw: Any) -> Frame:
    """Return one frame without the frames inside it."""
    return msgspec.convert({**raw, "calls": None}, Frame)


def _assigned(block: int, traces: list[Trace], hashes: Sequence[bytes]) -> list[tuple[int, Trace]]:
    """Return the traces with the index of their transaction.

    Traces that name their transaction are assigned by it. A node may leave a transaction out; whether it may is decided
    by the check of the rows. Raises VerificationFailed for a trace of no transaction, or of one that occurs twice.
    """
    if [trace.tx_hash for trace in traces] == [f"0x{identity.hex()}" for identity in hashes]:
        return list(enumerate(traces))
    if any(trace.tx_hash is None for trace in traces):
        if len(traces) != len(hashes):
            raise mismatch("the node has not one trace per transaction", block, len(hashes), len(traces))
        claimed = [(index, trace, trace.tx_hash) for index, trace in enumerate(traces)]
        for index, _, text in claimed:
            if text is not None and _hash(text) != hashes[index]:
                raise mismatch("a trace is of another transaction", block, hashes[index], text)
        return [(index, trace) for index, trace, _ in claimed]
    places = {identity: index for index, identity in enumerate(hashes)}
    found: list[tuple[int, Trace]] = []
    for trace in traces:
        index = places.get(_hash(trace.tx_hash or ""), -1)
        if index <= (found[-1][0] if found else -1):
            raise mismatch(
                "a trace is of another transaction", block, "a transaction after the last one", trace.tx_hash
            )
        found.append((index, trace))
    return found


def _hash(text: str) -> bytes:
    return bytes.fromhex(text[2:]) if _is_hex(text, 64) else b""


def _is_hex(text: str, digits: int | None) -> bool:
    found = re.fullmatch(r"0x((?:[0-9a-fA-F]{2})*)", text)
    return found is not None and (digits is None or len(found[1]) == digits)


def _flatten(block: int, root: Frame, frames: list[Frame], addresses: list[str]) -> int:
    """Append a tree depth-first, with the address of each frame: "", "0", "0 0", "1". Return the number of frames."""
    first = len(frames)
    if not root.calls:
        frames.append(root)
        addresses.append("")
        return 1
    left = MOST_ADDRESS_CHARACTERS
    waiting = [("", root)]
    while waiting:
        address, frame = waiting.pop()
        frames.append(frame)
        addresses.append(address)
        left -= len(address)
        if frame.calls:
            prefix = f"{address} " if address else ""
            waiting += [(f"{prefix}{place}", frame.calls[place]) for place in reversed(range(len(frame.calls)))]
        if left < 0 or address.count(" ") > MOST_DEPTH:
            raise VerificationFailed("a transaction's call frames are deeper than the EVM allows", block=block)
    return len(frames) - first


def _malformed(block: int, reason: object) -> VerificationFailed:
    return VerificationFailed(
        "the node's answer is not of the form of call frames", block=block, reason=shortened(reason)
    )
