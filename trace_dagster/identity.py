"""Names that are the same on every machine: UUIDv5 over UTF-8, canonical JSON, configuration hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from uuid import UUID, uuid5

from trace_dagster.blocks import BlockRange

DEFAULT_ORG = UUID("00000000-0000-0000-0000-000000000001")
ROW_SCHEMA_VERSION = 1
"""Ours: raised when we store the same Cryo rows differently."""

_JOB = UUID("0b3c4c0e-3a64-5d0e-9a1b-6d1f0e8f5a10")
_DATASET = UUID("1f55c495-7e91-4433-8b4a-0c088c5a5c7f")
_TASK = UUID("906c0c0c-342d-472f-97a1-2c9b3d4eaab1")
_VERSION = UUID("6e484f2c-567a-44f3-8a5e-c0650b2a169f")
_OUTBOX = UUID("6c073087-5b7c-4c55-b07a-1e2c7a015ae2")
_DERIVED = UUID("c7a4b1f6-9d0e-4b53-8f3a-2e5d7c901b64")


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces, no NaN: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def job_id(org_id: UUID, name: str) -> UUID:
    """Identity of a job: its name within its organisation."""
    return uuid5(_JOB, f"chain_sync:{org_id}:{name}")


def dataset_uuid(org_id: UUID, chain_id: int, dataset_key: str) -> UUID:
    """Identity of a stream's dataset, whichever job fills it."""
    return uuid5(_DATASET, f"chain_sync:{org_id}:{chain_id}:{dataset_key}")


def derived_uuid(org_id: UUID, chain_id: int, template: str, parameters: Mapping[str, object]) -> UUID:
    """Identity of a derived dataset: its template and the parameters that change its rows."""
    return uuid5(_DERIVED, f"derived:{org_id}:{chain_id}:{template}:{canonical_json(dict(parameters))}")


def task_id(job: UUID, dataset_key: str, block_range: BlockRange) -> UUID:
    """Identity of the durable unit of work for one range of one stream."""
    return uuid5(_TASK, f"chain_sync:{job}:{dataset_key}:{block_range.start}:{block_range.end}")


def dataset_version(dataset: UUID, config: str, chain_id: int, block_range: BlockRange, generation: int = 0) -> UUID:
    """Identity of one generation of one range's rows."""
    name = f"cryo_ingest:{dataset}:{config}:{chain_id}:{block_range.start}:{block_range.end}"
    return uuid5(_VERSION, name if generation == 0 else f"{name}:g{generation}")


def outbox_id(task: UUID, attempt: int, wake_seq: int = 1) -> UUID:
    """Identity of a wake-up; from the second one of an attempt on, its sequence is part of it."""
    name = f"task_wakeup:{task}:{attempt}"
    return uuid5(_OUTBOX, name if wake_seq <= 1 else f"{name}:{wake_seq}")


def committed_event_id(version: UUID, attempt: int) -> UUID:
    """Identity of the one ``range_committed`` event of a successful attempt."""
    return uuid5(_OUTBOX, f"range_committed:{version}:{attempt}")


def config_hash(dataset: str, columns: Sequence[str], engine_version: str) -> str:
    """What would change the rows, hashed: never the pool, the chunk size or a secret."""
    subject = {
        "columns": list(columns),
        "dataset": dataset,
        "engine_major": engine_version.rsplit(".", 1)[0],
        "row_schema_version": ROW_SCHEMA_VERSION,
    }
    return f"cryo_ingest.{dataset}:{sha256_hex(canonical_json(subject).encode())[:16]}"
