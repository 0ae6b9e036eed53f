"""The shape of call trees: geth_calls and traces name frames "", "0", "0 1", ... ("0_1" in traces)."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.facts import disagrees
from trace_dagster.verify.tables import column, required

SEPARATORS = {"geth_calls": " ", "traces": "_"}
"""Datasets of call frames, and what Cryo 0.3.2 puts between the steps of a trace_address."""

_KIN_KEPT = 1 << 12
"""Most trees are small: the same addresses come again and again."""

Frames = dict[int, dict[int, dict[str, int]]]
"""Row by block, transaction index and trace address."""


def frames_of(table: pa.Table) -> Frames:
    """Every frame's row; block rewards in traces are no frames. Raises VerificationFailed for a doubled one."""
    blocks, addresses = required(table, "block_number"), required(table, "trace_address")
    positions = column(table, "transaction_index") or [None] * table.num_rows
    kinds = column(table, "action_type") or [None] * table.num_rows
    found: Frames = {}
    for row, (block, position, address, kind) in enumerate(zip(blocks, positions, addresses, kinds, strict=True)):
        if kind == "reward":
            continue
        if position is None:
            raise VerificationFailed("a call frame has no transaction_index", block=block)
        frames = found.setdefault(block, {}).setdefault(position, {})
        if address in frames:
            raise VerificationFailed("a call frame stands twice", block=block, transaction=position, got=repr(address))
        frames[address] = row
    return found


def check_shape(found: Frames, separator: str) -> None:
    """Transactions count from 0, each has a root, each frame its parent and the sibling before it."""
    for block, transactions in found.items():
        for expected, (position, frames) in enumerate(sorted(transactions.items())):
            if position != expected:
                raise disagrees("a transaction has no call frames", block, expected, position)
            if "" not in frames:
                raise VerificationFailed("a transaction has no root frame", block=block, transaction=position)
            for address in frames:
                if address:
                    _check_frame(address, frames, separator, block)


def _check_frame(address: str, frames: dict[str, int], separator: str, block: int) -> None:
    kin = _kin(address, separator)
    if kin is None:
        raise VerificationFailed("a call frame's trace_address is malformed", block=block, got=repr(address)[:80])
    parent, before = kin
    if parent not in frames:
        raise VerificationFailed("a call frame has no parent", block=block, got=repr(address)[:80])
    if before is not None and before not in frames:
        raise VerificationFailed("a call frame lacks the sibling before it", block=block, got=repr(address)[:80])


@lru_cache(_KIN_KEPT)
def _kin(address: str, separator: str) -> tuple[str, str | None] | None:
    """The addresses of a frame's parent and of the sibling before it, if it has one; None for a malformed address."""
    parent, _, last = address.rpartition(separator)
    if not (last.isascii() and last.isdigit() and len(last) < 10) or str(int(last)) != last:
        return None
    before = f"{parent}{separator}{int(last) - 1}" if parent else str(int(last) - 1)
    return parent, None if last == "0" else before
