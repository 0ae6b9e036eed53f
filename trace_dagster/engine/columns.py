"""Column names in Cryo's options, and the order of stored rows."""

from __future__ import annotations

from collections.abc import Collection

from trace_dagster.datasets.catalogue import Dataset

_U256_FORMS = ("binary", "string", "f64")
_U256_SUFFIXES = tuple(f"_{form}" for form in _U256_FORMS)


def row_order(dataset: Dataset) -> tuple[str, ...]:
    """Return the sort key of stored rows: the natural key without ``trace_address``.

    The sort is stable, so call frames keep Cryo's depth-first order.
    """
    key = tuple(column for column in dataset.natural_key if column != "trace_address")
    return key or ("block_number",)


def excluded_columns(dataset: Dataset, requested: Collection[str]) -> list[str]:
    """Return the default columns that Cryo must leave out: not requested, and each costs a receipts call per block."""
    return [column for column in dataset.receipt_columns if column not in requested]


def cryo_column(name: str) -> str:
    """Return the name in Cryo's column options. The binary, text and double columns of a uint256 share one name."""
    for suffix in _U256_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def u256_forms(dataset: Dataset, requested: Collection[str]) -> list[str]:
    """Return the forms of uint256 values that Cryo has to compute; it computes all three unless it is told."""
    if not any(name.endswith(_U256_SUFFIXES) for name in dataset.all_columns):
        return []
    return [form for form in _U256_FORMS if any(name.endswith(f"_{form}") for name in requested)] or ["binary"]
