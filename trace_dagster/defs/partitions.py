"""Partition keys in Dagster: adds those of future cells, and repairs keys that users or changed jobs left wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from dagster import AssetMaterialization, DagsterInstance

from trace_dagster.blocks import BlockRange, cells
from trace_dagster.defs.streams import asset_key
from trace_dagster.messages.logs import component_log
from trace_dagster.planning.grids import Grid, covered_ranges, grids, may_be_planned, spans_ahead, wanted_keys
from trace_dagster.registry.connection import Database
from trace_dagster.registry.streams import StreamRow

KEYS_AT_ONCE = 1000
"""Partition keys read or added by one statement."""

REMOVED_AT_ONCE = 200
"""Keys of a grid that one repair removes, because Dagster removes them one by one."""

REPAIR_SECONDS = 20.0
"""Shortest time between two repairs."""

_REPAIR_SHARE = 50
"""A repair that took a second is not repeated for so many seconds: its cost grows with the length of the grids."""

REPORTED_AT_ONCE = 200
"""Partitions of a stream that one repair reports as covered."""

_COVERED = "the blocks of this partition are committed in other ranges of the stream"

_log = component_log("defs")


def register_ahead(database: Database, streams: Sequence[StreamRow], instance: DagsterInstance) -> None:
    """Add the keys of the cells that the planner can still plan, so that the UI shows the ranges to come."""
    with database.snapshot() as session:
        spans = [(grid, span) for grid in grids(streams) for span in spans_ahead(session, grid)]
    for grid, span in spans:
        register_span(grid.name, span, grid.chunk_size, instance)


def repair_if_due(database: Database, streams: Sequence[StreamRow], instance: DagsterInstance, due_at: float) -> float:
    """Repair every grid if it is time; return when the next repair is due, in seconds since 1970."""
    started = time.time()
    if started < due_at:
        return due_at
    for grid in grids(streams):
        repair(database, grid, instance)
        report_covered(database, grid, instance)
    return next_repair(started)


def next_repair(started: float) -> float:
    """Return when the next repair is due after one that began at ``started`` and ends now, in seconds since 1970."""
    return started + max(REPAIR_SECONDS, _REPAIR_SHARE * (time.time() - started))


def repair(database: Database, grid: Grid, instance: DagsterInstance) -> None:
    """Add the keys that the grid lacks, and remove keys that are no cells and hold no range."""
    known = instance.get_dynamic_partitions(grid.name)  # read first: a key that comes later is not judged
    with database.snapshot() as session:
        wanted = wanted_keys(session, grid)
        extra = sorted({*known}.difference(wanted))[:REMOVED_AT_ONCE]
        removed = [key for key in extra if not may_be_planned(session, grid, key)]
    missing = sorted({*wanted}.difference(known))
    for start in range(0, len(missing), KEYS_AT_ONCE):
        instance.add_dynamic_partitions(grid.name, missing[start : start + KEYS_AT_ONCE])
    for key in removed:
        instance.delete_dynamic_partition(grid.name, key)
    if missing or removed:
        _log.event("partitions_repaired", partitions=grid.name, added=len(missing), removed=len(removed))


def report_covered(database: Database, grid: Grid, instance: DagsterInstance) -> None:
    """Report partitions as materialized whose blocks a stream has committed in other ranges.

    The streams of a grid share its keys, so without this a stream's page would not fill to 100%.
    """
    with database.snapshot() as session:
        covered = covered_ranges(session, grid)
    for stream in grid.streams:
        if ranges := covered.get(stream.dataset_uuid):
            key = asset_key(stream.chain_id, stream.dataset_key)
            shown = instance.get_materialized_partitions(key)
            new = [block_range.key for block_range in ranges if block_range.key not in shown]
            for partition in new[:REPORTED_AT_ONCE]:
                instance.report_runless_asset_event(
                    AssetMaterialization(key, partition=partition, description=_COVERED)
                )


def register_span(name: str, span: BlockRange, chunk_size: int, instance: DagsterInstance) -> None:
    """Add every cell of a span, unless Dagster has the last one: they are added in block order."""
    last = BlockRange(max(span.start, (span.end - 1) // chunk_size * chunk_size), span.end)
    if not instance.has_dynamic_partition(name, last.key):
        _register_end(name, span, chunk_size, instance)


def _register_end(name: str, span: BlockRange, chunk_size: int, instance: DagsterInstance) -> None:
    """Add the keys that the end of a span lacks, in block order, starting from the last page that is complete."""
    missing: list[list[str]] = []
    for page in reversed(list(cells(span, chunk_size * KEYS_AT_ONCE))):
        unknown = _unknown(name, [cell.key for cell in cells(page, chunk_size)], instance)
        if not unknown:
            break
        missing.append(unknown)
    for keys in reversed(missing):
        instance.add_dynamic_partitions(name, keys)


def register_keys(name: str, keys: Sequence[str], instance: DagsterInstance) -> Mapping[str, int]:
    """Add missing keys; return their positions in Dagster's order, and those of all later keys.

    Positions count back from the last key, -1, so that a new range is found without reading all earlier keys.
    """
    instance.add_dynamic_partitions(name, _unknown(name, keys, instance))
    positions: dict[str, int] = {}
    cursor, limit = None, KEYS_AT_ONCE
    while not positions.keys() >= set(keys):
        page = instance.get_paginated_dynamic_partitions(name, limit, ascending=False, cursor=cursor)
        positions |= {key: -1 - number for number, key in enumerate(page.results, start=len(positions))}
        if not page.has_more:
            break
        cursor, limit = page.cursor, 4 * limit  # larger pages farther back, so that few suffice
    return positions


def _unknown(name: str, keys: Sequence[str], instance: DagsterInstance) -> list[str]:
    """Return the keys that Dagster does not have, in the given order."""
    known = instance.get_existing_dynamic_partitions(name, keys)
    return [key for key in keys if key not in known]
