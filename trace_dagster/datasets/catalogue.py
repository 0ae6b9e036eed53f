"""What Cryo can extract, by dataset name: columns, Arrow types, natural keys.

The column table ``cryo_0_3.json`` is what Cryo 0.3.2 returns with ``include_columns=["all"]``; the
acceptance tests compare it with the engine itself. Datasets that need a contract or call argument
(``balances``, ``eth_calls``, ``slots``, ...) are not block-range streams and are not listed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from trace_dagster.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

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
"""Stored beside Cryo's defaults: what it takes to prove the rows later, offline."""

_REQUIRED: dict[str, tuple[str, ...]] = {
    "blocks": ("block_hash", "parent_hash", "transactions_root", "receipts_root", "logs_bloom"),
}
"""Stored whatever ``columns`` says: neighbours are checked against them."""

_RECEIPT_COLUMNS: dict[str, tuple[str, ...]] = {"transactions": ("gas_used", "success")}
"""Columns for which Cryo fetches the receipts of every block."""

_BY_LOG_QUERY = frozenset({"logs", "erc20_transfers", "erc721_transfers"})
"""Read with eth_getLogs over several blocks at once; every other dataset asks block by block."""

_CALLS_PER_BLOCK: dict[str, int] = {
    "blocks": 1,  # eth_getBlockByNumber
    "transactions": 1,  # and eth_getBlockReceipts, for _RECEIPT_COLUMNS
    "address_appearances": 3,  # a block, its logs, its traces
    **dict.fromkeys(("contracts", "native_transfers", "traces", "vm_traces"), 1),
}
_MOST_CALLS_PER_BLOCK = 2
"""Every other dataset: a trace of the block, and the block for its transactions' hashes; counted at a node."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One kind of rows Cryo knows."""

    name: str
    all_columns: dict[str, str]
    """The Arrow type of each column, as Arrow writes it."""
    default_columns: tuple[str, ...]

    @property
    def natural_key(self) -> tuple[str, ...]:
        """Columns that name a row and give the stored order; empty where Cryo has no such key."""
        return _NATURAL_KEYS.get(self.name, ())

    @property
    def checked_columns(self) -> tuple[str, ...]:
        """Columns verification reads; extraction always asks for them."""
        wanted = {
            "block_number",
            "chain_id",
            "transaction_index",
            *self.natural_key,
            *_REQUIRED.get(self.name, ()),
        }
        return tuple(name for name in self.all_columns if name in wanted)

    def stored_columns(self, asked: Sequence[str] | None = None) -> tuple[str, ...]:
        """Columns a stream stores, in schema order.

        Raises InvalidInput for a column the dataset does not have.
        """
        if asked is None:
            wanted = {*self.default_columns, *_ALWAYS.get(self.name, ())}
        else:
            for column in asked:
                if column not in self.all_columns:
                    raise InvalidInput(
                        f"dataset {self.name} has no column {column!r}{_nearest(column, self.all_columns)}"
                    )
            wanted = {*asked, "block_number", *self.natural_key, *_REQUIRED.get(self.name, ())}
        return tuple(name for name in self.all_columns if name in wanted)

    @property
    def is_queried_by_span(self) -> bool:
        """Whether one request can bring the rows of many blocks: eth_getLogs."""
        return self.name in _BY_LOG_QUERY

    @property
    def receipt_columns(self) -> tuple[str, ...]:
        """Columns for which Cryo fetches the receipts of every block, beside what it fetches anyway."""
        return _RECEIPT_COLUMNS.get(self.name, ())

    def takes_receipts(self, columns: Collection[str]) -> bool:
        """Whether one of these columns is among them."""
        return not {*self.receipt_columns}.isdisjoint(columns)

    def most_calls(self, blocks: int, inner_request_blocks: int, columns: Collection[str] | None = None) -> int:
        """JSON-RPC calls Cryo makes for rows of so many consecutive blocks, at most, where nothing fails.

        ``columns`` are those it is asked for; all of them unless given.
        """
        if self.is_queried_by_span:
            return -(-blocks // inner_request_blocks)
        receipts = self.takes_receipts(self.all_columns if columns is None else columns)
        return (_CALLS_PER_BLOCK.get(self.name, _MOST_CALLS_PER_BLOCK) + receipts) * blocks

    def schema(self, columns: Sequence[str]) -> pa.Schema:
        """The Arrow schema of ``columns`` as stored: Cryo's own names and types."""
        import pyarrow as pa  # what a dataset holds is known without Arrow

        types = _arrow_types()
        return pa.schema([pa.field(name, types[self.all_columns[name]]) for name in columns])


def dataset(name: str) -> Dataset:
    """Look up a dataset. Raises InvalidInput, with the nearest known name, when Cryo has no such dataset."""
    known = catalogue()
    if name not in known:
        raise InvalidInput(f"the engine knows no dataset {name!r}{_nearest(name, known)}")
    return known[name]


@cache
def catalogue() -> dict[str, Dataset]:
    """Every dataset that can be a stream, by name."""
    table = json.loads(files(__package__).joinpath("cryo_0_3.json").read_text())
    return {
        name: Dataset(
            name=name,
            all_columns=entry["columns"],
            default_columns=tuple(entry["default"]),
        )
        for name, entry in sorted(table.items())
    }


@cache
def _arrow_types() -> dict[str, pa.DataType]:
    import pyarrow as pa

    types = (pa.bool_(), pa.float64(), pa.large_binary(), pa.large_string(), pa.uint32(), pa.uint64())
    return {str(each): each for each in (*types, pa.large_list(pa.large_string()))}


def _nearest(name: str, known: object) -> str:
    options = list(known)  # type: ignore[call-overload]
    close = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(options))}"
