"""The progress of each stream as observations of its asset, whose numbers the UI plots."""

from collections.abc import Mapping, Sequence

from dagster import AssetObservation, MetadataValue

from trace_dagster.defs.streams import asset_key
from trace_dagster.registry.connection import Database
from trace_dagster.registry.progress import recent_rates, seconds_left, target_blocks
from trace_dagster.registry.status import StreamCoverage

OBSERVED_SECONDS = 60.0
"""Shortest time between two observations of a stream, in seconds."""

LastObserved = Mapping[str, tuple[int, int | None, float]]
"""By dataset: committed and target blocks at the last observation, and its time in seconds since 1970."""


def progress_observations(
    database: Database, covered: Sequence[StreamCoverage], observed: LastObserved, now: float
) -> tuple[list[AssetObservation], LastObserved]:
    """Return an observation of every stream that progressed since its last one, and the new state of last observations.

    Costs one query, or none if no stream progressed.
    """
    due = [each for each in covered if _is_due(each, observed, now)]
    if not due:
        return [], observed
    with database.snapshot() as session:
        rates = recent_rates(session, [each.stream.dataset_uuid for each in due])
    observations = [_observation(each, rates.get(each.stream.dataset_uuid)) for each in due]
    return observations, {**observed, **{_key(each): (*_standing(each), now) for each in due}}


def _is_due(coverage: StreamCoverage, observed: LastObserved, now: float) -> bool:
    *standing, at = observed.get(_key(coverage), (0, None, 0.0))
    return (*standing,) != _standing(coverage) and now - at >= OBSERVED_SECONDS


def _observation(coverage: StreamCoverage, rate: float | None) -> AssetObservation:
    committed, wanted = _standing(coverage)
    left = seconds_left(coverage.stream, committed + coverage.presence.hot_full_blocks, rate)
    blocks = {"committed_blocks": committed, "total_blocks": wanted}
    figures = {
        "percent": round(100 * min(1.0, committed / wanted), 2) if wanted else None,
        "blocks_per_second": round(rate, 3) if rate else None,
        "seconds_left": round(left, 1) if left is not None else None,
    }
    return AssetObservation(
        asset_key=asset_key(coverage.stream.chain_id, coverage.stream.dataset_key),
        metadata={
            **{name: MetadataValue.int(value) for name, value in blocks.items() if value is not None},
            **{name: MetadataValue.float(value) for name, value in figures.items() if value is not None},
        },
    )


def _standing(coverage: StreamCoverage) -> tuple[int, int | None]:
    return coverage.committed_blocks, target_blocks(coverage.stream)


def _key(coverage: StreamCoverage) -> str:
    return str(coverage.stream.dataset_uuid)
