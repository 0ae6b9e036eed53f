"""Sweep: fence first, then remove objects that no commit needs or can still need.

An object is removed only if all of this holds: it belongs to a range that has a task in this registry, no attempt holds
that task (its row is locked during the removal), no live version names the object, and the attempt that wrote it ended
before the grace period. Any other object is kept and counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import TraceError
from trace_dagster.manifest import FILE_NAME
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.connection import Database
from trace_dagster.registry.retention import FolderLock, RangeFolder, Retention

if TYPE_CHECKING:
    from trace_dagster.store.objects import ObjectStore

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEY = re.compile(rf"[a-z]+/\d+/(?P<dataset>{_UUID})/(?P<start>\d{{1,19}})_(?P<end>\d{{1,19}})/{_UUID}/(?P<name>[^/]+)")
_PARQUET = re.compile(r".+-(?P<tag>[0-9a-f]{8}-a\d+-[0-9a-f]{8})(?:-p\d+)?\.parquet")


_log = component_log("maintenance")


@dataclass(slots=True)
class Swept:
    """The result of a sweep, or of a dry run."""

    dry_run: bool
    attempts_fenced: int = 0
    generations_retired: int = 0
    objects_removed: int = 0
    uploads_aborted: int = 0
    objects_not_ours: int = 0
    """Objects of datasets or ranges that this registry does not have. They are kept."""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the result as lines for people."""
        would = "would be " if self.dry_run else ""
        lines = [
            f"{self.attempts_fenced} silent attempts {would}fenced",
            f"{self.generations_retired} replaced generations {would}retired",
            f"{self.objects_removed} objects {would}removed",
            f"{self.uploads_aborted} unfinished uploads {would}aborted",
        ]
        if self.objects_not_ours:
            lines.append(f"{self.objects_not_ours} objects of unknown datasets or ranges left alone")
        return lines


def sweep(database: Database, store: ObjectStore, *, grace_seconds: float, dry_run: bool) -> Swept:
    """Fence, retire, remove and prune, in this order, so that a crash only leaves work for the next sweep."""
    registry = Retention(database)
    swept = Swept(dry_run)
    swept.attempts_fenced = registry.abandon(grace_seconds, dry_run=dry_run)
    swept.generations_retired = registry.retire(grace_seconds, dry_run=dry_run)
    known = registry.known_datasets()
    for folder, keys in _folders(store.keys("")):
        if folder is None or folder.dataset_uuid not in known:
            swept.objects_not_ours += len(keys)
            continue
        with registry.locked(folder, grace_seconds, dry_run=dry_run) as lock:
            swept.objects_not_ours += 0 if lock.known else len(keys)
            removable = _removable(lock, keys)
            swept.objects_removed += len(removable)
            if not dry_run:
                store.delete(removable)
    for key, upload in store.stale_uploads(grace_seconds):
        folder = _folder(key)
        if folder is None or folder.dataset_uuid not in known:
            continue
        with registry.locked(folder, grace_seconds, dry_run=dry_run) as lock:
            if lock.idle and _is_dead(lock, key):
                swept.uploads_aborted += 1
                if not dry_run:
                    store.abort_upload(key, upload)
    if not dry_run:
        registry.prune(grace_seconds)
    _log.event("swept", **asdict(swept))
    return swept


def _folders(keys: Iterable[str]) -> Iterable[tuple[RangeFolder | None, list[str]]]:
    """Group keys by their range; None for names that this package does not make."""
    found: dict[RangeFolder | None, list[str]] = defaultdict(list)
    for key in keys:
        found[_folder(key)].append(key)
    return found.items()


def _folder(key: str) -> RangeFolder | None:
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    try:
        return RangeFolder(UUID(match["dataset"]), BlockRange(int(match["start"]), int(match["end"])))
    except TraceError:
        return None


def _removable(lock: FolderLock, keys: Iterable[str]) -> list[str]:
    if not lock.idle:
        return []
    return [key for key in keys if key not in lock.referenced and _is_dead(lock, key)]


def _is_dead(lock: FolderLock, key: str) -> bool:
    """Return whether no attempt can write this object any more, by this registry's own rows.

    A dead attempt's manifest stays: the next attempt of its range replaces it by compare-and-swap, and a late delete
    would remove the new manifest.
    """
    if key.endswith(FILE_NAME):
        return key in lock.retired_manifests
    match = _PARQUET.fullmatch(key)
    return match is not None and match["tag"] in lock.ended_tags
