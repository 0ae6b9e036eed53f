"""What a query's process and its parent agree on: the tables of a query, its limits, and how the process ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    import pyarrow as pa

Columns = Sequence[tuple[str, str]]
"""``(name, DuckDB type)`` of each column of a table."""

StreamFormat = Literal["arrow", "csv", "parquet"]
"""Formats of an answer without a limit of rows."""
Format = Literal["json"] | StreamFormat

SNAPSHOT_KEY = "trace.snapshot"
"""The key of an answer's header in the metadata of Arrow and Parquet."""
MAX_ROWS = 10_000
"""Most rows that one query returns, even if the caller requests more."""
DEFAULT_ROWS = 1_000
"""Rows that one query returns if the caller requests no number."""
MAX_SQL_BYTES = 100_000
"""Longest query, in bytes of UTF-8."""
MAX_TEXT_BYTES = 2 << 20
"""Longest query with the values of its parameters in it."""
MAX_NAME_BYTES = 1 << 20
"""Most bytes that the names and types of a result's columns have together."""
COUNT_BYTES = 8
"""Each message with bytes of a stream begins with the number of rows so far, which has this size."""
STREAM_MESSAGE_BYTES = 1 << 20
"""Most bytes of a stream in one message, without that number."""
READY = b"ready"
"""The first message of the process. It sends it when it can take a query."""
TOO_LARGE = 77
"""Exit code of a process that used more memory than it may, where the system does not limit it."""
NO_SPACE = "the query needs more disk to sort or join than it may use: ask for fewer blocks, or aggregate"
NO_MEMORY = "the query needs more memory than it may use: ask for fewer blocks, or aggregate"


class Uris(Sequence[str]):
    """URIs of files as one text, because there may be 100,000 of them. It is split only if a single URI is needed."""

    def __init__(self, prefix: str, names: str) -> None:
        """``names`` has a line for each file; ``prefix`` comes before each of them. No names are no files."""
        self.text = prefix + names.replace("\n", "\n" + prefix) if names else ""
        """The URIs, one on each line."""

    def _split(self) -> list[str]:
        return self.text.split("\n") if self.text else []

    def __len__(self) -> int:
        return self.text.count("\n") + 1 if self.text else 0

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._split()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._split())


Blocks = tuple[tuple[int, int], ...]
"""First and last block of intervals."""


@dataclass(frozen=True, slots=True)
class MaskedFiles:
    """Files of which a session leaves out some blocks."""

    uris: Sequence[str]
    blocks: Blocks
    """Blocks without visible rows in these files."""
    only: tuple[int, ...] | None = None
    """If given, rows of other blocks are left out as well."""


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file whose rows' hashes are in an index."""

    uri: str
    first: int
    last: int
    """It has no row of another block."""
    masked: Blocks


@dataclass(frozen=True, slots=True)
class HashLookup:
    """Files of which only the blocks with one of some hashes are needed, which indexes tell."""

    hashes: tuple[str, ...]
    """In hex."""
    indexes: tuple[str, ...]
    """URIs of the indexes of all these files."""
    files: tuple[HashedFile, ...]


@dataclass(frozen=True, slots=True)
class RowCut:
    """The last rows that a session shows of a relation. None limits nothing."""

    block: int | None = None
    """Last value of ``block_number``."""
    time: int | None = None
    """Last value of ``block_timestamp``, in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One table: its name (``blocks`` or ``chain_1.blocks``), its columns, its Parquet files and its rows that are in
    no file. No file is in it twice.
    """

    name: str
    columns: Columns
    """Used if there are no files, and to plan a query before its files are opened."""
    uris: Sequence[str]
    """URIs of the files whose rows are all visible."""
    masked: tuple[MaskedFiles, ...] = ()
    lookup: HashLookup | None = None
    """More files, if the query asks for hashes. They are looked up before the relation is opened."""
    hot: pa.Table | None = None
    """Rows that are in no file. Of the columns, only those that the query reads."""
    cut: RowCut = RowCut()

    def all_uris(self) -> Iterator[str]:
        """Yield the URIs of all files to scan."""
        yield from self.uris
        for each in self.masked:
            yield from each.uris

    def to_json(self) -> list[Any]:
        """Return JSON that :meth:`from_json` reads, without ``uris`` and ``hot``: of 100,000 files or rows they are
        sent as they are.
        """
        masked = [[lines(each.uris), each.blocks, each.only] for each in self.masked]
        lookup = self.lookup and [
            self.lookup.hashes,
            self.lookup.indexes,
            [astuple(each) for each in self.lookup.files],
        ]
        return [self.name, self.columns, masked, lookup, astuple(self.cut)]

    @classmethod
    def from_json(cls, given: Sequence[Any], uris: str, hot: pa.Table | None = None) -> Relation:
        """Read what :meth:`to_json` returns. ``uris`` has a line for each file."""
        name, columns, masked, lookup, cut = given
        groups = (MaskedFiles(Uris("", text), blocks, only) for text, blocks, only in masked)
        if lookup:
            hashes, indexes, files = lookup
            lookup = HashLookup(hashes, indexes, tuple(HashedFile(*each) for each in files))
        return cls(name, columns, Uris("", uris), tuple(groups), lookup or None, hot, RowCut(*cut))


@dataclass(frozen=True, slots=True)
class Tips:
    """What is known of relations before their rows are read, all of the moment that the rows will be of."""

    heads: Mapping[str, Sequence[Sequence[int | str | None]]] = field(default_factory=dict)
    """All rows of relations of heads, as ``heads_values`` returns them, by name."""
    last_blocks: Mapping[str, int] = field(default_factory=dict)
    """``max(block_number)`` of relations that have a row of each of their blocks, by name."""


def lines(uris: Sequence[str]) -> str:
    """Return the URIs as a text, one on each line."""
    return uris.text if isinstance(uris, Uris) else "\n".join(uris)


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits of one query: memory and threads of its process, its duration, and the size of its result as JSON."""

    memory_mib: int = 2048
    threads: int = 2
    timeout_seconds: float = 60.0
    result_mib: int = 16
    stream_seconds: float = 3600.0
    """Longest duration of a query whose rows are streamed; its caller may take them slowly."""
    temporary_mib: int = 0
    """Disk that the query may sort and join on."""
