"""Layouts: which files hold the rows of versions, who may change that, and the transaction that does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from uuid import UUID, uuid4

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import LeaseLost, OutcomeUnknown, Unavailable
from trace_dagster.identity import LAKE_FORM
from trace_dagster.registry.changes import record_change
from trace_dagster.registry.connection import Database, Row, Session, storable

RETRY_BASE_SECONDS = 60.0
LONGEST_BACKOFF_SECONDS = 6 * 3600.0
_BACKOFF = {"base_seconds": RETRY_BASE_SECONDS, "longest_seconds": LONGEST_BACKOFF_SECONDS}


class Unleased(Enum):
    """Why the lease of a window was not granted."""

    HELD = "another process compacts these blocks"
    NOT_DUE = "it failed, or gained nothing, and waits before its next try"


@dataclass(frozen=True, slots=True)
class WindowLease:
    """A time-limited right to compact one window of blocks. The id of the layout is the fencing token."""

    dataset_uuid: UUID
    block_range: BlockRange
    layout_id: UUID

    @property
    def fence(self) -> dict[str, object]:
        """The values that fence every statement of the holder."""
        return {**_window(self.dataset_uuid, self.block_range), "layout_id": self.layout_id}


@dataclass(frozen=True, slots=True)
class WindowState:
    """What a window holds, and how its compaction stands."""

    block_range: BlockRange
    whole: bool
    """True if all of its blocks are committed."""
    versions: int
    """Visible versions that lie wholly in the window; one that reaches over its border keeps its own files."""
    uncompacted: int
    """Those of them whose rows are in files of their own."""
    files: int
    uncompacted_files: int
    bytes: int
    uncompacted_bytes: int
    masked_blocks: int
    """Blocks in its layouts' files whose rows are not visible any more."""
    masked_bytes: int
    """Bytes that the masked blocks take, estimated by their share of the blocks."""
    held: bool
    due: bool
    """False while a failed window waits before its next try."""
    failures: int
    error: str | None
    """Why the last try failed."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that holds rows of a version now."""

    key: str
    bytes: int
    layout_id: UUID | None
    """None for a file that was written with its version."""
    masked_blocks: int


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """A visible version of a window, and the files that hold its rows now."""

    dataset_version: UUID
    block_range: BlockRange
    generation: int
    rows: int
    content_digest: str
    columns: tuple[tuple[str, str], ...]
    """``(name, type)`` pairs of the stored columns."""
    files: tuple[SourceFile, ...]

    @property
    def is_compacted(self) -> bool:
        """Whether a layout's file holds its rows."""
        return any(file.layout_id for file in self.files)


@dataclass(frozen=True, slots=True)
class FileSummary:
    """An approximate set of the values of one column in one file."""

    column: str
    hashes: int
    """Number of hashes of each value."""
    summary: bytes


@dataclass(frozen=True, slots=True)
class LayoutFile:
    """A file of a layout, the versions whose rows it holds, and the summaries of its columns."""

    key: str
    bytes: int
    sha256: str
    rows: int
    min_block: int | None
    max_block: int | None
    etag: str | None
    versions: tuple[SourceVersion, ...]
    summaries: tuple[FileSummary, ...] = ()


