"""Converts the registry's datasets to the tables of a query session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from trace_dagster.datasets.catalogue import dataset
from trace_dagster.query.protocol import Columns, Relation
from trace_dagster.registry.catalog import LakeFile, VisibleDataset
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


def relations(found: Sequence[tuple[VisibleDataset, Sequence[LakeFile]]], access: S3Access) -> Iterator[Relation]:
    """Yield ``chain_<id>.<dataset_key>`` for each dataset, and ``<dataset_key>`` as well if only one chain has it.

    ``found`` contains the visible datasets, each with its files. A derived dataset whose
    columns are not known yet is left out.
    """
    current = {(entry.chain_id, entry.dataset_key): (entry, files) for entry, files in found if _has_columns(entry)}
    chains = Counter(key for _, key in current)
    for (chain_id, key), (entry, files) in current.items():
        uris = tuple(access.uri(file.key) for file in files)
        columns = _columns(entry)
        yield Relation(f"chain_{chain_id}.{key}", columns, uris)
        if chains[key] == 1:
            yield Relation(key, columns, uris)


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
