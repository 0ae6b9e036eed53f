"""Converts the registry's datasets to the tables of a query session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP, dataset
from trace_dagster.query.heads_relation import HEADS_COLUMNS, heads_names, heads_rows, heads_values
from trace_dagster.query.protocol import (
    Blocks,
    Columns,
    HashedFile,
    HashLookup,
    MaskedFiles,
    Relation,
    RowCut,
    Tips,
    Uris,
)
from trace_dagster.registry.catalog import LakeFile, LakeSnapshot, Opened, VisibleDataset, microseconds
from trace_dagster.registry.conditions import Reads
from trace_dagster.registry.snapshot_header import Cut
from trace_dagster.store.access import S3Access

_TYPES = {
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "binary": "BLOB",
    "large_binary": "BLOB",
    "date32[day]": "DATE",
    "timestamp[us]": "TIMESTAMP",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}


_MAX_MASKS = 64
"""Most intervals that one scan of files leaves out."""


class Lake:
    """The tables of a session: every dataset as ``chain_<id>.<dataset_key>``, and as ``<dataset_key>`` as well if
    only one chain has it; and the heads of followed chains.
    """

    def __init__(self, found: Sequence[VisibleDataset], access: S3Access, followed: Collection[int] = ()) -> None:
        """``found`` are the visible datasets. A derived dataset whose columns are not known yet is left out.
        ``followed`` are the chains with heads.
        """
        self._access = access
        current = {(entry.chain_id, entry.dataset_key): entry for entry in found if _has_columns(entry)}
        chains = Counter(key for _, key in current)
        self._datasets: dict[str, VisibleDataset] = {}
        for (chain_id, key), entry in current.items():
            self._datasets[f"chain_{chain_id}.{key}"] = entry
            if chains[key] == 1:
                self._datasets[key] = entry
        self._columns = {entry.dataset_uuid: _columns(entry) for entry in current.values()}
        self._heads = heads_names(followed, self._datasets)

    def shapes(self) -> list[Relation]:
        """Return every relation with its columns, without files."""
        heads = [Relation(name, HEADS_COLUMNS, ()) for name in self._heads]
        datasets = [Relation(name, self._columns[entry.dataset_uuid], ()) for name, entry in self._datasets.items()]
        return [*datasets, *heads]

    def datasets(self) -> list[tuple[VisibleDataset, Columns, str | None]]:
        """Return every dataset with its columns, and its short name if that is of one chain only."""
        full = {entry.dataset_uuid: entry for name, entry in self._datasets.items() if "." in name}
        return [
            (entry, self._columns[each], entry.dataset_key if entry.dataset_key in self._datasets else None)
            for each, entry in full.items()
        ]

    def dataset(self, name: str) -> VisibleDataset | None:
        """Return the dataset of a full or short name; None if there is none, or several chains have it."""
        return self._datasets.get(name)

    def chains_of_heads(self, names: Iterable[str]) -> set[int]:
        """Return the chains whose heads are among the relations of these names."""
        return {self._heads[name] for name in names if name in self._heads}

    def datasets_of(self, names: Iterable[str]) -> set[UUID]:
        """Return the datasets among the relations of these names."""
        return {self._datasets[name].dataset_uuid for name in names if name in self._datasets}

    def tips(self, names: Iterable[str], snapshot: LakeSnapshot) -> Tips:
        """Return the heads and the last blocks of those of these relations that have them. Of dataset blocks, each
        block that is committed or hot has exactly one row.
        """
        heads: dict[str, list[list[int | str | None]]] = {}
        last_blocks: dict[str, int] = {}
        for name in names:
            if name in self._heads:
                heads[name] = heads_values(snapshot.header.heads.get(self._heads[name], ()))
                continue
            entry = self._datasets[name]
            is_dense = entry.kind == "stream" and entry.dataset == "blocks"
            if is_dense and (last := snapshot.last_block(entry.dataset_uuid)) is not None:
                last_blocks[name] = last
        return Tips(heads, last_blocks)

    def reads(self, named: Mapping[str, Reads]) -> dict[UUID, Reads]:
        """Return what is needed by dataset. A derived dataset may be needed whole, because the numbers and times of its
        rows need not be those of its version.
        """
        found: dict[UUID, Reads] = {}
        for name, reads in named.items():
            if name in self._heads:
                continue
            entry = self._datasets[name]
            needed = reads if entry.kind == "stream" else Reads()
            other = found.get(entry.dataset_uuid)
            found[entry.dataset_uuid] = needed if other is None else needed.united(other)
        return found

    def relations(self, names: Iterable[str], opened: Opened) -> list[Relation]:
        """Return the relations of these names with their files and hot rows."""
        return [
            Relation(name, HEADS_COLUMNS, (), hot=heads_rows(opened.header.heads.get(self._heads[name], ())))
            if name in self._heads
            else self._relation(name, self._datasets[name], opened)
            for name in names
        ]

    def _relation(self, name: str, entry: VisibleDataset, opened: Opened) -> Relation:
        found = opened.files[entry.dataset_uuid]
        columns = self._columns[entry.dataset_uuid]
        hashed = [file for file in found.layout_files if found.hashes and file.index_key and file.blocks]
        others = [file for file in found.layout_files if file not in hashed]
        known = relation(name, columns, others, self._access)
        uris = Uris(self._access.uri(""), found.names)
        return replace(
            known,
            uris=[*uris, *known.uris] if known.uris else uris,
            lookup=_lookup(hashed, found.hashes, self._access) if hashed else None,
            hot=opened.hot.get(entry.dataset_uuid),
            cut=_cut(opened.cuts.get(entry.chain_id, Cut()), columns),
        )


def _cut(cut: Cut, columns: Columns) -> RowCut:
    """Return the cut of a relation with these columns; a derived dataset may lack those to cut by."""
    names = {name for name, _ in columns}
    block = cut.block if "block_number" in names else None
    time = cut.time if BLOCK_TIMESTAMP in names else None
    return RowCut(block, None if time is None else microseconds(time))


def _lookup(files: Sequence[LakeFile], hashes: Iterable[bytes], access: S3Access) -> HashLookup:
    indexes = dict.fromkeys(access.uri(file.index_key) for file in files if file.index_key)
    spans = [
        HashedFile(access.uri(file.key), file.blocks.start, file.blocks.end - 1, _intervals(file.masked))
        for file in files
        if file.blocks
    ]
    return HashLookup(tuple(sorted(value.hex() for value in hashes)), tuple(indexes), tuple(spans))


def _intervals(masked: Iterable[BlockRange]) -> Blocks:
    return tuple((each.start, each.end - 1) for each in masked)


def relation(name: str, columns: Columns, files: Sequence[LakeFile], access: S3Access) -> Relation:
    """Return a relation over these files, without their masked blocks."""
    plain = tuple(access.uri(file.key) for file in files if not file.masked)
    groups = _masked_groups([file for file in files if file.masked])
    masked = tuple(
        MaskedFiles(
            tuple(access.uri(file.key) for file in group),
            tuple(each for file in group for each in _intervals(file.masked)),
        )
        for group in groups
    )
    return Relation(name, columns, plain, masked)


def _masked_groups(files: Sequence[LakeFile]) -> list[list[LakeFile]]:
    """Return the files in few groups, in each of which no file has rows that are masked in another one only."""
    groups: list[list[LakeFile]] = []
    for file in files:
        for group in groups:
            masks = sum(len(each.masked) for each in group) + len(file.masked)
            if masks <= _MAX_MASKS and all(_are_apart(file, other) for other in group):
                group.append(file)
                break
        else:
            groups.append([file])
    return groups


def _are_apart(file: LakeFile, other: LakeFile) -> bool:
    if file.blocks is None or other.blocks is None:
        return file.masked == other.masked
    pairs = [(other.blocks, each) for each in file.masked] + [(file.blocks, each) for each in other.masked]
    return all(blocks.end <= masked.start or masked.end <= blocks.start for blocks, masked in pairs)


def _has_columns(entry: VisibleDataset) -> bool:
    return entry.kind == "stream" or entry.schema is not None


def _columns(entry: VisibleDataset) -> Columns:
    if entry.kind == "stream":
        schema = dataset(entry.dataset).schema(entry.columns or ())
        return [(field.name, duckdb_type(str(field.type))) for field in schema]
    return [(name, duckdb_type(kind)) for name, kind in entry.schema or ()]


def duckdb_type(arrow_type: str) -> str:
    """Return the DuckDB type of a Parquet column with this Arrow type; VARCHAR if the type is not known here."""
    if arrow_type.startswith("fixed_size_binary["):
        return "BLOB"
    if arrow_type.startswith("decimal128("):
        return arrow_type.replace("decimal128", "DECIMAL").replace(" ", "")
    return _TYPES.get(arrow_type, "VARCHAR")
