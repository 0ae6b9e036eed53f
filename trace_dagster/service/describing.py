"""The lake in JSON: what each dataset has, how fresh it is, and its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import chain_of
from trace_dagster.datasets.column_meanings import meaning
from trace_dagster.query.protocol import Columns
from trace_dagster.query.relations import Lake
from trace_dagster.registry.catalog import LakeDescription, VisibleDataset
from trace_dagster.registry.listing import DatasetDetails
from trace_dagster.registry.snapshot_header import RelationInSnapshot, SnapshotHeader
from trace_dagster.store.access import S3Access


def described_lake(found: LakeDescription, access: S3Access) -> dict[str, Any]:
    """Return ``{"cursor", "chains": [...], "datasets": [...]}`` of everything in a description."""
    header = found.header
    entries = Lake(found.datasets, access).datasets()
    relations = {each.dataset_uuid: each for each in header.relations}
    return {
        "cursor": header.cursor,
        "chains": [_chain(chain_id, header) for chain_id in sorted({entry.chain_id for entry, _, _ in entries})],
        "datasets": [
            _dataset(entry, columns, short, relations[entry.dataset_uuid], found.details[entry.dataset_uuid])
            for entry, columns, short in entries
        ],
    }


def only(described: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return one dataset of :func:`described_lake` by its full or short name, with its chain, or None."""
    found = [each for each in described["datasets"] if name in (each["name"], each["short_name"])]
    if not found:
        return None
    chain = next(each for each in described["chains"] if each["chain_id"] == found[0]["chain_id"])
    return {"cursor": described["cursor"], "chain": chain, **found[0]}


def listed_lines(header: SnapshotHeader, files: Iterator[str], requested: BlockRange) -> Iterator[bytes]:
    """Yield one JSON object in pieces: the snapshot of a dataset with a file on each line."""
    (relation,) = header.relations
    first = {
        "cursor": header.cursor,
        "dataset": relation.name,
        "from_block": requested.start,
        "to_block": requested.end,
        "hot_from": relation.first_hot,
        "last_committed": relation.last_committed,
        "files": [],
    }
    yield json.dumps(first).removesuffix("]}").encode()
    separator = b"\n"
    for file in files:
        yield separator + file.encode()
        separator = b",\n"
    yield b"\n]}\n"


def _chain(chain_id: int, header: SnapshotHeader) -> dict[str, Any]:
    heads = header.heads.get(chain_id, ())
    return {"chain_id": chain_id, "name": chain_of(chain_id).name, "heads": [each.to_json() for each in heads]}


def _dataset(
    entry: VisibleDataset, columns: Columns, short: str | None, relation: RelationInSnapshot, details: DatasetDetails
) -> dict[str, Any]:
    return {
        "name": relation.name,
        "short_name": short,
        "chain_id": entry.chain_id,
        "kind": entry.kind,
        "dataset": entry.dataset,
        "columns": [_column(entry, name, kind) for name, kind in columns],
        "rows": entry.rows,
        "bytes": entry.bytes,
        "ranges": entry.ranges,
        "levels": dict(details.levels),
        "coverage": {
            "first_block": relation.first_block,
            "last_block": relation.last_block,
            "hot_from": relation.first_hot,
            "last_committed": relation.last_committed,
            "missing_blocks": relation.missing_blocks,
            "gaps": [[gap.start, gap.end] for gap in relation.gaps],
            "wanted_from": details.from_block,
            "wanted_to": details.to_block,
        },
        "freshness": {
            "committed_at": _time(details.committed_at),
            "last_block_time": _time(details.last_time),
            "age_seconds": None if details.age_seconds is None else round(details.age_seconds, 3),
        },
    }


def _column(entry: VisibleDataset, name: str, kind: str) -> dict[str, str | None]:
    described = meaning(entry.dataset, name) if entry.kind == "stream" else None
    return {"name": name, "type": kind, "description": described}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
