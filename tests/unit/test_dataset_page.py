"""docs/datasets.md is the catalogue's."""

from pathlib import Path

import pytest

from trace_dagster.datasets.catalogue import catalogue
from trace_dagster.datasets.column_meanings import _MEANINGS, meaning
from trace_dagster.datasets.columns_table import section, with_tables

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"


def test_the_page_is_the_one_of_the_catalogue():
    text = PAGE.read_text()
    assert with_tables(text) == text, "run `make docs-tables`"


@pytest.mark.parametrize("known", catalogue().values(), ids=lambda known: known.name)
def test_every_column_is_a_row_with_a_meaning(known):
    rows = [line.split(" | ") for line in section(known).splitlines() if line.startswith("| `")]
    assert [cells[0].strip("| `") for cells in rows] == list(known.storable_columns)
    assert all(len(cells) == 5 and len(cells[-1]) > 4 for cells in rows)


def test_no_meaning_is_of_a_column_that_no_dataset_has():
    used = {meaning(known.name, column) for known in catalogue().values() for column in known.storable_columns}
    assert [key for key, text in _MEANINGS.items() if not any(each.startswith(text) for each in used)] == []


def test_columns_say_when_they_are_stored_and_whether_they_are_ever_null():
    rows = section(catalogue()["transactions"]).splitlines()
    assert "| `block_number` | int64 | always | never | height of the block |" in rows
    assert "| `block_timestamp` | timestamp | always | never | time of the block |" in rows
    assert "| `gas_price` | decimal(38,0) | default |  | wei paid per unit of gas |" in rows
    assert "| `value_string` | text | if named |  | wei sent, as decimal text |" in rows
