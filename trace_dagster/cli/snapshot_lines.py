"""Describes the snapshot of an answer in a few lines for people. It reads the JSON form, which a service sends too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trace_dagster.cli.tables import human_seconds

Part = Mapping[str, Any]
"""A head, cut or relation of the JSON that ``SnapshotHeader.to_json`` returns."""

_MOST_SHOWN = 3
_OLD_SECONDS = 5.0
"""The age of a head is shown if nobody observed it for so long."""


def snapshot_lines(snapshot: Part) -> list[str]:
    """Return one line for each chain with heads or a cut, one for the blocks that relations lack, and the notes.

    There is none if all relations are committed without a gap, and no cut was asked for. A shortened snapshot may
    lack members.
    """
    heads: dict[int, list[Part]] = {}
    for head in snapshot.get("heads", ()):
        heads.setdefault(head["chain_id"], []).append(head)
    cuts: dict[int, Part] = {cut["chain_id"]: cut for cut in snapshot.get("cuts", ())}
    lines = [_chain_line(chain, heads.get(chain, ()), cuts.get(chain)) for chain in sorted({*heads, *cuts})]
    latest = {head["chain_id"]: head["number"] for head in snapshot.get("heads", ()) if head["tag"] == "latest"}
    open_ends = {chain: number for chain, number in latest.items() if chain not in cuts}
    relations: Sequence[Part] = snapshot.get("relations", ())
    lacking = [text for relation in relations for text in _lacking(relation, open_ends)]
    if lacking:
        lines.append(f"not there yet: {'; '.join(lacking)}")
    return lines + [f"note: {each['name']}: {each['note']}" for each in relations if "note" in each]


def _chain_line(chain_id: int, heads: Sequence[Part], cut: Part | None) -> str:
    shown = list(_heads(heads)) if heads else []
    if cut is not None:
        shown.append(f"rows up to {_limit(cut)}")
    return f"chain {chain_id}: {'; '.join(shown)}"


def _heads(heads: Sequence[Part]) -> Iterator[str]:
    """Yield the heads with the ages of old ones, or these once if all have the same."""
    ages = [_age(head["age_seconds"]) for head in heads]
    is_one = len(set(ages)) == 1
    blocks = [f"{head['label']} {head['number']:,}" for head in heads]
    own = ["" if is_one or not age else f" ({age})" for age in ages]
    yield ", ".join(f"{block}{age}" for block, age in zip(blocks, own, strict=True))
    if is_one and ages[0]:
        yield f"seen {ages[0]}"


def _age(seconds: float) -> str:
    """Return how long ago a head was observed; nothing for one of this moment."""
    return f"{human_seconds(seconds)} ago" if seconds >= _OLD_SECONDS else ""


def _limit(cut: Part) -> str:
    limits = [] if cut.get("block") is None else [f"block {cut['block']:,}"]
    if cut.get("time") is not None:
        limits.append(cut["time"])
    return " and ".join(limits)


def _lacking(relation: Part, open_ends: Mapping[int, int]) -> Iterator[str]:
    """Yield the relation's gaps, or where it ends if others of a followed chain go on.

    ``open_ends`` is the latest block of each followed chain that is not cut.
    """
    name, gaps, last = relation["name"], relation["gaps"], relation["last_block"]
    if relation["missing_blocks"]:
        shown = ", ".join(_gap(start, end) for start, end in gaps[-_MOST_SHOWN:][::-1])
        more = ", ..." if len(gaps) > _MOST_SHOWN else ""
        yield f"{name} lacks {relation['missing_blocks']:,} blocks: {shown}{more}"
    latest = open_ends.get(relation["chain_id"])
    if latest is None or relation["kind"] == "derived":
        return
    if last is None:
        yield f"{name} has no block"
    elif last < latest:
        yield f"{name} ends at block {last:,}"


def _gap(start: int, end: int) -> str:
    return f"{start:,}" if start == end - 1 else f"{start:,} to {end - 1:,}"
