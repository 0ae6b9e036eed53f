"""Checks the shape of call trees. Frames in geth_calls have the addresses "", "0", "0 1", ...; "0_1" in traces."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.rows.arrow import column, plain, present, required

SEPARATORS = {"geth_calls": " ", "traces": "_"}
"""Datasets of call frames, and the separator in a trace_address of Cryo 0.3.2."""

_KIN_KEPT = 1 << 12
"""Size of the caches. Most trees are small, so the same addresses occur again and again."""

_LONGEST_KEPT = 32
"""The largest tree, in frames, whose shape is cached. Most trees have few frames and one of a few shapes."""
_POSITIONS = 1 << 32
"""An upper bound for the number of transactions in a block."""

Frames = dict[int, dict[int, dict[str, int]]]
"""Row by block, transaction index and trace address."""


def require_shape(table: pa.Table, separator: str) -> None:
    """Raise VerificationFailed, with the first wrong frame, unless the rows form one tree per transaction."""
    if not _is_shaped_in_order(table, separator):
        check_shape(frames_of(table), separator)


def frames_of(table: pa.Table) -> Frames:
    """Return the row of every frame, without the block rewards in traces.

    Raises VerificationFailed if a frame occurs twice or has no transaction_index.
    """
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
            raise VerificationFailed("a call frame occurs twice", block=block, transaction=position, got=repr(address))
        frames[address] = row
    return found


def check_shape(found: Frames, separator: str) -> None:
    """Raise unless transactions count from 0, each has a root, and each frame has its parent and previous sibling."""
    for block, transactions in found.items():
        for expected, (position, frames) in enumerate(sorted(transactions.items())):
            if position != expected:
                raise mismatch("a transaction has no call frames", block, expected, position)
            if "" not in frames:
                raise VerificationFailed("a transaction has no root frame", block=block, transaction=position)
            for address in frames:
                if address and (fault := _fault(address, frames, separator)):
                    raise VerificationFailed(fault, block=block, got=repr(address)[:80])


def _is_shaped_in_order(table: pa.Table, separator: str) -> bool:
    """Return whether the rows are right and in Cryo's order, tree by tree. The check is then fast: few trees differ."""
    ends = _tree_ends(table)
    if ends is None:
        return False
    addresses = required(table, "trace_address")
    trees = (tuple(addresses[start:end]) for start, end in pairwise([0, *ends]))
    return all((_is_tree_known if len(tree) <= _LONGEST_KEPT else _is_tree)(tree, separator) for tree in trees)


def _tree_ends(table: pa.Table) -> list[int] | None:
    """Return the index of the row after each tree, or None unless trees are in order and count from 0 in each block."""
    if "transaction_index" not in table.column_names or "action_type" in table.column_names or not table.num_rows:
        return None
    positions = plain(table, "transaction_index")
    if positions.null_count:
        return None
    try:
        if pc.max(positions).as_py() >= _POSITIONS:
            return None
        blocks = pc.subtract(present(table, "block_number").cast(pa.int64()), table["block_number"][0].cast(pa.int64()))
        runs = pc.run_end_encode(
            pc.add_checked(pc.multiply_checked(blocks, _POSITIONS), positions.combine_chunks().cast(pa.int64()))
        )
    except (pa.ArrowException, TypeError):  # values that are no block or transaction numbers
        return None
    trees = pairwise([-_POSITIONS, *runs.values.to_pylist()])
    if all(tree == before + 1 or (tree % _POSITIONS == 0 and tree > before) for before, tree in trees):
        return runs.run_ends.to_pylist()  # type: ignore[no-any-return]
    return None


def _is_tree(addresses: tuple[str, ...], separator: str) -> bool:
    """Return whether there is a root, and each frame occurs a single time with its parent and previous sibling."""
    frames = set(addresses)
    if len(frames) != len(addresses) or "" not in frames:
        return False
    return not any(address and _fault(address, frames, separator) for address in frames)


_is_tree_known = lru_cache(_KIN_KEPT)(_is_tree)


def _fault(address: str, frames: Collection[str], separator: str) -> str | None:
    """Return the fault of a frame below the root, or None."""
    kin = _kin(address, separator)
    if kin is None:
        return "a call frame's trace_address is malformed"
    parent, before = kin
    if parent not in frames:
        return "a call frame has no parent"
    if before is not None and before not in frames:
        return "a call frame lacks the sibling before it"
    return None


@lru_cache(_KIN_KEPT)
def _kin(address: str, separator: str) -> tuple[str, str | None] | None:
    """Return the addresses of a frame's parent and previous sibling (None if first); None for a malformed address."""
    parent, _, last = address.rpartition(separator)
    if not (last.isascii() and last.isdigit() and len(last) < 10) or str(int(last)) != last:
        return None
    before = f"{parent}{separator}{int(last) - 1}" if parent else str(int(last) - 1)
    return parent, None if last == "0" else before
