"""Describes the snapshot of an answer in a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trace_dagster.blocks import BlockRange
from trace_dagster.cli.tables import human_seconds
from trace_dagster.registry.snapshot_header import Cut, LabelledHead, RelationInSnapshot, SnapshotHeader

_MOST_SHOWN = 3
_OLD_SECONDS = 5.0
"""The age of a head is shown if nobody observed it for so long."""


def snapshot_lines(header: SnapshotHeader) -> list[str]:
    """Return one line for each chain with heads or a cut, and one for the blocks that relations lack.

    There is none if all relations are committed without a gap, and no cut was asked for.
    """
    chains = sorted({*header.heads, *header.cuts})
    lines = [_chain_line(chain_id, header.heads.get(chain_id, ()), header.cuts.get(chain_id)) for chain_id in chains]
    lacking = [text for relation in header.relations for text in _lacking(relation, header)]
    return [*lines, f"not there yet: {'; '.join(lacking)}"] if lacking else lines


def _chain_line(chain_id: int, heads: Sequence[LabelledHead], cut: Cut | None) -> str:
    shown = list(_heads(heads)) if heads else []
    if cut is not None:
        shown.append(f"rows up to {_limit(cut)}")
    return f"chain {chain_id}: {'; '.join(shown)}"


def _heads(heads: Sequence[LabelledHead]) -> Iterator[str]:
    """Yield the heads with the ages of old ones, or these once if all have the same."""
    ages = [f"{human_seconds(head.age_seconds)} ago" if head.age_seconds >= _OLD_SECONDS else "" for head in heads]
    is_one = len(set(ages)) == 1
    blocks = [f"{head.label} {head.number:,}" for head in heads]
    own = ["" if is_one or not age else f" ({age})" for age in ages]
    yield ", ".join(f"{block}{age}" for block, age in zip(blocks, own, strict=True))
    if is_one and ages[0]:
        yield f"seen {ages[0]}"


def _limit(cut: Cut) -> str:
    limits = [] if cut.block is None else [f"block {cut.block:,}"]
    if cut.time is not None:
        limits.append(cut.time.isoformat())
    return " and ".join(limits)


def _lacking(relation: RelationInSnapshot, header: SnapshotHeader) -> Iterator[str]:
    """Yield the relation's gaps, or where it ends if others of a followed chain go on."""
    if relation.missing_blocks:
        gaps = ", ".join(map(_gap, relation.gaps[-_MOST_SHOWN:][::-1]))
        more = ", ..." if len(relation.gaps) > _MOST_SHOWN else ""
        yield f"{relation.name} lacks {relation.missing_blocks:,} blocks: {gaps}{more}"
    latest = next((head.number for head in header.heads.get(relation.chain_id, ()) if head.tag == "latest"), None)
    if latest is None or relation.chain_id in header.cuts or relation.is_derived:
        return
    if relation.last_block is None:
        yield f"{relation.name} has no block"
    elif relation.last_block < latest:
        yield f"{relation.name} ends at block {relation.last_block:,}"


def _gap(gap: BlockRange) -> str:
    last = gap.end - 1
    return f"{gap.start:,}" if gap.start == last else f"{gap.start:,} to {last:,}"
