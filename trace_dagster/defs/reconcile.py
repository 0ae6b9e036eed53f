"""Compares Dagster's events with the registry: lost materializations, coverage, progress, the tip."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetMaterialization,
    AssetObservation,
    AssetRecordsFilter,
    DagsterInstance,
    MetadataValue,
    asset_check,
)

from trace_dagster.defs.materializations import materialization
from trace_dagster.defs.progress import progress_observations
from trace_dagster.defs.retention import prune_if_due
from trace_dagster.defs.streams import RUNTIME, asset_key
from trace_dagster.defs.tip_check import tip_events
from trace_dagster.defs.verification_check import verification_evaluation
from trace_dagster.messages.printable import plain_markdown
from trace_dagster.registry.status import StreamCoverage, stream_coverage, stream_coverages
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime
from trace_dagster.wakeups.outbox import Commit

CHECK_NAME = "coverage"
SETTLE_SECONDS = 20.0
"""Seconds after a commit for which its materialization may still arrive; later it was lost with its run."""

COMMITS_PER_TICK = 500
_SHOWN_GAPS = 10


def lost_events(runtime: Runtime, instance: DagsterInstance) -> list[AssetMaterialization | AssetCheckEvaluation]:
    """Return materialization and check of commits that Dagster does not show; mark those that it shows as reported.

    A range whose run was killed between commit and event is reported here, and marked at the next tick, when Dagster
    shows it.
    """
    commits = runtime.outbox.unconfirmed_commits(older_than_seconds=SETTLE_SECONDS, limit=COMMITS_PER_TICK)
    shown = _shown(commits, instance)
    told: list[Commit] = []
    lost: list[Commit] = []
    for commit in commits:
        known = commit.derived or str(commit.publication.dataset_version) in shown
        (told if known else lost).append(commit)
    runtime.outbox.mark_confirmed([commit.outbox_id for commit in told])
    return [event for commit in lost for event in _events(commit)]


def _events(commit: Commit) -> tuple[AssetMaterialization, AssetCheckEvaluation]:
    key = asset_key(commit.chain_id, commit.dataset_key)
    return materialization(key, commit.publication), verification_evaluation(key, commit.publication)


def stream_events(
    runtime: Runtime, cursor: str | None, now: float
) -> tuple[list[AssetCheckEvaluation | AssetObservation], str]:
    """Return new checks and observations of every stream that moved, of its coverage, progress and tip, and the new
    cursor. Delete old changes if it is time.
    """
    told: dict[str, Any] = json.loads(cursor) if cursor else {}
    covered = stream_coverages(runtime.database, runtime.jobs)
    before = told.get("checks", {})
    after = {str(coverage.stream.dataset_uuid): coverage.summary() for coverage in covered}
    changed = [each for each in covered if before.get(key := str(each.stream.dataset_uuid)) != after[key]]
    observations, progress = progress_observations(runtime.database, covered, told.get("progress", {}), now)
    tips, tip = tip_events(runtime.database, runtime.jobs.streams(), told.get("tip", {}), now)
    events: list[AssetCheckEvaluation | AssetObservation] = [*map(_evaluation, changed), *observations, *tips]
    prune_at = prune_if_due(runtime, told.get("prune_at", 0.0), now)
    return events, json.dumps({"checks": after, "progress": progress, "tip": tip, "prune_at": prune_at})


def coverage_check(stream: StreamRow) -> AssetChecksDefinition:
    """Return the coverage check's definition. A manual run of it evaluates the same as the sensor reports."""

    @asset_check(
        asset=asset_key(stream.chain_id, stream.dataset_key),
        name=CHECK_NAME,
        required_resource_keys={RUNTIME},
        description="Every planned block is committed or being worked on; failed ranges and gaps are listed.",
    )
    def coverage(context: AssetCheckExecutionContext) -> AssetCheckResult:
        runtime: Runtime = getattr(context.resources, RUNTIME)
        return AssetCheckResult(**_answer(stream_coverage(runtime.database, runtime.jobs, stream.dataset_uuid)))

    return coverage


def _shown(commits: Sequence[Commit], instance: DagsterInstance) -> set[str]:
    """Return the dataset versions for which Dagster has a materialization event, among these ranges' events."""
    by_asset = defaultdict(list)
    for commit in commits:
        if not commit.derived:
            key = asset_key(commit.chain_id, commit.dataset_key)
            by_asset[key].append(commit.publication.block_range.key)
    found = set()
    for key, partitions in by_asset.items():
        records = instance.fetch_materializations(
            AssetRecordsFilter(asset_key=key, asset_partitions=partitions), limit=4 * COMMITS_PER_TICK
        ).records
        for record in records:
            event = record.asset_materialization
            version = event.metadata.get("dataset_version") if event else None
            if version is not None:
                found.add(str(version.value))
    return found


def _evaluation(coverage: StreamCoverage) -> AssetCheckEvaluation:
    return AssetCheckEvaluation(
        asset_key=asset_key(coverage.stream.chain_id, coverage.stream.dataset_key),
        check_name=CHECK_NAME,
        **_answer(coverage),
    )


def _answer(coverage: StreamCoverage) -> dict[str, Any]:
    """Return the check's result, for the sensor and for a manual run."""
    return {
        "passed": coverage.passed,
        "severity": AssetCheckSeverity.ERROR,
        "description": coverage.sentence(),
        "metadata": _metadata(coverage),
    }


def _metadata(coverage: StreamCoverage) -> dict[str, MetadataValue]:
    failed = "\n".join(
        f"- `{span}` {state}: {plain_markdown(error)}" for span, state, error in coverage.failed[:_SHOWN_GAPS]
    )
    gaps = ", ".join(str(gap) for gap in coverage.gaps[:_SHOWN_GAPS])
    return {
        "committed_blocks": MetadataValue.int(coverage.committed_blocks),
        "planned_blocks": MetadataValue.int(coverage.planned_blocks),
        "hot_blocks": MetadataValue.int(coverage.presence.hot_blocks),
        "missing_blocks": MetadataValue.int(coverage.presence.missing_blocks),
        "failed_ranges": MetadataValue.int(len(coverage.failed)),
        "failed": MetadataValue.md(failed) if failed else MetadataValue.text("none"),
        "gaps": MetadataValue.text(gaps or "none"),
        "job": MetadataValue.text(coverage.stream.job_name),
    }
