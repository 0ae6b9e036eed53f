"""The datasets that Cryo can extract: columns, Arrow types, natural keys and calls per block.

The table ``cryo_0_3.json`` has the columns that Cryo 0.3.2 returns with ``include_columns=["all"]``; tests compare it
with the engine. Stored columns have other types (:mod:`~trace_dagster.datasets.lake_types`). Datasets that need a
contract or call argument (``balances``, ``eth_calls``, ``slots``, ...) cannot be streams of block ranges, so they are
not listed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from trace_dagster.datasets.lake_types import TIME_TYPE, arrow_types, lake_type
from trace_dagster.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_TIMESTAMP = "block_timestamp"
"""The column of every stream that Cryo does not give: when the row's block was made, by its header."""

_NATURAL_KEYS: dict[str, tuple[str, ...]] = {
    "blocks": ("block_number",),
    "transactions": ("block_number", "transaction_index"),
    "logs": ("block_number", "log_index"),
    "erc20_transfers": ("block_number", "log_index"),
    "erc721_transfers": ("block_number", "log_index"),
    "geth_calls": ("block_number", "transaction_index", "trace_address"),
    "native_transfers": ("block_number", "transfer_index"),
    "contracts": ("block_number", "create_index"),
}

_ALWAYS: dict[str, tuple[str, ...]] = {
    "blocks": ("parent_hash", "state_root", "transactions_root", "receipts_root", "logs_bloom", "size"),
    "logs": ("block_hash",),
    "transactions": ("block_hash",),
}
"""Columns stored in addition to Cryo's defaults, so that rows can be proven later without a node."""

_ONLY_IF_NAMED = ("_string", "_f64")
"""Endings of columns that repeat a uint256 in another form. A stream stores them only if ``columns`` names them."""

_REQUIRED: dict[str, tuple[str, ...]] = {
    "blocks": ("block_hash", "parent_hash", "transactions_root", "receipts_root", "logs_bloom", "timestamp"),
}
"""Columns stored even if the job's ``columns`` omits them: neighbouring ranges, and rows of other datasets, are checked
against them.
"""

_RECEIPT_COLUMNS: dict[str, tuple[str, ...]] = {"transactions": ("gas_used", "success")}
"""Columns for which Cryo fetches the receipts of every block."""

NATIVE_DATASETS = ("blocks", "transactions", "logs", "geth_calls")
"""Datasets whose rows our own decoder builds from proven evidence and traces (``engine: native``)."""

HOT_DATASETS = ("blocks", "transactions", "logs")
"""Datasets whose newest blocks the follower keeps as hot rows."""

NATIVE_LACKS: dict[str, tuple[str, ...]] = {"transactions": ("n_rlp_bytes",)}
"""Columns that only Cryo gives: evidence keeps no encoded transactions."""


_BY_LOG_QUERY = frozenset({"logs", "erc20_transfers", "erc721_transfers"})
"""Datasets read with eth_getLogs over several blocks per request. All others need requests per block."""

