"""Texts like '0xddf2' that are compared with a binary column: they become the bytes that they show.

DuckDB casts such a text to a BLOB of its characters, so the comparison finds no row and reports no error. The plan of
the query over empty tables shows which texts are cast, at which position of the SQL.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.syntax import Node, Statement, node_type, objects, parse, text_constant

_HEX = re.compile(r"0[xX][0-9a-fA-F]*")
_BARE = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")
_SHOWN = re.compile(r"'0[xX]([0-9a-fA-F]*)'")
_LITERAL = re.compile(_SHOWN.pattern.encode())
_MOST_LISTS = 20
_ADVICE = "write the bytes as 0xab12, without quotes"
_OF_COLUMN = f"a text is compared with a binary value: {_ADVICE}, or unhex(substr(x, 3)) of a column"


def with_bytes(statement: Statement, planner: duckdb.DuckDBPyConnection) -> str:
    """Return the statement's text with ``unhex('..')`` for every text that starts with 0x and is used as a BLOB.

    ``planner`` has the tables of the query, empty. Raises InvalidInput with the right form if a text cannot be
    replaced: an odd number of digits, no 0x, another way of quoting, or a text that another part of the query makes.
    """
    if not _texts(statement):
        return statement.text
    again, plan = _with_bytes_in_lists(statement, planner)
    texts, casts = _texts(again), list(_implicit_casts(again, plan))
    _require_texts(casts, texts)
    used = {cast["child"]["query_location"] for cast in casts if _is_text(cast["child"], texts)}
    if not used:
        return again.text
    again = _replaced(again, _equal(used, again), planner)
    casts = list(_implicit_casts(again, _planned(again.text, planner)))
    _require_texts(casts, _texts(again))  # no text column meets the bytes
    return again.text


def _texts(statement: Statement) -> dict[int, Node]:
    return {node["query_location"]: node for node in objects(statement.tree) if _is_candidate(node)}


def bytes_shown(text: str) -> str:
    """Return the text of an expression as it is when all hex texts in it have become bytes."""
    return _SHOWN.sub(r"unhex('\1')", text)


def _is_candidate(node: Node) -> bool:
    text = text_constant(node)
    return text is not None and (_HEX.fullmatch(text) or _BARE.fullmatch(text)) is not None


def _planned(text: str, planner: duckdb.DuckDBPyConnection) -> Node:
    """Return the plan of a query, or DuckDB's error as an object. One that fails here fails when it runs, too."""
    try:
        row = planner.execute("select json_serialize_plan(?, optimize := false)", [text]).fetchone()
        plan: Node = json.loads(row[0]) if row else {}
    except (duckdb.Error, RecursionError):
        return {"error": True}
    return plan


def _with_bytes_in_lists(statement: Statement, planner: duckdb.DuckDBPyConnection) -> tuple[Statement, Node]:
    """Return the statement with bytes in the lists of such texts that are compared with a binary value, and its plan.

    DuckDB casts a text that is compared with a BLOB, but not the texts of a list: it names the place in its error.
    """
    again, plan = first = statement, _planned(statement.text, planner)
    for _ in range(_MOST_LISTS):
        if not plan.get("error"):
            return again, plan
        if not (places := _lists_at(again, str(plan.get("position")))):
            break
        again = _replaced(again, places, planner)
        plan = _planned(again.text, planner)
    return first


def _lists_at(statement: Statement, position: str) -> list[int]:
    """Return the positions of the texts of all lists that are compared at a position."""
    found: list[int] = []
    for node in objects(statement.tree):
        parts = [node, *_direct(node)]
        if "class" in node and any(str(each.get("query_location")) == position for each in parts):
            for each in objects(node) if node_type(node) == "SUBQUERY" else parts:
                if each.get("function_name") == "list_value":
                    found += _texts_of_list(each)
    return found


def _texts_of_list(node: Node) -> list[int]:
    """Return the positions of the hex texts of a list; none if it has other values beside NULL."""
    found = []
    for each in node["children"]:
        if _HEX.fullmatch(text_constant(each) or ""):
            found.append(each["query_location"])
        elif not (each.get("value") or {}).get("is_null"):
            return []
    return found