@dataclass(frozen=True, slots=True)
class HashIndex:
    """The object with the sorted hash prefixes of a layout."""

    key: str
    bytes: int
    sha256: str
    rows: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class NewLayout:
    """A layout that is written, compared and ready to be swapped in."""

    manifest_key: str
    manifest_sha256: str
    files: tuple[LayoutFile, ...]
    hash_index: HashIndex | None = None

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Bytes of all objects that hold rows or hashes."""
        return sum(file.bytes for file in self.files) + (self.hash_index.bytes if self.hash_index else 0)


class Layouts:
    """Leases windows to compactions, and swaps the files of versions."""

    def __init__(self, database: Database, *, lease_ttl_seconds: float = 60.0) -> None:
        self._database = database
        self.lease_ttl_seconds = lease_ttl_seconds

    def states(self, dataset_uuid: UUID, windows: Sequence[BlockRange]) -> list[WindowState]:
        """Return the state of windows of a dataset, in block order, as of one moment."""
        with self._database.snapshot() as session:
            rows = session.all(
                "window_states",
                dataset_uuid=dataset_uuid,
                starts=[window.start for window in windows],
                ends=[window.end for window in windows],
                form=LAKE_FORM,
            )
        names = [name for name in WindowState.__slots__ if name != "block_range"]
        return [WindowState(_range(row), *(row[name] for name in names)) for row in rows]

    def contents(self, dataset_uuid: UUID, window: BlockRange) -> tuple[list[SourceVersion], list[BlockRange]]:
        """Return the visible versions that lie wholly in a window, and its blocks that are not committed."""
        values = _window(dataset_uuid, window)
        with self._database.snapshot() as session:
            versions = session.all("versions_of_window", **values, form=LAKE_FORM)
            holes = session.all("holes_of_window", **values)
        return [_version(row) for row in versions], [_range(row) for row in holes]

    def claim(self, dataset_uuid: UUID, window: BlockRange, *, manual: bool = False) -> WindowLease | Unleased:
        """Grant the lease of a window, unless a compaction of any of its blocks is under way.

        A window that waits before its next try is granted only with ``manual``. Holders whose lease has lapsed are
        fenced: they cannot swap any more.
        """
        lease = WindowLease(dataset_uuid, window, uuid4())
        with self._database.transaction() as session:
            session.run("lock_layouts", dataset_uuid=dataset_uuid)
            session.run("end_lapsed_compactions", **_window(dataset_uuid, window), **_BACKOFF)
            touching = session.all("touching_compactions", **_window(dataset_uuid, window))
            if any(row["held"] for row in touching):
                return Unleased.HELD
            if not manual and any(row["same"] and not row["due"] for row in touching):
                return Unleased.NOT_DUE
            session.run("start_compaction", **lease.fence, ttl_seconds=self.lease_ttl_seconds)
        return lease

    def renew(self, lease: WindowLease, written_bytes: int) -> None:
        """Renew a lease and record what was written. Raise LeaseLost if it is fenced."""
        with self._database.transaction() as session:
            if not session.run(
                "renew_compaction", **lease.fence, written_bytes=written_bytes, ttl_seconds=self.lease_ttl_seconds
            ):
                raise _lost(lease)

    def reserve(self, lease: WindowLease, planned_bytes: int, most_per_committed_byte: float) -> bool:
        """Record the bytes that a compaction is going to write, unless the dataset's compactions would then have
        written more than ``most_per_committed_byte``. Raise LeaseLost.
        """
        with self._database.transaction() as session:
            session.run("lock_layouts", dataset_uuid=lease.dataset_uuid)
            _require(session, lease)
            sums = session.one("written_bytes", dataset_uuid=lease.dataset_uuid)
            assert sums is not None
            if sums["compacted"] + planned_bytes > most_per_committed_byte * sums["committed"]:
                return False
            session.run("plan_compaction", layout_id=lease.layout_id, planned_bytes=planned_bytes)
        return True

    def written_bytes(self, dataset_uuid: UUID) -> tuple[int, int]:
        """Return the bytes that commits and compactions of a dataset have written."""
        with self._database.snapshot() as session:
            sums = session.one("written_bytes", dataset_uuid=dataset_uuid)
        assert sums is not None
        return int(sums["committed"]), int(sums["compacted"])

    def end(
        self, lease: WindowLease, *, error: str | None = None, written_bytes: int = 0, pause_seconds: float = 0
    ) -> bool:
        """End a compaction without a swap; return False if its lease was lost.

        After an error the next try waits a minute, doubled by each failure; otherwise ``pause_seconds``.
        """
        with self._database.transaction() as session:
            return _end(session, lease, None if error is None else storable(error), written_bytes, pause_seconds)

    def swap(self, lease: WindowLease, layout: NewLayout) -> int:
        """Make a layout's files the ones that hold its versions; return how many versions moved.

        Versions that stopped being visible meanwhile keep their files, and are masked in the layout's. Raise LeaseLost
        if the lease is fenced, or if other files hold a version now; OutcomeUnknown if the answer was lost.
        """
        try:
            with self._database.transaction() as session:
                session.run("lock_layouts", dataset_uuid=lease.dataset_uuid)
                _require(session, lease)
                return _swap(session, lease, layout)
        except Unavailable as error:
            raise OutcomeUnknown("the answer to a swap of files was lost", layout_id=lease.layout_id) from error

    def forget_index(self, layout_id: UUID) -> int:
        """Forget a damaged hash index, so that queries scan the layout's files; return how many were forgotten."""
        with self._database.transaction() as session:
            return session.run("forget_hash_index", layout_id=layout_id)

    def took_effect(self, lease: WindowLease) -> bool:
        """Return whether the swap took effect, to settle an unknown outcome."""
        with self._database.transaction() as session:
            session.run("lock_layouts", dataset_uuid=lease.dataset_uuid)  # waits for a swap that is still in progress
            return session.one("layout_of_attempt", layout_id=lease.layout_id) is not None


