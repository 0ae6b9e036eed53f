"""The shape of call trees: geth_calls and traces name frames "", "0", "0 1", ... ("0_1" in traces)."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.facts import disagrees
from trace_dagster.verify.tables import column, plain, present, required

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
                if address:
                    _check_frame(address, frames, separator, block)


def _plainly_shaped(table: pa.Table, separator: str) -> bool:
    """Whether rows come tree by tree, as Cryo gives them: then a tree is a list of addresses, and few differ."""
    if "transaction_index" not in table.column_names or "action_type" in table.column_names or not table.num_rows:
        return False
    positions = plain(table, "transaction_index")
    if positions.null_count:
        return False
    try:
        if pc.max(positions).as_py() >= _POSITIONS:
            return False
        blocks = pc.subtract(present(table, "block_number").cast(pa.int64()), table["block_number"][0].cast(pa.int64()))
        trees = pc.run_end_encode(
            pc.add_checked(pc.multiply_checked(blocks, _POSITIONS), positions.combine_chunks().cast(pa.int64()))
        )
    except (pa.ArrowException, TypeError):  # numbers that are none of a block or a transaction
        return False
    addresses = required(table, "trace_address")
    start, before = 0, -_POSITIONS
    for tree, end in zip(trees.values.to_pylist(), trees.run_ends.to_pylist(), strict=True):
        if tree != before + 1 and not (tree % _POSITIONS == 0 and tree > before):
            return False
        frames = tuple(addresses[start:end])
        is_tree = _is_tree_known if len(frames) <= _LONGEST_KEPT else _is_tree
        if not is_tree(frames, separator):
            return False
        start, before = end, tree
    return True


def _is_tree(addresses: tuple[str, ...], separator: str) -> bool:
    """Whether there is a root, and each frame stands once and has its parent and the sibling before it."""
    frames = set(addresses)
    if len(frames) != len(addresses) or "" not in frames:
        return False
    return all(
        (kin := _kin(address, separator)) is not None and kin[0] in frames and (kin[1] is None or kin[1] in frames)
        for address in frames
        if address
    )


_is_tree_known = lru_cache(_KIN_KEPT)(_is_tree)


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
