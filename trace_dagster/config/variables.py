"""Generates the table of environment variables in docs/operations.md from the settings tree."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dagster.config.rpc_pools import PoolVariables
from trace_dagster.config.settings import fields
from trace_dagster.rpc.pools import variable_of

BEGIN, END = "<!-- variables: begin -->", "<!-- variables: end -->"
"""Comments around the table in the document."""


def variables_table() -> str:
    """Return the table in Markdown: a row per variable, internal ones left out."""
    rows = "".join(f"| `{variable}` | {meaning} |\n" for variable, meaning in _rows())
    return f"| variable | meaning |\n|---|---|\n{rows}"


def with_table(text: str) -> str:
    """Return a document in which the table replaces the text between BEGIN and END."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{variables_table()}{END}{tail}"


def _rows() -> Iterator[tuple[str, str]]:
    for field in PoolVariables.model_fields.values():
        yield variable_of("<NAME>", str(field.alias)), str(field.description)
    for variable, field in fields():
        if not field.json_schema_extra:
            yield variable, str(field.description)
