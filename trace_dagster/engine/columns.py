"""How Cryo's options name columns, and the order rows are stored in."""

from __future__ import annotations

from collections.abc import Collection

from trace_dagster.datasets.catalogue import dataset

_U256_SUFFIXES = ("_binary", "_string", "_f64")


def row_order(name: str) -> tuple[str, ...]:
    """Sort key of stored rows: the natural key, but call frames stay in Cryo's depth-first order."""
    key = tuple(column for column in dataset(name).natural_key if column != "trace_address")
    return key or ("block_number",)


def left_out(name: str, wanted: Collection[str]) -> list[str]:
    """Columns Cryo gives unasked and is told to leave out: those that nobody wants and that cost it calls."""
    return [column for column in dataset(name).receipt_columns if column not in wanted]


def cryo_column(name: str) -> str:
    """The name Cryo's column options use: one for the three columns of a uint256."""
    for suffix in _U256_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
