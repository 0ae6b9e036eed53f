"""Generates the tables of docs/datasets.md from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP, Dataset, catalogue
from trace_dagster.datasets.column_meanings import meaning

BEGIN, END = "<!-- columns: begin -->\n", "<!-- columns: end -->"
"""Comments around the tables in the document."""

_TYPES = {
    "bool": "boolean",
    "decimal128(38, 0)": "decimal(38,0)",
    "double": "double",
    "fixed_size_binary[20]": "binary(20)",
    "fixed_size_binary[32]": "binary(32)",
    "int64": "int64",
    "large_binary": "binary",
    "large_string": "text",
    "timestamp[us, tz=UTC]": "timestamp",
}
"""The names of types in the tables, by Arrow's."""


def columns_tables() -> str:
    """Return a section per dataset with one row per column, in stored order, in Markdown."""
    return "\n".join(section(known) for known in catalogue().values())


def section(known: Dataset) -> str:
    """Return the section of one dataset."""
    order = ", ".join(f"`{name}`" for name in known.natural_key)
    key = f"A row is identified by {order}." if order else "Rows have no key; they are in the order of blocks."
    rows = "".join(f"| {' | '.join(cells)} |\n" for cells in _rows(known))
    return f"## {known.name}\n\n{key}\n\n| column | type | stored | null | meaning |\n|---|---|---|---|---|\n{rows}"


def with_tables(text: str) -> str:
    """Return a document in which the tables replace the text between BEGIN and END."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{columns_tables()}\n{END}{tail}"


def _rows(known: Dataset) -> Iterator[tuple[str, ...]]:
    always, default = known.stored_columns(()), known.stored_columns()
    never_null = {"block_number", BLOCK_TIMESTAMP, "chain_id", *known.natural_key}
    for field in known.schema(known.storable_columns):
        stored = "always" if field.name in always else "default" if field.name in default else "if named"
        null = "never" if field.name in never_null else ""
        yield f"`{field.name}`", _TYPES[str(field.type)], stored, null, meaning(known.name, field.name)
