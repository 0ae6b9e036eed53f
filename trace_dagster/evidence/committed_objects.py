"""Compares committed files with the objects that the bucket holds now, by size and ETag, before or while they are read.
So are the hash indexes of files.

A few files are asked for one by one; with more, listings are fewer requests: each covers 1,000 objects, whether they
are wanted or not. A query's files are compared while it runs, those of a template before it runs. A change that keeps
size and ETag is not seen; ``audit.py`` reads the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import Corrupt, TraceError, Unavailable
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore, StoredObject
from trace_dagster.store.scan import READ_ERRORS

Kind = Literal["missing", "altered"]
_FEW = 64
"""Files that are asked for one by one: 10 files of 1,000 take 5 ms, and listings 180 ms (SeaweedFS on loopback)."""
_NAMED = 3
"""Objects that an error names; of the others it says how many there are."""


@dataclass(frozen=True, slots=True)
class DamagedObject:
    """A committed file whose object is missing or is not the one that was committed."""

    key: str
    kind: Kind
    dataset: str
    """``chain_<id>.<dataset key>``."""
    block_range: BlockRange
    """The blocks that it serves, from the first to the last; other objects may serve some of those between."""
    job: str | None
    """The job that can fetch the range again; None for a derived dataset."""

    def __str__(self) -> str:
        again = (
            f"`trace-lite verify --job {self.job} --range {self.block_range.start}:{self.block_range.end} --repair`"
            if self.job
            else "materialize the asset again"
        )
        return f"{self.dataset} {self.block_range}: an object is {self.kind}: {again}"


class CommittedObjects:
    """Answers for committed files whether the bucket still holds them as they were committed."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    def require_intact(self, keys: Sequence[str]) -> None:
        """Raise Corrupt if one of these files is missing or altered; the error names dataset, range and repair.

        Raises Unavailable or InvalidInput if the bucket cannot be listed.
        """
        found = self.damaged(keys)
        if found:
            more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise Corrupt("; ".join(map(str, found[:_NAMED])) + more)

    @contextmanager
    def reading(self, keys: Sequence[str]) -> Iterator[None]:
        """Check these files, then let the block read them. If that fails, raise the reason for it.

        Raises Corrupt if a file is missing or altered, Unavailable if the bucket does not serve it.
        """
        self.require_intact(keys)
        try:
            yield
        except (Unavailable, *READ_ERRORS) as error:
            given = Unavailable("the object store did not serve a committed file", reason=type(error).__name__)
            raise self.unreadable(keys) or (error if isinstance(error, Unavailable) else given) from None

    def unreadable(self, keys: Sequence[str]) -> TraceError | None:
        """Return the reason why these files cannot be read, which DuckDB and Arrow do not name.

        None if the bucket holds them and serves the first one: the cause is another, or has passed.
        """
        try:
            self.require_intact(keys)
            if keys:
                self._store.stored_now(keys[0])
        except TraceError as error:
            return error
        return None

    def damaged(self, keys: Sequence[str]) -> list[DamagedObject]:
        """Return those of these files that are missing or altered, each once, by dataset and range."""
        if not keys:
            return []
        with self._database.snapshot() as session:
            committed = session.all("committed_files", file_keys=list(keys))
        wanted = [row["file_key"] for row in committed]
        stored = self._store.stored_each(wanted) if len(wanted) <= _FEW else self._store.stored(wanted)
        kinds: dict[str, Kind] = {}
        for row in committed:
            key, expected = row["file_key"], StoredObject(row["bytes"], row["etag"])
            # what seems wrong is looked at once more: a server may list in an order of its own, or fail for a moment
            if not _agrees(stored.get(key), expected) and not _agrees(now := self._store.stored_now(key), expected):
                kinds[key] = "missing" if now is None else "altered"
        return self._described(kinds) if kinds else []

    def _described(self, kinds: dict[str, Kind]) -> list[DamagedObject]:
        with self._database.snapshot() as session:
            rows = session.all("origins_of_files", file_keys=list(kinds))
        return [
            DamagedObject(
                key=row["file_key"],
                kind=kinds[row["file_key"]],
                dataset=f"chain_{row['chain_id']}.{row['dataset_key']}",
                block_range=BlockRange(row["range_start"], row["range_end"]),
                job=row["job"],
            )
            for row in rows
        ]


def _agrees(found: StoredObject | None, expected: StoredObject) -> bool:
    """Return whether an object is the committed one, as far as ETags are known."""
    if found is None or found.bytes != expected.bytes:
        return False
    return expected.etag is None or found.etag is None or found.etag == expected.etag