def _require(session: Session, lease: WindowLease) -> None:
    if session.one("fence_compaction", **lease.fence) is None:
        raise _lost(lease)


def _lost(lease: WindowLease) -> LeaseLost:
    return LeaseLost("another compaction holds these blocks now", blocks=lease.block_range, layout_id=lease.layout_id)


def _end(session: Session, lease: WindowLease, error: str | None, written: int, pause_seconds: float) -> bool:
    ended = session.run(
        "end_compaction",
        **lease.fence,
        error=error,
        written_bytes=written,
        pause_seconds=pause_seconds,
        **_BACKOFF,
    )
    return ended > 0


def _swap(session: Session, lease: WindowLease, layout: NewLayout) -> int:
    """Lock the versions, then move the links of those that are still visible."""
    everything = [version for file in layout.files for version in file.versions]
    rows = session.all("lock_versions", versions=[version.dataset_version for version in everything])
    visible = {row["dataset_version"] for row in rows if row["visible"]}
    session.run(
        "insert_layout",
        **lease.fence,
        manifest_key=layout.manifest_key,
        manifest_sha256=layout.manifest_sha256,
        row_count=layout.rows,
        byte_count=layout.bytes,
    )
    replaced = session.all("replace_links", versions=list(visible))
    _require_same_files(lease, everything, visible, replaced)
    session.run("mask_moved_versions", versions=list(visible))
    for file in layout.files:
        _insert_file(session, lease, file, visible)
    if layout.hash_index is not None:
        session.run("insert_hash_index", layout_id=lease.layout_id, **_index_values(layout.hash_index))
    _end(session, lease, None, layout.bytes, 0)
    record_change(session, "compacted", lease.dataset_uuid, lease.block_range, layout_id=lease.layout_id)
    return len(visible)


def _require_same_files(
    lease: WindowLease, everything: Sequence[SourceVersion], visible: set[UUID], replaced: Sequence[Row]
) -> None:
    """Raise LeaseLost unless the replaced links are those whose files were read."""
    read = {
        (version.dataset_version, file.key)
        for version in everything
        if version.dataset_version in visible
        for file in version.files
    }
    if read != {(row["dataset_version"], row["file_key"]) for row in replaced}:
        raise _lost(lease)


def _insert_file(session: Session, lease: WindowLease, file: LayoutFile, visible: set[UUID]) -> None:
    versions = [version.dataset_version for version in file.versions]
    session.run(
        "insert_layout_file",
        layout_id=lease.layout_id,
        file_key=file.key,
        bytes=file.bytes,
        sha256=file.sha256,
        row_count=file.rows,
        min_block=file.min_block,
        max_block=file.max_block,
        etag=file.etag,
        visible=[version for version in versions if version in visible],
        hidden=[version for version in versions if version not in visible],
    )
    for each in file.summaries:
        session.run(
            "insert_file_summary",
            file_key=file.key,
            column_name=each.column,
            hashes=each.hashes,
            summary=each.summary,
        )


def _index_values(index: HashIndex) -> Mapping[str, object]:
    return {
        "object_key": index.key,
        "bytes": index.bytes,
        "sha256": index.sha256,
        "row_count": index.rows,
        "etag": index.etag,
    }


def _version(row: Row) -> SourceVersion:
    return SourceVersion(
        dataset_version=row["dataset_version"],
        block_range=_range(row),
        generation=row["generation"],
        rows=row["row_count"],
        content_digest=row["content_digest"],
        columns=tuple((name, kind) for name, kind in row["schema_json"]),
        files=tuple(
            SourceFile(
                each["key"],
                each["bytes"],
                UUID(each["layout_id"]) if each["layout_id"] else None,
                int(each["masked_blocks"]),
            )
            for each in row["files"] or ()
        ),
    )


def _range(row: Row) -> BlockRange:
    return BlockRange(row["range_start"], row["range_end"])


def _window(dataset_uuid: UUID, window: BlockRange) -> dict[str, object]:
    return {"dataset_uuid": dataset_uuid, "range_start": window.start, "range_end": window.end}
