"""Copies hot rows into their tables, and deletes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import HOT_DATASETS
from trace_dagster.registry.connection import Session
from trace_dagster.registry.hot_types import HotBlock, HotRows
from trace_dagster.registry.queries import query

_COPY = {"blocks": "copy_hot_blocks", "transactions": "copy_hot_transactions", "logs": "copy_hot_logs"}
_DELETE = {"blocks": "delete_hot_blocks", "transactions": "delete_hot_transactions", "logs": "delete_hot_logs"}


class HotTables:
    """The tables of hot rows, whose columns are read once."""

    def __init__(self) -> None:
        self._columns: dict[str, dict[str, str]] = {}

    def columns(self, session: Session, source: str) -> dict[str, str]:
        """Return the type of each column of a dataset's table, in the order in which COPY takes them."""
        if not self._columns:
            found: dict[str, dict[str, str]] = {}
            for row in session.all("hot_columns", tables=list(HOT_DATASETS)):
                found.setdefault(row["table_name"], {})[row["column_name"]] = row["type_name"]
            self._columns = found
        return self._columns[source]

    def copy(self, session: Session, source: str, dataset_uuid: UUID, blocks: Sequence[HotBlock]) -> None:
        """Store the rows that blocks have of a dataset.

        Raises ValueError for a column that the table lacks, or for a row of another block.
        """
        columns = self.columns(session, source)
        with session.connection.cursor() as cursor, cursor.copy(query(_COPY[source])) as copy:
            copy.set_types(list(columns.values()))
            for block in blocks:
                for row in _table_rows(tuple(columns), dataset_uuid, block):
                    copy.write_row(row)


def _table_rows(columns: tuple[str, ...], dataset_uuid: UUID, block: HotBlock) -> Iterator[list[Any]]:
    """Return a block's rows with the table's columns. Number, hash and time are the block's, not those in the rows."""
    found = block.rows[dataset_uuid]
    unknown = set(found.columns).difference(columns)
    if unknown:
        raise ValueError(f"hot rows have no columns {sorted(unknown)}")
    known = {
        "dataset_uuid": dataset_uuid,
        "block_number": block.number,
        "block_hash": block.hash,
        "block_timestamp": block.timestamp,
    }
    places = [found.columns.index(name) if name in found.columns else None for name in columns]
    fixed = [known.get(name) for name in columns]
    _require_own(found, block)
    for row in found.rows:
        yield [
            fixed_value if fixed_value is not None or place is None else row[place]
            for fixed_value, place in zip(fixed, places, strict=True)
        ]


def _require_own(found: HotRows, block: HotBlock) -> None:
    """Raise ValueError if a row names another block than its own."""
    for name, expected in (("block_number", block.number), ("block_hash", block.hash)):
        if name in found.columns:
            place = found.columns.index(name)
            if any(row[place] != expected for row in found.rows):
                raise ValueError(f"a hot row of block {block.number} has another {name}")


def multirange(ranges: Sequence[BlockRange]) -> str:
    """Return ranges as the text of a Postgres ``int8multirange``."""
    return "{" + ",".join(f"[{each.start},{each.end})" for each in ranges) + "}"


def block_ranges(found: Any) -> tuple[BlockRange, ...]:
    """Return a multirange of the registry as block ranges."""
    return tuple(BlockRange(each.lower, each.upper) for each in found or ())


def delete_rows(session: Session, source: str, dataset_uuid: UUID, ranges: Sequence[BlockRange]) -> None:
    """Delete the hot rows of these blocks, and take the blocks from those that are hot."""
    for each in ranges:
        session.run(_DELETE[source], dataset_uuid=dataset_uuid, range_start=each.start, range_end=each.end)
    session.run("remove_hot_blocks", dataset_uuid=dataset_uuid, blocks=multirange(ranges))