_CALLS_PER_BLOCK: dict[str, int] = {
    "blocks": 1,  # eth_getBlockByNumber
    "transactions": 1,  # and eth_getBlockReceipts, for _RECEIPT_COLUMNS
    "address_appearances": 3,  # a block, its logs, its traces
    **dict.fromkeys(("contracts", "native_transfers", "traces", "vm_traces"), 1),
}
_MOST_CALLS_PER_BLOCK = 2
"""For all other datasets: a trace of the block, and the block for its transaction hashes. Counted at a node."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset of Cryo, such as blocks or logs."""

    name: str
    all_columns: dict[str, str]
    """Cryo's Arrow type of each column, as Arrow prints it."""
    default_columns: tuple[str, ...]

    @property
    def natural_key(self) -> tuple[str, ...]:
        """Return the columns that identify a row and give the stored order; empty if Cryo has no such key."""
        return _NATURAL_KEYS.get(self.name, ())

    @property
    def checked_columns(self) -> tuple[str, ...]:
        """Return the columns that structural checks read, in schema order. Extraction always requests them."""
        names = {
            "block_number",
            "chain_id",
            "transaction_index",
            *self.natural_key,
            *_REQUIRED.get(self.name, ()),
        }
        return tuple(name for name in self.all_columns if name in names)

    def stored_columns(self, requested: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the columns that a stream stores, in schema order.

        Without ``requested`` these are Cryo's defaults, except for the text and double forms of uint256 values, and
        those needed to prove the rows. Otherwise they are the requested ones, block_number, the natural key and, for
        blocks, what other rows are checked against. block_timestamp is always one of them. Raises InvalidInput for a
        column the dataset does not have.
        """
        if requested is None:
            plain = (name for name in self.default_columns if not name.endswith(_ONLY_IF_NAMED))
            names = {*plain, *_ALWAYS.get(self.name, ())}
        else:
            for column in requested:
                if column not in self.storable_columns:
                    raise InvalidInput(f"dataset {self.name} has no column {_nearest(column, self.storable_columns)}")
            names = {*requested, "block_number", *self.natural_key, *_REQUIRED.get(self.name, ())}
        return tuple(name for name in self.storable_columns if name in names or name == BLOCK_TIMESTAMP)

    @property
    def storable_columns(self) -> tuple[str, ...]:
        """Return every column that a stream can store, in schema order: those of Cryo, and block_timestamp."""
        names = list(self.all_columns)
        names.insert(names.index("block_number") + 1, BLOCK_TIMESTAMP)
        return tuple(names)

    @property
    def is_queried_by_span(self) -> bool:
        """Return whether one request can return the rows of many blocks (eth_getLogs)."""
        return self.name in _BY_LOG_QUERY

    @property
    def receipt_columns(self) -> tuple[str, ...]:
        """Return the columns for which Cryo additionally fetches the receipts of every block."""
        return _RECEIPT_COLUMNS.get(self.name, ())

    def takes_receipts(self, columns: Collection[str]) -> bool:
        """Return whether Cryo needs receipts for these columns."""
        return not {*self.receipt_columns}.isdisjoint(columns)

    def most_calls(self, blocks: int, inner_request_blocks: int, columns: Collection[str] | None = None) -> int:
        """Return the most JSON-RPC calls that Cryo makes for this many consecutive blocks if none fails.

        ``columns`` are the requested columns, by default all of them.
        """
        if self.is_queried_by_span:
            return -(-blocks // inner_request_blocks)
        receipts = self.takes_receipts(self.all_columns if columns is None else columns)
        return (_CALLS_PER_BLOCK.get(self.name, _MOST_CALLS_PER_BLOCK) + receipts) * blocks

    def schema(self, columns: Sequence[str]) -> pa.Schema:
        """Return the Arrow schema of stored ``columns``: Cryo's names, the lake's types."""
        return _schema(self.stored_types(columns))

    def stored_types(self, columns: Sequence[str]) -> dict[str, str]:
        """Return the lake's types of stored ``columns`` by name, as Arrow prints them. This needs no Arrow."""
        types = {**self.all_columns, BLOCK_TIMESTAMP: TIME_TYPE}
        return {name: lake_type(self.name, name, types[name]) for name in columns}

    def engine_schema(self, columns: Sequence[str]) -> pa.Schema:
        """Return the Arrow schema of ``columns`` as Cryo gives them, without block_timestamp."""
        return _schema({name: self.all_columns[name] for name in columns if name != BLOCK_TIMESTAMP})


def dataset(name: str) -> Dataset:
    """Return a dataset by name. Raises InvalidInput, with the nearest known name, if there is no such dataset."""
    known = catalogue()
    if name not in known:
        raise InvalidInput(f"the engine knows no dataset {_nearest(name, known)}")
    return known[name]


@cache
def catalogue() -> dict[str, Dataset]:
    """Return all datasets that can be streams, by name."""
    table = json.loads(files(__package__).joinpath("cryo_0_3.json").read_text())
    return {
        name: Dataset(
            name=name,
            all_columns=entry["columns"],
            default_columns=tuple(entry["default"]),
        )
        for name, entry in sorted(table.items())
    }


def _schema(types: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa  # most users of this module do not need Arrow

    known = arrow_types()
    return pa.schema([pa.field(name, known[kind]) for name, kind in types.items()])


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return a wrong name and the one that it resembles, or only the known names: the wrong one might be a secret."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    return (
        f"{name!r}; did you mean {close[0]!r}?" if close else f"of this name (not shown); known: {', '.join(options)}"
    )


def can_be_hot(dataset_name: str, columns: Collection[str]) -> bool:
    """Return whether the newest blocks of a stream with these columns can be hot rows, which our decoder builds."""
    return dataset_name in HOT_DATASETS and not set(NATIVE_LACKS.get(dataset_name, ())).intersection(columns)
