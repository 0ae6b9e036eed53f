"""The registry's side of a commit: one fenced transaction, and the look-up of its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import LeaseLost, OutcomeUnknown, Refused, Unavailable
from trace_dagster.identity import committed_event_id, dataset_version
from trace_dagster.manifest import Manifest
from trace_dagster.registry.changes import record_change
from trace_dagster.registry.connection import Database, Row, Session
from trace_dagster.registry.forks import require_one_chain
from trace_dagster.registry.hot_commit import leave_hot, rechecked_by_follower, require_hot_chain
from trace_dagster.registry.tasks import Lease


@dataclass(frozen=True, slots=True)
class Publication:
    """What a successful attempt made visible, or confirmed: exactly one per attempt."""

    dataset_uuid: UUID
    dataset_version: UUID
    storage_ref: str
    config_hash: str
    block_range: BlockRange
    generation: int
    rows: int
    bytes: int
    content_digest: str
    verification: dict[str, Any]
    metrics: dict[str, Any]
    manifest_key: str
    created: bool
    """False if the same rows were already visible, so that nothing new was registered."""


@dataclass(frozen=True, slots=True)
class VersionFile:
    """A file that holds rows of a version."""

    key: str
    sha256: str
    in_layout: bool
    """Whether a compaction wrote it, so that it holds rows of other versions as well."""


class Publications:
    """Commits dataset versions and looks them up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def visible(self, dataset_uuid: UUID, block_range: BlockRange) -> Publication | None:
        """Return the committed version of exactly this range, or None."""
        with self._database.transaction() as session:
            row = session.one(
                "visible_version",
                dataset_uuid=dataset_uuid,
                range_start=block_range.start,
                range_end=block_range.end,
            )
        return publication(row, created=False) if row else None

    def commit(
        self,
        lease: Lease,
        manifest: Manifest,
        *,
        storage_ref: str,
        manifest_key: str,
        manifest_sha256: str,
        schema: list[list[str]],
        metrics: dict[str, Any],
        etags: Mapping[str, str | None] | None = None,
        times: tuple[datetime, datetime] | None = None,
        whole: bool = False,
    ) -> None:
        """Make a manifest visible. ``etags`` has the object store's ETag of each file, by key; ``times`` are the first
        and the last block_timestamp of the rows, if there are some.

        Raise LeaseLost, Refused if the manifest is not of the leased task, ForkConflict if a neighbour or a block of
        the follower has another hash where they meet, or OutcomeUnknown if the answer was lost. ``whole`` hides every
        older version of the dataset (derived datasets); otherwise only this range's, and its hot rows go.
        """
        values = _version_values(lease, manifest, storage_ref, manifest_key, manifest_sha256)
        values |= {"schema_json": Jsonb(schema), "metrics": Jsonb(metrics)}
        values |= {"first_time": times[0], "last_time": times[1]} if times else {"first_time": None, "last_time": None}
        try:
            with (
                rechecked_by_follower(self._database, manifest.dataset_uuid),
                self._database.transaction() as session,
            ):
                if not whole:
                    session.run("share_chain", chain_id=manifest.chain_id)  # before the task, as a fork does
                _require_same(manifest, _require(session, lease))
                _require_one_chain(session, manifest)
                if not whole:
                    leave_hot(session, manifest.dataset_uuid, _range(manifest), _last_hash(manifest))
                if whole or lease.generation:  # otherwise nothing was committed here before
                    _hide_replaced(session, manifest, whole=whole)
                session.run("insert_version", **values)
                session.many("insert_file", _file_rows(manifest, etags or {}))
                _finish(session, lease, manifest.generation, "committed")
                session.run("insert_outbox", **_event(lease, manifest))
                _record_commit(session, manifest)
        except Unavailable as error:
            raise OutcomeUnknown("the commit's answer was lost", task_id=lease.task_id) from error

    def confirm(self, lease: Lease, version: Publication) -> None:
        """End an attempt whose rows are already visible. Raise LeaseLost."""
        with self._database.transaction() as session:
            _require(session, lease)
            _finish(session, lease, version.generation, "confirmed")

    def holds(self, lease: Lease) -> bool:
        """Return whether this attempt may still commit."""
        with self._database.transaction() as session:
            return session.one("fence", **lease.fence) is not None

    def files(self, version: Publication) -> list[VersionFile]:
        """Return the files that hold a version's rows now, in the order of its rows."""
        with self._database.transaction() as session:
            rows = session.all("files_of_version", dataset_version=version.dataset_version)
        return [VersionFile(row["file_key"], row["sha256"], row["in_layout"]) for row in rows]

    def took_effect(self, lease: Lease) -> bool:
        """Return whether this attempt's commit took effect, to settle an unknown outcome."""
        with self._database.transaction() as session:
            session.one("lock_task", task_id=lease.task_id)  # waits for a commit that is still in progress
            return session.one("version_of_attempt", task_id=lease.task_id, attempt=lease.attempt) is not None


def _require(session: Session, lease: Lease) -> Row:
    task = session.one("fence", **lease.fence)
    if task is None:
        raise LeaseLost("another attempt holds this range now", task_id=lease.task_id, attempt=lease.attempt)
    return task


