"""Prints the answer of a query: rows on stdout, and on stderr what they were made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from trace_dagster.cli.snapshot_lines import snapshot_lines
from trace_dagster.cli.tables import Column, print_line, print_table

_NUMBERS = {"BIGINT", "INTEGER", "UBIGINT", "UINTEGER", "HUGEINT", "UHUGEINT", "DOUBLE", "BIGNUM", "SMALLINT"}


def print_answer(answer: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the rows as JSON or as a table; the snapshot is a member of the JSON, or some lines on stderr.

    ``answer`` is what ``query/render.py`` returns, or what a service sent.
    """
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    rows: Sequence[Sequence[object]] = answer["rows"]
    columns: list[Column] = [
        (each["name"], "right" if _is_number(each["type"]) else "left") for each in answer["columns"]
    ]
    print_table(columns, ([_text(item) for item in row] for row in rows))
    print_snapshot(answer.get("snapshot") or {})
    if answer["truncated"]:
        print_line(f"only the first {len(rows):,} rows: see --limit", console=Console(stderr=True))


def print_snapshot(snapshot: Mapping[str, Any]) -> None:
    """Print to stderr what an answer was made of, if there is something to say."""
    for line in snapshot_lines(snapshot):
        print_line(line, console=Console(stderr=True))


def _is_number(kind: str) -> bool:
    return kind in _NUMBERS or kind.startswith("DECIMAL(")


def _text(item: object) -> str:
    """Return a cell: a text and a number as they are, and other values as JSON."""
    match item:
        case None:
            return ""
        case bool() | list() | dict():
            return json.dumps(item, ensure_ascii=False)
    return str(item)
