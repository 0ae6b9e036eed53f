"""Deterministic identifiers: UUIDv5 over UTF-8 text, canonical JSON and configuration hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID, uuid5

from trace_dagster.blocks import BlockRange

DEFAULT_ORG = UUID("00000000-0000-0000-0000-000000000001")
LAKE_FORM = 2
"""Form of the rows that this version stores; ``trace.lake_form()`` returns the same. Form 1 had unsigned numbers and no
``block_timestamp``.
"""

CONTENT_DIGEST_VERSION: Final = 2
"""Version of the content digest of ``digest.py`` (ADR 0016). It is here because that module imports Arrow."""

_JOB = UUID("0b3c4c0e-3a64-5d0e-9a1b-6d1f0e8f5a10")
_DATASET = UUID("1f55c495-7e91-4433-8b4a-0c088c5a5c7f")
_TASK = UUID("906c0c0c-342d-472f-97a1-2c9b3d4eaab1")
_VERSION = UUID("6e484f2c-567a-44f3-8a5e-c0650b2a169f")
_OUTBOX = UUID("6c073087-5b7c-4c55-b07a-1e2c7a015ae2")
_DERIVED = UUID("c7a4b1f6-9d0e-4b53-8f3a-2e5d7c901b64")


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces, so that equal values give equal text. Raises ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def job_id(org_id: UUID, name: str) -> UUID:
    """Return the identity of a job, from its name and organisation."""
    return uuid5(_JOB, f"chain_sync:{org_id}:{name}")


def dataset_uuid(org_id: UUID, chain_id: int, dataset_key: str) -> UUID:
    """Return the identity of a stream's dataset. It does not depend on the job that fills it."""
    return uuid5(_DATASET, f"chain_sync:{org_id}:{chain_id}:{dataset_key}")


def derived_uuid(org_id: UUID, chain_id: int, template: str, parameters: Mapping[str, object]) -> UUID:
    """Return the identity of a derived dataset, from its template and the parameters that change its rows."""
    return uuid5(_DERIVED, f"derived:{org_id}:{chain_id}:{template}:{canonical_json(dict(parameters))}")


def task_id(job: UUID, dataset_key: str, block_range: BlockRange) -> UUID:
    """Return the identity of the task for one range of one stream."""
    return uuid5(_TASK, f"chain_sync:{job}:{dataset_key}:{block_range.start}:{block_range.end}")


def dataset_version(dataset: UUID, config: str, chain_id: int, block_range: BlockRange, generation: int = 0) -> UUID:
    """Return the identity of one generation of a range's rows. ``config`` is a :func:`config_hash`."""
    name = f"cryo_ingest:{dataset}:{config}:{chain_id}:{block_range.start}:{block_range.end}"
    return uuid5(_VERSION, name if generation == 0 else f"{name}:g{generation}")


def outbox_id(task: UUID, attempt: int, wake_seq: int = 1) -> UUID:
    """Return the identity of a wake-up. ``wake_seq`` counts an attempt's wake-ups from 1; the first one omits it."""
    name = f"task_wakeup:{task}:{attempt}"
    return uuid5(_OUTBOX, name if wake_seq <= 1 else f"{name}:{wake_seq}")


def committed_event_id(version: UUID, attempt: int) -> UUID:
    """Return the identity of the single ``range_committed`` event of a successful attempt."""
    return uuid5(_OUTBOX, f"range_committed:{version}:{attempt}")


def config_hash(dataset: str, columns: Sequence[str], engine_version: str) -> str:
    """Return a hash of the settings that change rows. Pool, chunk size and secrets are not part of it."""
    subject = {
        "columns": list(columns),
        "dataset": dataset,
        "engine_major": engine_version.rsplit(".", 1)[0],
        "row_schema_version": LAKE_FORM,
    }
    return f"cryo_ingest.{dataset}:{sha256_hex(canonical_json(subject).encode())[:16]}"