def _implicit_casts(statement: Statement, plan: Node) -> Iterator[dict[str, Any]]:
    """Yield the casts to a BLOB, or to a type that holds one, that DuckDB adds. None if the query cannot be planned."""
    written = {node["query_location"] for node in objects(statement.tree) if node_type(node) == "OPERATOR_CAST"}
    for node in objects(plan):
        if node.get("expression_class") != "BOUND_CAST" or node.get("query_location") in written:
            continue
        if '"BLOB"' in json.dumps(node.get("return_type")):
            yield node


def _require_texts(casts: Iterable[dict[str, Any]], texts: Mapping[int, Node]) -> None:
    """Raise InvalidInput if another value than a text of the query is cast, such as a column."""
    for cast in casts:
        if cast["child"].get("expression_class") != "BOUND_CONSTANT" and not _holds_no_text(cast, texts):
            raise InvalidInput(_OF_COLUMN)


def _is_text(child: dict[str, Any], texts: Mapping[int, Node]) -> bool:
    return child.get("expression_class") == "BOUND_CONSTANT" and child.get("query_location") in texts


def _holds_no_text(cast: dict[str, Any], texts: Mapping[int, Node]) -> bool:
    """Return whether a cast to a nested type has none of the texts in it: then another value is cast. The text in
    ``unhex('ab')`` is bytes already.
    """
    is_nested = cast["return_type"]["id"] != "BLOB"
    return is_nested and not any(_is_text(node, texts) for node in _within(cast, but=_is_binary))


def _is_binary(node: Node) -> bool:
    return bool((node.get("return_type") or {}).get("id") == "BLOB")


def _equal(used: set[int], statement: Statement) -> set[int]:
    """Return the positions of all texts in expressions that equal one of the used, within one SELECT: GROUP BY and
    ORDER BY bind equal ones once. In another SELECT the same words may name other columns.
    """
    groups = [group for scope in _scopes(statement.tree) for group in _equal_expressions(scope)]
    found, before = set(used), set[int]()
    while found != before:
        before = set(found)
        for group in groups:
            for same in zip(*group, strict=True):
                if not found.isdisjoint(same):
                    found.update(same)
    return found


def _equal_expressions(scope: Node) -> Iterator[list[list[int]]]:
    """Yield the positions of the texts in each of some equal expressions of a SELECT: in those that have a text
    themselves, and in whole subqueries.
    """
    groups = defaultdict(list)
    for node in _within(scope):
        is_subquery = node_type(node) == "SUBQUERY" and node.get("class") == "SUBQUERY"
        held = objects(node) if is_subquery else _direct(node)
        if texts := [each["query_location"] for each in held if _is_candidate(each)]:
            groups[_key(node)].append(texts)
    return (group for group in groups.values() if len(group) > 1)


def _scopes(tree: Node) -> Iterator[Node]:
    return (node for node in objects(tree) if _is_query(node))


def _is_query(node: Node) -> bool:
    return (node_type(node) or "").endswith("_NODE")


def _within(scope: Node, but: Callable[[Node], bool] = _is_query) -> Iterator[Node]:
    """Yield the objects within one, without those of the queries in it, or of others that ``but`` names."""
    waiting: list[Any] = list(scope.values())
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict) and not but(node):
            yield node
            waiting.extend(node.values())


def _direct(node: Node) -> Iterator[Node]:
    for value in node.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield each


def _key(node: Node) -> str:
    """Return the text of an expression without positions and names of its own."""
    return re.sub(r'"(query_location": \d+|alias": "[^"]*")', "", json.dumps(node))


def _replaced(statement: Statement, places: Iterable[int], planner: duckdb.DuckDBPyConnection) -> Statement:
    """Return the statement with the bytes of the texts at these positions."""
    texts = _texts(statement)
    text = _spliced(statement.text, {place: str(text_constant(texts[place])) for place in places})
    return Statement(text, parse(text, planner).tree, statement.explain)


def _spliced(text: str, found: Mapping[int, str]) -> str:
    data, pieces, end = text.encode(), [], 0
    for place in sorted(found):
        shown = found[place][:80]
        literal = _LITERAL.match(data, place)
        if literal is None or not _HEX.fullmatch(found[place]):
            raise InvalidInput(f"the text {shown!r} is compared with a binary value: {_ADVICE}")
        if len(literal[1]) % 2:
            raise InvalidInput(f"the hex text {shown!r} has an odd number of digits")
        pieces += [data[end:place], b"unhex('", literal[1], b"')"]
        end = literal.end()
    return b"".join([*pieces, data[end:]]).decode()
