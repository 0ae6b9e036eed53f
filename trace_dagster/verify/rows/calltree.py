"""The shape of call trees: geth_calls and traces name frames "", "0", "0 1", ... ("0_1" in traces)."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import disagrees
from trace_dagster.verify.rows.arrow import column, plain, present, required

SEPARATORS = {"geth_calls": " ", "traces": "_"}
"""Datasets of call frames, and what Cryo 0.3.2 puts between the steps of a trace_address."""

_KIN_KEPT = 1 << 12
"""Most trees are small: the same addresses come again and again."""

_LONGEST_KEPT = 32
"""Frames of a tree whose shape is remembered: most have a few, and the same few shapes."""
_POSITIONS = 1 << 32
"""More than a block has transactions."""

Frames = dict[int, dict[int, dict[str, int]]]
"""Row by block, transaction index and trace address."""


def require_shape(table: pa.Table, separator: str) -> None:
    """The rows are one tree per transaction. Raises VerificationFailed with the first that is not."""
    if not _plainly_shaped(table, separator):
        check_shape(frames_of(table), separator)


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
                if address and (fault := _fault(address, frames, separator)):
                    raise VerificationFailed(fault, block=block, got=repr(address)[:80])


def _plainly_shaped(table: pa.Table, separator: str) -> bool:
    """Whether rows come tree by tree, as Cryo gives them: then a tree is a list of addresses, and few differ."""
    ends = _tree_ends(table)
    if ends is None:
        return False
    addresses = required(table, "trace_address")
    trees = (tuple(addresses[start:end]) for start, end in pairwise([0, *ends]))
    return all((_is_tree_known if len(tree) <= _LONGEST_KEPT else _is_tree)(tree, separator) for tree in trees)


def _tree_ends(table: pa.Table) -> list[int] | None:
    """The row behind each tree, where each block's are in order and count from 0; None where that is not plain."""
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
    except (pa.ArrowException, TypeError):  # numbers that are none of a block or a transaction
        return None
    trees = pairwise([-_POSITIONS, *runs.values.to_pylist()])
    if all(tree == before + 1 or (tree % _POSITIONS == 0 and tree > before) for before, tree in trees):
        return runs.run_ends.to_pylist()  # type: ignore[no-any-return]
    return None


def _is_tree(addresses: tuple[str, ...], separator: str) -> bool:
    """Whether there is a root, and each frame stands once and in its place."""
    frames = set(addresses)
    if len(frames) != len(addresses) or "" not in frames:
        return False
    return not any(address and _fault(address, frames, separator) for address in frames)


_is_tree_known = lru_cache(_KIN_KEPT)(_is_tree)


def _fault(address: str, frames: Collection[str], separator: str) -> str | None:
    """What is wrong with the place of a frame below the root."""
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
    """The addresses of a frame's parent and of the sibling before it, if it has one; None for a malformed address."""
    parent, _, last = address.rpartition(separator)
    if not (last.isascii() and last.isdigit() and len(last) < 10) or str(int(last)) != last:
        return None
    before = f"{parent}{separator}{int(last) - 1}" if parent else str(int(last) - 1)
    return parent, None if last == "0" else before
