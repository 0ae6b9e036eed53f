"""Sweep: fence first, then remove objects that no commit needs or can still need.

An object is removed only if all of this holds: it belongs to a range that has a task in this registry, no attempt holds
that task (its row is locked during the removal), no live version names the object, and the attempt that wrote it ended
before the grace period. Any other object is kept and counted.

An object of a layout is removed if this registry knows the layout, no reader can still need it, and the compaction that
wrote it ended, or fell silent, before the grace period. The window cannot be compacted during the removal.

While a query of the service's log runs, what it may read counts as needed, whatever the grace period is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.config.settings import DEFAULT_CHANGES_DAYS, DEFAULT_QUERY_LOG_DAYS
from trace_dagster.errors import TraceError
from trace_dagster.manifest import FILE_NAME
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.connection import Database
from trace_dagster.registry.retention import FolderLock, RangeFolder, Retention

if TYPE_CHECKING:
    from trace_dagster.store.objects import ObjectStore

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEY = re.compile(rf"[a-z]+/\d+/(?P<dataset>{_UUID})/(?P<start>\d{{1,19}})_(?P<end>\d{{1,19}})/{_UUID}/(?P<name>[^/]+)")
_LAYOUT_KEY = re.compile(
    rf"cryo/\d+/(?P<dataset>{_UUID})/layout/(?P<start>\d{{1,19}})_(?P<end>\d{{1,19}})/(?P<layout>{_UUID})/[^/]+"
)
_PARQUET = re.compile(r".+-(?P<tag>[0-9a-f]{8}-a\d+-[0-9a-f]{8})(?:-p\d+)?\.parquet")


_log = component_log("maintenance")


@dataclass(slots=True)
class Swept:
    """The result of a sweep, or of a dry run."""

    dry_run: bool
    attempts_fenced: int = 0
    compactions_fenced: int = 0
    generations_retired: int = 0
    replaced_links_dropped: int = 0
    """Links of ranges to files that compactions replaced."""
    objects_removed: int = 0
    uploads_aborted: int = 0
    changes_deleted: int = 0
    queries_that_keep_files: int = 0
    """Running queries that began before the grace period. Objects that were replaced since then are kept."""
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
            f"{self.compactions_fenced} silent compactions {would}fenced",
            f"{self.generations_retired} replaced generations {would}retired",
            f"{self.replaced_links_dropped} links to compacted files {would}dropped",
            f"{self.objects_removed} objects {would}removed",
            f"{self.uploads_aborted} unfinished uploads {would}aborted",
            f"{self.changes_deleted} old changes {would}deleted",
        ]
        if self.queries_that_keep_files:
            lines.append(f"{self.queries_that_keep_files} running queries keep what was replaced since they began")
        if self.objects_not_ours:
            lines.append(f"{self.objects_not_ours} objects of unknown datasets or ranges left alone")
        return lines


def sweep(
    database: Database,
    store: ObjectStore,
    *,
    grace_seconds: float,
    dry_run: bool,
    changes_days: int = DEFAULT_CHANGES_DAYS,
    query_log_days: int = DEFAULT_QUERY_LOG_DAYS,
) -> Swept:
    """Fence, retire, remove and prune, in this order, so that a crash only leaves work for the next sweep."""
    registry = Retention(database)
    swept = Swept(dry_run)
    swept.queries_that_keep_files = registry.queries_that_keep_files(grace_seconds)
    swept.attempts_fenced = registry.abandon(grace_seconds, dry_run=dry_run)
    swept.compactions_fenced = registry.abandon_compactions(grace_seconds, dry_run=dry_run)
    swept.generations_retired = registry.retire(grace_seconds, dry_run=dry_run)
    swept.replaced_links_dropped = registry.drop_replaced_links(grace_seconds, dry_run=dry_run)
    known = registry.known_datasets()
    for place, keys in _places(store.keys("")):
        if place is None or place.folder.dataset_uuid not in known:
            swept.objects_not_ours += len(keys)
            continue
        with _removable(registry, place, keys, grace_seconds, dry_run=dry_run) as (removable, unknown):
            swept.objects_not_ours += unknown
            swept.objects_removed += len(removable)
            if not dry_run:
                store.delete(removable)
    for key, upload in store.stale_uploads(grace_seconds):
        place = _place(key)
        if place is None or place.folder.dataset_uuid not in known:
            continue
        with _removable(registry, place, [key], grace_seconds, dry_run=dry_run) as (removable, _):
            swept.uploads_aborted += len(removable)
            if removable and not dry_run:
                store.abort_upload(key, upload)
    swept.changes_deleted = registry.prune_changes(changes_days, dry_run=dry_run)
    if not dry_run:
        registry.prune_reorgs(changes_days)
        registry.prune_queries(query_log_days)
        registry.prune(grace_seconds)
    _log.event("swept", **asdict(swept))
    return swept


@dataclass(frozen=True, slots=True)
class _Place:
    """Where objects belong to: a range, or the layouts of a window."""

    folder: RangeFolder
    of_layouts: bool


def _places(keys: Iterable[str]) -> Iterable[tuple[_Place | None, list[str]]]:
    """Group keys by their place; None for names that this package does not make."""
    found: dict[_Place | None, list[str]] = defaultdict(list)
    for key in keys:
        found[_place(key)].append(key)
    return found.items()


def _place(key: str) -> _Place | None:
    match = _KEY.fullmatch(key) or _LAYOUT_KEY.fullmatch(key)
    if match is None:
        return None
    try:
        folder = RangeFolder(UUID(match["dataset"]), BlockRange(int(match["start"]), int(match["end"])))
    except TraceError:
        return None
    return _Place(folder, match.re is _LAYOUT_KEY)


@contextmanager
def _removable(
    registry: Retention, place: _Place, keys: Sequence[str], grace_seconds: float, *, dry_run: bool
) -> Iterator[tuple[list[str], int]]:
    """Yield the keys to remove and the number of keys that this registry does not know, under the place's lock."""
    if place.of_layouts:
        with registry.locked_layouts(place.folder, grace_seconds) as lock:
            unknown = sum(_layout_of(key) not in lock.known for key in keys)
            yield [key for key in keys if key not in lock.referenced and _layout_of(key) in lock.over], unknown
    else:
        with registry.locked(place.folder, grace_seconds, dry_run=dry_run) as found:
            yield _removable_of_range(found, keys), 0 if found.known else len(keys)


def _layout_of(key: str) -> UUID:
    match = _LAYOUT_KEY.fullmatch(key)
    assert match is not None
    return UUID(match["layout"])


def _removable_of_range(lock: FolderLock, keys: Iterable[str]) -> list[str]:
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
