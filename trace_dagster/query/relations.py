"""Converts the registry's datasets to the tables of a query session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa

from trace_dagster.datasets.catalogue import dataset
from trace_dagster.query.session import Relation
from trace_dagster.registry.catalog import VisibleDataset
from trace_dagster.store.access import S3Access


def relations(found: Sequence[tuple[VisibleDataset, Sequence[str]]], access: S3Access) -> Iterator[Relation]:
    """Yield ``chain_<id>.<dataset_key>`` for each dataset, and ``<dataset_key>`` as well if only one chain has it.

    ``found`` contains the visible datasets, each with the object keys of its files. A derived dataset whose
    columns are not known yet is left out.
    """
    current = {(entry.chain_id, entry.dataset_key): (entry, keys) for entry, keys in found if _has_columns(entry)}
    chains = Counter(key for _, key in current)
    for (chain_id, key), (entry, file_keys) in current.items():
        uris = tuple(access.uri(file_key) for file_key in file_keys)
        schema = _schema(entry)
        yield Relation(f"chain_{chain_id}.{key}", schema, uris)
        if chains[key] == 1:
            yield Relation(key, schema, uris)


def _has_columns(entry: VisibleDataset) -> bool:
    return entry.kind == "stream" or entry.schema is not None


def _schema(entry: VisibleDataset) -> pa.Schema:
    if entry.kind == "stream":
        return dataset(entry.dataset).schema(entry.columns or ())
    return pa.schema([pa.field(name, pa.string()) for name, _ in entry.schema or ()])
