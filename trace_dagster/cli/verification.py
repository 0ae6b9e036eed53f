"""The functions behind ``verify`` and ``certify``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.cli.commands import opened
from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.evidence.committed_rows import CommittedRows
from trace_dagster.evidence.committed_source import SOURCES, CommittedSource
from trace_dagster.evidence.needs import is_provable
from trace_dagster.maintenance.audit import Report, audit
from trace_dagster.maintenance.certificate import (
    Certificate,
    CertifiedFile,
    CertifiedLowered,
    CertifiedRange,
    certificate,
)
from trace_dagster.maintenance.rows_check import VersionEvidence
from trace_dagster.maintenance.stored_times import TIME_COLUMNS
from trace_dagster.registry.layouts import Layouts
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.versions import StoredFile, StoredVersion, versions_of_job
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.runtime import Runtime

Progress = Callable[[int], Callable[[], None]]
"""Takes the number of ranges; returns the function to call after each."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A report, and the number of ranges that were repaired."""

    report: Report
    repaired: int
    """Ranges that were queued to be fetched again."""
    forgotten: int = 0
    """Damaged hash indexes that queries do not read any more."""


def verify_job(
    job_name: str,
    settings: Settings,
    span: BlockRange | None,
    *,
    deep: bool,
    repair: bool,
    progress: Progress,
) -> Verified:
    """Prove the committed rows of a job again. ``deep`` compares them with the job's nodes as well.

    ``repair`` queues broken ranges to be fetched again. Raises InvalidInput if job or blocks are unknown.
    """
    with opened(settings) as runtime:
        streams = _streams(runtime, job_name)
        if repair:
            runtime.jobs.require_present_form(job_name)
        whole = span or BlockRange(0, MAX_BLOCK)
        expected_blocks = _spans(streams, whole)
        if not expected_blocks:
            raise InvalidInput(f"job {job_name} does not sync any of these blocks: there is nothing to verify")
        current = partial(versions_of_job, runtime.database, streams[0].job_id, whole)
        versions = current()
        report = audit(
            versions,
            expected_blocks,
            runtime.store,
            lambda some: _evidence(runtime, some, deep=deep),
            {stream.dataset_key: _endpoints(runtime, stream) for stream in streams} if deep else {},
            current,
            progress(len(versions)),
        )
        if not repair:
            return Verified(report, 0)
        layouts = Layouts(runtime.database)
        forgotten = sum(layouts.forget_index(layout_id) for layout_id in report.broken_indexes())
        return Verified(report, _repair(runtime, streams, report), forgotten)


def certify_job(job_name: str, settings: Settings, span: BlockRange | None) -> Certificate:
    """Return a certificate of a job's commits. Raises InvalidInput if the job is unknown or not complete."""
    with opened(settings) as runtime:
        streams = _streams(runtime, job_name)
        whole = span or BlockRange(0, MAX_BLOCK)
        versions = versions_of_job(runtime.database, streams[0].job_id, whole)
    first = streams[0]
    ranges = [_certified(each) for each in versions]
    files = {file.key: _certified_file(file) for each in versions for file in each.files}
    return certificate(first.job_name, first.chain_id, _spans(streams, whole), ranges, list(files.values()))


def _streams(runtime: Runtime, job_name: str) -> list[StreamRow]:
    job_id = runtime.jobs.find(job_name)
    found = [stream for stream in runtime.jobs.streams() if stream.job_id == job_id and stream.enabled]
    if not found:
        raise InvalidInput(f"job {job_name} has no enabled stream")
    return found


def _spans(streams: list[StreamRow], whole: BlockRange) -> dict[str, BlockRange]:
    """Return the blocks that each stream must cover: all of a fixed target; with follow_head those planned."""
    spans = {}
    for stream in streams:
        known = stream.planned if stream.to_block is None else BlockRange(stream.from_block, stream.to_block)
        start, end = (max(known.start, whole.start), min(known.end, whole.end)) if known else (0, 0)
        if start < end:
            spans[stream.dataset_key] = BlockRange(start, end)
    return spans


def _endpoints(runtime: Runtime, stream: StreamRow) -> list[Endpoint]:
    return runtime.endpoint_scores.best_first(runtime.pools.named(stream.rpc_pool, stream.chain_id))


def _evidence(runtime: Runtime, versions: Sequence[StoredVersion], *, deep: bool) -> list[VersionEvidence]:
    """Return the evidence of versions of one dataset. They share the committed rows that are read, and learn no forms
    from one another.
    """
    first = versions[0]
    name, chain_id = first.dataset.name, first.chain_id
    span = BlockRange(first.block_range.start, versions[-1].block_range.end)
    rows = CommittedRows(runtime.database, runtime.store, first.dataset_uuid, span, SOURCES)
    committed = None if deep else CommittedSource(rows, chain_id, name)
    blocks = partial(rows.table, "blocks", columns=TIME_COLUMNS)
    return [
        VersionEvidence(EvidenceCollector(name, chain_id, committed) if is_provable(name) else None, blocks)
        for _ in versions
    ]


def _repair(runtime: Runtime, streams: list[StreamRow], report: Report) -> int:
    """Invalidate broken ranges, queue failed ones, and plan ranges that were never planned; returns how many."""
    reasons = {found.dataset_version: found.kind for found in report.findings if found.dataset_version}
    count = sum(
        runtime.forks.invalidate([version], f"verify found {reasons[str(version)]}") for version in report.broken()
    )
    keys = {stream.dataset_key: stream for stream in streams}
    for hole in (found for found in report.findings if found.kind == "hole"):
        stream = keys[hole.dataset_key]
        gap = BlockRange(hole.range_start, hole.range_end)
        count += runtime.tasks.requeue(stream.job_id, stream.dataset_key, gap, ("failed", "dead"))
        runtime.jobs.replan(stream.dataset_uuid)
    runtime.planner.plan()
    runtime.outbox.publish(runtime.queue)
    return count


def _certified(version: StoredVersion) -> CertifiedRange:
    return CertifiedRange(
        dataset_key=version.dataset_key,
        cryo_dataset_name=version.dataset.name,
        range_start=version.block_range.start,
        range_end=version.block_range.end,
        dataset_version=str(version.dataset_version),
        manifest_sha256=version.manifest_sha256,
        content_digest=version.content_digest,
        rows=version.rows,
        columns=list(version.columns),
        level=str(version.verification.get("level")),
        unproven=[str(each) for each in version.verification.get("unproven", ())],
        lowered=[CertifiedLowered(**each) for each in version.verification.get("lowered") or ()],
        first_parent_hash=f"0x{version.first_parent_hash.hex()}" if version.first_parent_hash else None,
        last_block_hash=f"0x{version.last_block_hash.hex()}" if version.last_block_hash else None,
        files=[file.sha256 for file in version.files],
    )


def _certified_file(file: StoredFile) -> CertifiedFile:
    return CertifiedFile(name=file.key.rpartition("/")[2], bytes=file.bytes, sha256=file.sha256, rows=file.rows)
