"""Run tags of Dagster that name partitions, and the error of a run that has none."""

from collections.abc import Mapping

from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from trace_dagster.errors import InvalidInput

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "NEWEST_FIRST_TAG",
    "PARTITION_NAME_TAG",
    "require_partitions",
]

NEWEST_FIRST_TAG = "trace/newest_first"
"""Tag of the ops of a stream whose job works backwards from the tip: a run starts its steps in that order."""

_EXAMPLE = "000000000000-000000001000"


def require_partitions(job_name: str, tags: Mapping[str, str]) -> None:
    """Raise InvalidInput with the tags to give if the tags of a run name no partition."""
    both = {ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG}
    if PARTITION_NAME_TAG in tags or both <= tags.keys():
        return
    raise InvalidInput(
        f"a run of {job_name} needs its block ranges: for one range give"
        f""" --tags '{{"{PARTITION_NAME_TAG}": "{_EXAMPLE}"}}', for several"""
        f""" --tags '{{"{ASSET_PARTITION_RANGE_START_TAG}": "FIRST", "{ASSET_PARTITION_RANGE_END_TAG}": "LAST"}}';"""
        " the Partitions page of an asset lists the keys"
    )