def _require_same(manifest: Manifest, task: Row) -> None:
    """Raise Refused unless the manifest is of the leased task: a lease is the right to publish its own range only."""
    span = BlockRange(task["range_start"], task["range_end"])
    expected = {
        "dataset_uuid": task["dataset_uuid"],
        "range_start": span.start,
        "range_end": span.end,
        "config_hash": task["config_hash"],
        "dataset_version": dataset_version(
            task["dataset_uuid"], task["config_hash"], manifest.chain_id, span, manifest.generation
        ),
    }
    for name, value in expected.items():
        if getattr(manifest, name) != value:
            raise Refused(f"the publication's {name} is not that of the leased task", expected=value)


def _require_one_chain(session: Session, manifest: Manifest) -> None:
    if manifest.boundary is not None:
        first, last = manifest.boundary
        require_one_chain(
            session,
            dataset_uuid=manifest.dataset_uuid,
            chain_id=manifest.chain_id,
            block_range=_range(manifest),
            first=first,
            last=last,
        )
        require_hot_chain(session, manifest.dataset_uuid, _range(manifest), first, last)


def _hide_replaced(session: Session, manifest: Manifest, *, whole: bool) -> None:
    """Hide what the new version replaces. The change log gets ``invalidated`` for blocks that it does not cover."""
    span = _range(manifest)
    for row in session.all("hide_versions", whole=whole, **_span(manifest)):
        hidden = BlockRange(row["range_start"], row["range_end"])
        if not span.start <= hidden.start < hidden.end <= span.end:
            record_change(
                session,
                "invalidated",
                manifest.dataset_uuid,
                hidden,
                generation=row["generation"],
                dataset_version=row["dataset_version"],
                block_hash=row["last_block_hash"],
                reason=f"the dataset was replaced as a whole, by blocks {span}",
            )


def _record_commit(session: Session, manifest: Manifest) -> None:
    record_change(
        session,
        "committed",
        manifest.dataset_uuid,
        _range(manifest),
        generation=manifest.generation,
        dataset_version=manifest.dataset_version,
        block_hash=_last_hash(manifest),
    )


def _finish(session: Session, lease: Lease, generation: int, state: str) -> None:
    session.run("finish_attempt", task_id=lease.task_id, attempt=lease.attempt, generation=generation, state=state)


def _range(manifest: Manifest) -> BlockRange:
    return BlockRange(manifest.range_start, manifest.range_end)


def _last_hash(manifest: Manifest) -> bytes | None:
    return manifest.boundary[1] if manifest.boundary else None


def _span(manifest: Manifest) -> dict[str, object]:
    return {
        "dataset_uuid": manifest.dataset_uuid,
        "range_start": manifest.range_start,
        "range_end": manifest.range_end,
    }


def _version_values(
    lease: Lease, manifest: Manifest, storage_ref: str, manifest_key: str, manifest_sha256: str
) -> dict[str, object]:
    return {
        **_span(manifest),
        "dataset_version": manifest.dataset_version,
        "generation": manifest.generation,
        "task_id": lease.task_id,
        "attempt": lease.attempt,
        "config_hash": manifest.config_hash,
        "storage_ref": storage_ref,
        "manifest_key": manifest_key,
        "manifest_sha256": manifest_sha256,
        "content_digest": manifest.content_digest,
        "row_count": manifest.rows,
        "byte_count": sum(file.bytes for file in manifest.files),
        "verification": Jsonb(manifest.verification),
        "first_parent_hash": manifest.boundary[0] if manifest.boundary else None,
        "last_block_hash": _last_hash(manifest),
    }


def _file_rows(manifest: Manifest, etags: Mapping[str, str | None]) -> list[Row]:
    return [
        {
            "dataset_version": manifest.dataset_version,
            "file_key": file.key,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "row_count": file.rows,
            "min_block": file.min_block,
            "max_block": file.max_block,
            "etag": etags.get(file.key),
        }
        for file in manifest.files
    ]


def _event(lease: Lease, manifest: Manifest) -> dict[str, object]:
    return {
        "outbox_id": committed_event_id(manifest.dataset_version, lease.attempt),
        "kind": "range_committed",
        "task_id": lease.task_id,
        "payload": Jsonb({"dataset_version": str(manifest.dataset_version), "generation": manifest.generation}),
        "available_at": None,
    }


def publication(row: Row, *, created: bool) -> Publication:
    """Build a publication from a row of ``dataset_versions`` with its range."""
    return Publication(
        dataset_uuid=row["dataset_uuid"],
        dataset_version=row["dataset_version"],
        storage_ref=row["storage_ref"],
        config_hash=row["config_hash"],
        block_range=BlockRange(row["range_start"], row["range_end"]),
        generation=row["generation"],
        rows=row["row_count"],
        bytes=row["byte_count"],
        content_digest=row["content_digest"],
        verification=row["verification"],
        metrics=row["metrics"],
        manifest_key=row["manifest_key"],
        created=created,
    )
