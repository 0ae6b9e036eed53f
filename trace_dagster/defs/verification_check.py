"""The verification of each range as an asset check of its partition."""

import warnings
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetKey,
    DynamicPartitionsDefinition,
    MetadataValue,
    PreviewWarning,
    asset_check,
)

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.levels import lowered_sentence
from trace_dagster.defs.streams import RUNTIME, asset_key
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.publications import Publication
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

CHECK_NAME = "verification"
_PROVEN = ("full", "crosschecked")


def verification_check(stream: StreamRow, partitions: DynamicPartitionsDefinition) -> AssetChecksDefinition:
    """Return the verification check's definition. A manual run repeats the result that the commit stored."""
    with warnings.catch_warnings():  # partitioned checks are a preview: the pinned version has them as we use them
        warnings.simplefilter("ignore", PreviewWarning)
        return _definition(stream, partitions)


def _definition(stream: StreamRow, partitions: DynamicPartitionsDefinition) -> AssetChecksDefinition:
    @asset_check(
        asset=asset_key(stream.chain_id, stream.dataset_key),
        name=CHECK_NAME,
        partitions_def=partitions,
        required_resource_keys={RUNTIME},
        description="What was proven of each range before it was committed, and what no commitment covers.",
    )
    def verification(context: AssetCheckExecutionContext) -> AssetCheckResult:
        runtime: Runtime = getattr(context.resources, RUNTIME)
        key = context.partition_key
        published = runtime.publications.visible(stream.dataset_uuid, BlockRange.from_key(key))
        if published is None:
            raise InvalidInput(f"partition {key} is not committed yet")
        return AssetCheckResult(**_answer(published.verification))

    return verification


def verification_evaluation(key: AssetKey, published: Publication) -> AssetCheckEvaluation:
    """Return the asset check result of one partition. It repeats the verification that the range's commit stored."""
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=CHECK_NAME,
        partition=published.block_range.key,
        **_answer(published.verification),
    )


def _answer(verification: dict[str, Any]) -> dict[str, Any]:
    """Return the check's result, for the commit and for a manual run.

    It warns if rows are below what was asked, and if nothing but their structure was checked. Rows that the chain
    contradicts are never committed, so no result is an error.
    """
    level = str(verification.get("level"))
    lowered = lowered_sentence(verification)
    unproven = [str(each) for each in verification.get("unproven", ())]
    boundary = verification.get("boundary") or {}
    return {
        "passed": level in _PROVEN and not lowered,
        "severity": AssetCheckSeverity.WARN,
        "description": f"BELOW WHAT THE STREAM ASKS: {lowered}" if lowered else _sentence(level, unproven),
        "metadata": {
            "level": MetadataValue.text(level),
            "levels": MetadataValue.json(verification.get("levels") or {}),
            "lowered": MetadataValue.json(verification.get("lowered") or []),
            "blocks": MetadataValue.int(int(verification.get("blocks") or 0)),
            "checks": MetadataValue.text(", ".join(map(str, verification.get("checks", ()))) or "none"),
            "unproven": MetadataValue.text(", ".join(unproven) or "nothing"),
            "evidence": MetadataValue.json(verification.get("evidence") or {}),
            "endpoints": MetadataValue.json(verification.get("endpoints") or {}),
            "rows_from": MetadataValue.json(verification.get("rows_from") or {}),
            "seconds": MetadataValue.float(float(verification.get("seconds") or 0.0)),
            **{name: MetadataValue.text(str(value)) for name, value in boundary.items()},
        },
    }


def _sentence(level: str, unproven: list[str]) -> str:
    match level:
        case "full":
            said = "every row is proven against the chain's commitments"
            return f"{said}, but for {', '.join(unproven)}" if unproven else said
        case "crosschecked":
            return f"no commitment covers all of it; compared with proven transactions; unproven: {', '.join(unproven)}"
        case "structural":
            return "STRUCTURE ONLY: rows that a node left out are not noticed"
    return "NOTHING WAS CHECKED (verify: off)"
