"""The dataset catalogue: the columns that a stream may name, and those it stores."""

import pytest

from trace_dagster.datasets.catalogue import catalogue, dataset
from trace_dagster.errors import InvalidInput


def test_every_dataset_has_block_numbers_and_a_stored_key():
    for found in catalogue().values():
        stored = found.stored_columns()
        assert "block_number" in stored
        assert set(found.natural_key) <= set(stored)
        assert [field.name for field in found.schema(stored)] == list(stored)


def test_blocks_always_store_what_neighbours_are_checked_against():
    assert {"block_hash", "parent_hash", "receipts_root", "logs_bloom"} <= set(
        dataset("blocks").stored_columns(["author"])
    )


def test_asked_columns_come_in_schema_order_with_the_key():
    assert dataset("logs").stored_columns(["data", "address"]) == (
        "block_number",
        "block_timestamp",
        "log_index",
        "address",
        "data",
    )


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InvalidInput, match="did you mean 'transactions'"):
        dataset("transaction")
    with pytest.raises(InvalidInput, match="did you mean 'topic0'"):
        dataset("logs").stored_columns(["topic_0"])
