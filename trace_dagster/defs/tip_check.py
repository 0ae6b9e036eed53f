"""The tip of each stream with hot rows as an asset check and as observations, whose numbers the UI plots."""

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetObservation,
    MetadataValue,
    asset_check,
)

from trace_dagster.defs.streams import RUNTIME, asset_key
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.connection import Database
from trace_dagster.registry.streams import StreamRow
from trace_dagster.registry.tip_status import LastReorg, StreamTip, stream_tips
from trace_dagster.runtime import Runtime

CHECK_NAME = "tip"

OBSERVED_SECONDS = 60.0
"""Shortest time between two observations of a stream's tip, in seconds."""

Told = Mapping[str, Mapping[str, Any]]
"""What was told of each dataset: ``said`` by the check, ``again`` if that is to be repeated, and of the last
observation ``observed_at``, in seconds since 1970, and ``head``.
"""

_NOTHING: Mapping[str, Any] = {"said": None, "again": False, "observed_at": 0.0, "head": None}


def tip_check(stream: StreamRow) -> AssetChecksDefinition:
    """Return the tip check's definition. A manual run of it evaluates the same as the reconciler reports."""

    @asset_check(
        asset=asset_key(stream.chain_id, stream.dataset_key),
        name=CHECK_NAME,
        required_resource_keys={RUNTIME},
        description="The newest block is stored as hot rows: head, lag, the last reorganisation, and why it stopped.",
    )
    def tip(context: AssetCheckExecutionContext) -> AssetCheckResult:
        runtime: Runtime = getattr(context.resources, RUNTIME)
        found = stream_tips(runtime.database, [stream])
        if not found:
            raise InvalidInput(f"{stream.dataset_key} is not followed now")
        return AssetCheckResult(**_answer(found[0]))

    return tip


def tip_events(
    database: Database, streams: Sequence[StreamRow], told: Told, now: float
) -> tuple[list[AssetCheckEvaluation | AssetObservation], Told]:
    """Return checks of streams whose tip changed its state, observations of those that moved, and what was told now.

    A stream is observed at most once a minute, and its check is reported with that observation. A change is reported a
    second time at the next call: Dagster shows no check from before the latest materialization, and that of a range
    whose hot rows have left may come after the first report.
    """
    events: list[AssetCheckEvaluation | AssetObservation] = []
    after: dict[str, Mapping[str, Any]] = {}
    for tip in stream_tips(database, [each for each in streams if each.enabled and each.job_enabled]):
        key, said, head = str(tip.stream.dataset_uuid), _summary(tip), tip.chain.head
        before = told.get(key, _NOTHING)
        is_new = said != before["said"]
        is_due = now - before["observed_at"] >= OBSERVED_SECONDS and head is not None and head != before["head"]
        observed = {"observed_at": now, "head": head} if is_due else {}
        after[key] = {**before, **observed, "said": said, "again": is_new}
        if is_due:
            events.append(_observation(tip))
        if is_due or is_new or before["again"]:
            events.append(_evaluation(tip))
    return events, after


def _summary(tip: StreamTip) -> list[Any]:
    """Return the values whose change makes the check worth reporting at once."""
    reorg = tip.chain.last_reorg
    return [tip.is_stopped, tip.trouble() is None, reorg and [reorg.fork_block, reorg.depth], tip.first]


def _evaluation(tip: StreamTip) -> AssetCheckEvaluation:
    return AssetCheckEvaluation(
        asset_key=asset_key(tip.stream.chain_id, tip.stream.dataset_key), check_name=CHECK_NAME, **_answer(tip)
    )


def _answer(tip: StreamTip) -> dict[str, Any]:
    """Return the check's result, for the reconciler and for a manual run: an error if the follower stopped."""
    trouble = tip.trouble()
    return {
        "passed": trouble is None,
        "severity": AssetCheckSeverity.ERROR if tip.is_stopped else AssetCheckSeverity.WARN,
        "description": trouble or tip.sentence(),
        "metadata": {
            **_numbers(tip),
            "last_reorganisation": MetadataValue.text(_reorg_text(tip.chain.last_reorg)),
            "followed_by": MetadataValue.text(tip.chain.followed_by or "none at this moment"),
            "reason": MetadataValue.text(tip.chain.reason or tip.stream.halted_reason or "none"),
        },
    }


def _observation(tip: StreamTip) -> AssetObservation:
    return AssetObservation(asset_key=asset_key(tip.stream.chain_id, tip.stream.dataset_key), metadata=_numbers(tip))


def _numbers(tip: StreamTip) -> dict[str, MetadataValue]:
    """Return the figures that the UI plots; those that are not known are left out."""
    chain = tip.chain
    blocks = {
        "head_block": chain.head,
        "finalized_block": chain.finalized,
        "lag_blocks": chain.lag_blocks,
        "hot_blocks": tip.hot_blocks,
    }
    return {
        **{name: MetadataValue.int(value) for name, value in blocks.items() if value is not None},
        **({} if chain.lag_seconds is None else {"lag_seconds": MetadataValue.float(chain.lag_seconds)}),
    }


def _reorg_text(reorg: LastReorg | None) -> str:
    if reorg is None:
        return "none"
    hidden = f"; {reorg.versions:,} committed ranges left the view" if reorg.versions else ""
    return f"{reorg.depth:,} blocks from {reorg.fork_block:,}, {reorg.age_seconds:.0f} s ago{hidden}"
