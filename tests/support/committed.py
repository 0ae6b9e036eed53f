"""Ranges committed through the real commit path with a ``verification`` that the test chooses.

So a test has ranges as an earlier version committed them, and ranges whose blocks were lowered.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.extraction.lake_rows import lake_rows
from trace_dagster.ingest.commit import CommitTarget, Committer, RangeRows
from trace_dagster.registry.connection import Database
from trace_dagster.registry.publications import Publication, Publications
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.registry.tasks import Lease, Tasks
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.store.objects import ObjectStore

FULL = {"asked": "full", "level": "full", "checks": ["receipts_root"], "unproven": [], "blocks": 100}
"""The verification of a range as versions before the levels wrote it."""

REASON = "this version does not know the form of the transactions of type 0x55"


def lowered(*, first: int, blocks: int, of: int, level: str = "structural", reason: str = REASON) -> dict[str, Any]:
    """Return the verification of a range of ``of`` blocks, of which ``blocks`` are lowered and the rest are full."""
    rest = {"full": of - blocks} if of > blocks else {}
    return {
        "asked": "full",
        "level": level,
        "levels": {**rest, level: blocks},
        "lowered": [{"first_block": first, "blocks": blocks, "level": level, "reason": reason}],
        "checks": ["columns"],
        "unproven": [f"rows of {blocks} blocks, see lowered"],
        "blocks": of,
    }


def made_up_rows(stream: StreamSpec, block_range: BlockRange, **constant: object) -> pa.Table:
    """Return the fake engine's rows of a range; each column in ``constant`` has one value."""
    schema = stream.dataset.schema(stream.columns)
    engine_schema = stream.dataset.engine_schema(stream.columns)
    request = ExtractRequest(
        stream.dataset, block_range, stream.chain_id, engine_schema, Endpoint("none", 1, "made up")
    )
    engine = FakeCryo()
    times = pa.array([each * 1_000_000 for each in engine.made_up_times(block_range)], pa.int64())
    table = lake_rows(stream.dataset, engine.extract(request), stream.columns, block_range, None, times)
    for name, value in constant.items():
        at = schema.get_field_index(name)
        table = table.set_column(at, schema.field(at), pa.array([value] * table.num_rows, schema.field(at).type))
    return table


def commit_rows(
    database: Database,
    store: ObjectStore,
    stream: StreamSpec,
    block_range: BlockRange,
    verification: dict[str, Any],
    rows: pa.Table | None = None,
) -> Publication:
    """Claim a range and commit rows, by default the fake engine's, with this verification."""
    tasks = Tasks(database)
    tasks.ensure(stream.task_id(block_range), stream.dataset_uuid, block_range, stream.config_hash)
    lease = tasks.claim(stream.task_id(block_range), stream.dataset_uuid, block_range, "run", refresh=True)
    assert isinstance(lease, Lease), lease
    tables = [made_up_rows(stream, block_range) if rows is None else rows]
    found = RangeRows(tables, lambda: verification, {"name": "cryo", "version": "0.3.2"})
    return Committer(store, Publications(database)).commit(lease, CommitTarget.of_stream(stream, block_range), found)
