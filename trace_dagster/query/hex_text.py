"""Texts like '0xddf2' that are compared with a binary column: they become the bytes that they show.

DuckDB casts such a text to a BLOB of its characters, so the comparison finds no row and reports no error. The plan of
the query over empty tables shows which texts are cast.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.protocol import Columns
from trace_dagster.query.syntax import HARDENED, Node, node_type, objects, quoted, text_constant, text_of

_HEX = re.compile(r"0[xX][0-9a-fA-F]*")
_BARE = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_MARK = "hex text {:06d}"
_MARKED = re.compile(r"'hex text (\d{6})'")
_ADVICE = "write the bytes as unhex('ab12'), without 0x"


def empty_tables(shapes: Mapping[str, Columns]) -> duckdb.DuckDBPyConnection:
    """Return a connection with an empty table for each relation: queries can be planned there, without any file."""
    connection = duckdb.connect(config={**HARDENED, "memory_limit": "256MiB", "threads": "1"})
    for name, columns in shapes.items():
        schema, _, table = name.rpartition(".")
        if schema:
            connection.execute(f"create schema if not exists {quoted(schema)}")
        body = ", ".join(f"{quoted(column)} {kind}" for column, kind in columns)
        connection.execute(f"create table {quoted(schema or 'main')}.{quoted(table)} ({body})")
    for setting in ("explain_output = 'all'", "enable_external_access = false", "lock_configuration = true"):
        connection.execute(f"set {setting}")
    return connection


def read_as_bytes(tree: Node, planner: duckdb.DuckDBPyConnection, parser: duckdb.DuckDBPyConnection) -> bool:
    """Replace texts that start with 0x by their bytes where a BLOB is expected; return whether there was one.

    ``planner`` has the tables of the query, empty. Raises InvalidInput with the right form if a text cannot be
    replaced: an odd number of digits, no 0x, or a text that another part of the query makes.
    """
    constants = [node for node in objects(tree) if _is_candidate(node)]
    if not constants and not _mentions_text(tree):
        return False
    texts = [str(text_constant(node)) for node in constants]
    for number, node in enumerate(constants):
        node["value"]["value"] = _MARK.format(number)
    casts = list(_blob_casts(_plan(tree, planner, parser)))
    for node, text in zip(constants, texts, strict=True):
        node["value"]["value"] = text
    used = {int(found[1]) for cast in casts if (found := _MARKED.fullmatch(cast))}
    _refuse_others(casts, texts, tree)
    for number in used:
        _replace(constants[number], texts[number])
    return bool(used)


def _is_candidate(node: Node) -> bool:
    text = text_constant(node)
    return text is not None and (_HEX.fullmatch(text) or _BARE.fullmatch(text)) is not None


def _mentions_text(tree: Node) -> bool:
    """Return whether the query has a text constant at all; without one no text is compared with a BLOB by mistake."""
    return any((text_constant(node) or "")[:2].lower() == "0x" for node in objects(tree))


def _plan(tree: Node, planner: duckdb.DuckDBPyConnection, parser: duckdb.DuckDBPyConnection) -> str:
    """Return the texts of the plan before it is optimized, or an empty text if the query cannot be planned here.

    A query that is wrong gets its error when it runs.
    """
    try:
        rows = planner.execute(f"explain (format json) {text_of(tree, parser)}").fetchall()
    except duckdb.Error:
        return ""
    plan = json.loads(next(text for name, text in rows if name == "logical_plan"))
    return "\n".join(_strings([node.get("extra_info") for node in objects(plan)]))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))


def _blob_casts(plan: str) -> Iterator[str]:
    """Yield the argument of every cast to BLOB, or to a type that contains one, in the plan's text."""
    for begin in re.finditer(r"CAST\(", plan):
        argument, kind = _split_cast(plan, begin.end())
        if kind == "BLOB":
            yield argument
        elif "BLOB" in kind and _MARKED.search(argument):
            yield f"({argument})"


def _split_cast(plan: str, start: int) -> tuple[str, str]:
    """Return (argument, type) of the cast whose argument begins at ``start``."""
    depth, at, quoted = 0, start, False
    while at < len(plan):
        character = plan[at]
        if character == "'":
            quoted = not quoted
        elif not quoted and character == "(":
            depth += 1
        elif not quoted and character == ")":
            if depth == 0:
                break
            depth -= 1
        at += 1
    argument, _, kind = plan[start:at].rpartition(" AS ")
    return argument, kind


def _refuse_others(casts: list[str], texts: list[str], tree: Node) -> None:
    explicit = any(
        node_type(node) == "OPERATOR_CAST" and (node.get("cast_type") or {}).get("id") == "BLOB"
        for node in objects(tree)
    )
    for cast in casts:
        found = _MARKED.fullmatch(cast)
        if found and not _HEX.fullmatch(texts[int(found[1])]):
            raise InvalidInput(f"the text {texts[int(found[1])][:80]!r} is compared with a binary value: {_ADVICE}")
        if not found and not cast.startswith("'") and not explicit:
            raise InvalidInput(f"a text is compared with a binary value: {_ADVICE}, or unhex(substr(x, 3)) of a column")


def _replace(node: Node, text: str) -> None:
    """Make a constant the call ``unhex('...')``, in place."""
    if len(text) % 2:
        raise InvalidInput(f"the hex text {text[:80]!r} has an odd number of digits")
    constant = {
        "class": "CONSTANT",
        "type": "VALUE_CONSTANT",
        "alias": "",
        "query_location": node["query_location"],
        "value": {**node["value"], "value": text[2:]},
    }
    alias = node["alias"]
    node.clear()
    node |= {
        "class": "FUNCTION",
        "type": "FUNCTION",
        "alias": alias,
        "query_location": constant["query_location"],
        "function_name": "unhex",
        "schema": "",
        "children": [constant],
        "filter": None,
        "order_bys": {"type": "ORDER_MODIFIER", "orders": []},
        "distinct": False,
        "is_operator": False,
        "export_state": False,
        "catalog": "",
    }
