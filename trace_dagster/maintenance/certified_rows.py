"""The rows of certified ranges in local Parquet files: each file is hashed once and read front to back."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.errors import VerificationFailed
from trace_dagster.maintenance.certificate import Certificate, CertifiedFile, CertifiedRange
from trace_dagster.store.scan import READ_ERRORS, RowsInOrder


class Files:
    """The certified files in a folder. They are found by name and compared by SHA-256, each once."""

    def __init__(self, statement: Certificate, folder: Path) -> None:
        self._files = {file.sha256: file for file in statement.files}
        self._named: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*.parquet")):
            self._named[path.name].append(path)
        self._found: dict[str, Path | str] = {}

    def path(self, sha256: str) -> Path:
        """Return the path of a certified file. Raises VerificationFailed if it is missing or has other bytes."""
        if sha256 not in self._found:
            self._found[sha256] = self._search(self._files[sha256])
        found = self._found[sha256]
        if isinstance(found, str):
            raise VerificationFailed(found, file=self._files[sha256].name)
        return found

    def _search(self, file: CertifiedFile) -> Path | str:
        """Return the path of a file, or what is wrong with it."""
        named = self._named.get(file.name, [])
        for path in named:
            if path.stat().st_size == file.bytes and _sha256(path) == file.sha256:
                return path
        return "a file is not the certified one" if named else "a file is missing"


class CertifiedRows:
    """Rows of ranges of one dataset key, taken in block order. Close it when done."""

    def __init__(self, ranges: Sequence[CertifiedRange], files: Files, columns: Sequence[str] | None = None) -> None:
        """``ranges`` are sorted by block. ``columns`` None means all."""
        self.ranges = ranges
        self._starts = [each.range_start for each in ranges]
        self._ends = {tuple(each.files): each.range_end for each in ranges}
        self._files = files
        self._columns = columns
        self._open: dict[tuple[str, ...], RowsInOrder] = {}

    def require_schema(self, each: CertifiedRange, schema: pa.Schema) -> None:
        """Raise VerificationFailed unless the files of a range have this schema."""
        with _readable():
            if any(not found.equals(schema) for found in self._reader(each).schemas):
                raise VerificationFailed("the columns of a file are not the certified ones")

    def take(self, each: CertifiedRange, piece: BlockRange) -> pa.Table:
        """Return the rows of a piece of a range; pieces come in block order. Raises VerificationFailed."""
        with _readable():
            found = self._reader(each).take(piece)
        files = tuple(each.files)
        if piece.end >= self._ends[files]:
            self._open.pop(files).close()
        return found

    def covering(self, piece: BlockRange) -> pa.Table | None:
        """Return the rows of blocks that may lie in several ranges, or None if a block is in none of them."""
        first = max(0, bisect_right(self._starts, piece.start) - 1)
        last = bisect_right(self._starts, piece.end - 1)
        touching = [each for each in self.ranges[first:last] if each.range_end > piece.start]
        if any(holes(piece, (each.span for each in touching))):
            return None
        return pa.concat_tables(
            [
                self.take(each, BlockRange(max(each.range_start, piece.start), min(each.range_end, piece.end)))
                for each in touching
            ]
        )

    def close(self) -> None:
        """Close the files."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()

    def __enter__(self) -> CertifiedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reader(self, each: CertifiedRange) -> RowsInOrder:
        files = tuple(each.files)
        if files not in self._open:
            self._open[files] = RowsInOrder([self._files.path(sha256) for sha256 in files], columns=self._columns)
        return self._open[files]


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except READ_ERRORS as error:
        raise VerificationFailed("a file cannot be read", reason=type(error).__name__) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
