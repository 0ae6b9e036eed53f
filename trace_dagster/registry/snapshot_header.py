"""The header of an answer: the blocks of the relations that a query named, and the heads of their chains."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import HeadTag
from trace_dagster.datasets.chains import chain_of
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.changes import cursor_of
from trace_dagster.registry.connection import Row, Session
from trace_dagster.registry.forms import old_form, old_form_of_derived

MOST_GAPS = 100
"""Most gaps of a relation in a header, the newest ones; a fragmented history may have 100,000."""

COMPACT_BYTES = 4096
"""Most bytes of a header as a line of HTTP; many servers and proxies refuse a longer one."""

_GAPS_IN_COMPACT = (10, 3, 0)
"""Gaps of each relation in a compact header: the first number with which it is short enough."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The rows of a chain that an answer is about: those up to a block, or up to a time, both included.

    With both, a row is in the answer if it is within both.
    """

    block: int | None = None
    time: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return ``{"block", "time"}``, without a member that limits nothing."""
        time = {} if self.time is None else {"time": self.time.isoformat()}
        return ({} if self.block is None else {"block": self.block}) | time


@dataclass(frozen=True, slots=True)
class LabelledHead:
    """One head of a chain, as the follower observed it last."""

    chain_id: int
    tag: HeadTag
    number: int
    hash: bytes | None
    """32 bytes; None if it is not known."""
    block_timestamp: datetime | None
    """None if the block is not stored."""
    age_seconds: float
    """Seconds since the follower observed it, by the database's clock."""

    @property
    def label(self) -> str:
        """The chain's own word for the tag, such as ``proposed``."""
        return chain_of(self.chain_id).head_label(self.tag)

    def to_json(self) -> dict[str, Any]:
        """Return JSON with the hash as 0x text and the time as ISO 8601."""
        return {
            "chain_id": self.chain_id,
            "tag": self.tag,
            "label": self.label,
            "number": self.number,
            "hash": None if self.hash is None else f"0x{self.hash.hex()}",
            "block_timestamp": self.block_timestamp and self.block_timestamp.isoformat(),
            "age_seconds": round(self.age_seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class RelationInSnapshot:
    """The blocks that a snapshot has of one dataset, committed or hot."""

    dataset_uuid: UUID
    chain_id: int
    dataset_key: str
    first_hot: int | None
    """The lowest of these blocks that is hot; None if none is."""
    first_block: int | None
    """None if there is no block."""
    last_block: int | None
    last_shown: int | None
    """The last of these blocks that is not beyond the block of the chain's cut; None if there is none."""
    last_committed: int | None
    """None if all of its blocks are hot."""
    gaps: tuple[BlockRange, ...]
    """Blocks that are missing from the stream's first block up to the cut, or to ``last_block`` without one: the newest
    MOST_GAPS, in ascending order.
    """
    missing_blocks: int
    """Number of blocks in all gaps."""
    derived_columns: frozenset[str] | None
    """Columns of a derived dataset; None for a stream, which has those of the lake."""
    note: str | None = None
    """Why stored rows are left out, and what to do; None if none are."""

    @property
    def has_hot(self) -> bool:
        """Whether some of the blocks are hot."""
        return self.first_hot is not None

    @property
    def is_derived(self) -> bool:
        """Whether a template made the rows, whole and from committed rows."""
        return self.derived_columns is not None

    @property
    def name(self) -> str:
        """The relation's full name in SQL."""
        return f"chain_{self.chain_id}.{self.dataset_key}"

    def to_json(self, most_gaps: int = MOST_GAPS) -> dict[str, Any]:
        """Return JSON; gaps are ``[start, end]``, without the end, the newest ``most_gaps`` of them. The member
        ``note`` is there if the relation has one.
        """
        return {
            "name": self.name,
            "chain_id": self.chain_id,
            "kind": "derived" if self.is_derived else "stream",
            "first_block": self.first_block,
            "last_block": self.last_block,
            "missing_blocks": self.missing_blocks,
            "gaps": [[gap.start, gap.end] for gap in self.gaps[max(0, len(self.gaps) - most_gaps) :]],
            **({} if self.note is None else {"note": self.note}),
        }


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """What an answer was made of."""

    heads: Mapping[int, tuple[LabelledHead, ...]]
    """By chain id: latest, safe and finalized, as far as they are known. Chains without hot rows have none."""
    cuts: Mapping[int, Cut]
    """By chain id; a chain that is not in it was not cut."""
    relations: tuple[RelationInSnapshot, ...]

    cursor: str
    """Of the change log, at this snapshot: the changes after it are those that the snapshot does not have. Of
    transactions that were open at the same time as an older one, a change may come that the snapshot has.
    """

    def to_json(self) -> dict[str, Any]:
        """Return ``{"cursor", "heads": [...], "cuts": [...], "relations": [...]}``."""
        return self._json(MOST_GAPS)

    def compact(self) -> str:
        """Return JSON of at most COMPACT_BYTES, in ASCII, for a header of HTTP.

        It leaves out what does not fit, the oldest gaps first, then relations, then cuts and heads, and says so by
        ``"shortened": true``.
        """
        whole = self.to_json()
        shorter = (form | {"shortened": True} for form in self._shorter())
        for form in (whole, *shorter):
            text = json.dumps(form, separators=(",", ":"))
            if len(text) <= COMPACT_BYTES:
                return text
        raise AssertionError("the cursor alone is short enough")

    def _shorter(self) -> Iterator[dict[str, Any]]:
        for gaps in _GAPS_IN_COMPACT:
            yield self._json(gaps)
        rest = {name: value for name, value in self._json(0).items() if name != "relations"}
        yield rest
        yield {"cursor": self.cursor}

    def _json(self, most_gaps: int) -> dict[str, Any]:
        return {
            "cursor": self.cursor,
            "heads": [head.to_json() for found in self.heads.values() for head in found],
            "cuts": [{"chain_id": chain_id, **cut.to_json()} for chain_id, cut in self.cuts.items()],
            "relations": [each.to_json(most_gaps) for each in self.relations],
        }


def snapshot_header(
    session: Session,
    datasets: Collection[UUID],
    cuts: Mapping[int, Cut],
    *,
    chains: Collection[int] = (),
    org_id: UUID = DEFAULT_ORG,
) -> SnapshotHeader:
    """Return the header of an answer over these datasets, as of the session's snapshot.

    It has the heads of their chains, and those of ``chains``.
    """
    relations = relations_in_snapshot(session, datasets, cuts)
    found = heads_of_chains(session, {each.chain_id for each in relations}.union(chains), org_id)
    return SnapshotHeader(found, dict(cuts), relations, cursor_of(session))


def relations_in_snapshot(
    session: Session, datasets: Collection[UUID], cuts: Mapping[int, Cut]
) -> tuple[RelationInSnapshot, ...]:
    """Return the blocks of these datasets, by chain and dataset key. Gaps are those up to the cuts."""
    if not datasets:
        return ()
    blocks = {chain_id: cut.block for chain_id, cut in cuts.items() if cut.block is not None}
    rows = session.all(
        "relations_in_snapshot",
        dataset_uuids=list(datasets),
        cut_chains=list(blocks),
        cut_blocks=list(blocks.values()),
        most_gaps=MOST_GAPS,
    )
    return tuple(_relation(row) for row in rows)


def heads_of_chains(
    session: Session, chains: Collection[int], org_id: UUID = DEFAULT_ORG
) -> dict[int, tuple[LabelledHead, ...]]:
    """Return latest, safe and finalized of each of these chains that has heads."""
    if not chains:
        return {}
    found: dict[int, tuple[LabelledHead, ...]] = {}
    for row in session.all("heads_of_chains", org_id=org_id, chain_ids=sorted(chains)):
        head = LabelledHead(
            row["chain_id"],
            row["tag"],
            row["block_number"],
            row["block_hash"],
            row["block_timestamp"],
            row["age_seconds"],
        )
        found[head.chain_id] = (*found.get(head.chain_id, ()), head)
    return found


def chains_with_heads(session: Session, org_id: UUID = DEFAULT_ORG) -> tuple[int, ...]:
    """Return the chains of which heads are stored, in ascending order."""
    return tuple(row["chain_id"] for row in session.all("chains_with_heads", org_id=org_id))


def _relation(row: Row) -> RelationInSnapshot:
    return RelationInSnapshot(
        dataset_uuid=row["dataset_uuid"],
        chain_id=row["chain_id"],
        dataset_key=row["dataset_key"],
        first_hot=row["first_hot"],
        first_block=row["first_block"],
        last_block=row["last_block"],
        last_shown=row["last_shown"],
        last_committed=row["last_committed"],
        gaps=tuple(BlockRange(gap.lower, gap.upper) for gap in row["newest_gaps"]),
        missing_blocks=row["missing_blocks"],
        derived_columns=frozenset(row["derived_columns"]) if row["kind"] == "derived" else None,
        note=None if row["old_form"] is None else _note(row["old_form"], row["job_name"]),
    )


def _note(form: int, job_name: str | None) -> str:
    return old_form_of_derived(form) if job_name is None else old_form(form, job_name)
