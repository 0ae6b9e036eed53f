"""PIVOT without a list of values: a checked query of our own finds the values, and the statement gets a static list.

DuckDB runs such a PIVOT as two statements, the first of which creates a type. A query session runs one SELECT only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.syntax import Node, node_type

MAX_VALUES = 500
"""Most columns that one PIVOT expression makes."""
_PLACEHOLDER = "\0"
_KEYWORDS = frozenset({"pivot", "pivot_wider"})
_ENDS = frozenset({"using", "group", "order", "limit", "offset", "union", "except", "intersect", ";", ")"})
_OPENING, _CLOSING = frozenset({"(", "[", "{", "case"}), frozenset({")", "]", "}", "end"})


_VALUES = "select distinct x::varchar from t where x is not null order by 1"


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int


def with_placeholders(sql: str, mark: str) -> str:
    """Return the SQL with a list of one placeholder for each PIVOT expression that has no list of values.

    ``mark`` is a text that the SQL does not contain; a placeholder is the mark and a number.
    """
    data = sql.encode(errors="replace")
    tokens = _tokens(data)
    edits = [edit for at, token in enumerate(tokens) if token.text in _KEYWORDS for edit in _edits(tokens, at)]
    for number, (at, text) in reversed(list(enumerate(sorted(edits, key=lambda edit: edit[0])))):
        data = data[:at] + text.replace(_PLACEHOLDER, f"{mark} {number}").encode() + data[at:]
    return data.decode()


def value_queries(tree: Node, mark: str, template: Callable[[str], Node]) -> Iterator[tuple[str, Node]]:
    """Yield each placeholder in the tree, with the tree of the query for its values. Inner PIVOTs come first.

    The source and the expression of a query are parts of the tree; ``template`` parses SQL of our own.
    """
    for node, tables in _pivots(tree):
        for pivot in node.get("pivots") or ():
            placeholder = _placeholder(pivot, mark)
            if placeholder is not None:
                yield placeholder, _values_query(node, pivot, tables, template)


def with_values(sql: str, placeholder: str, values: Sequence[str]) -> str:
    """Return the SQL with the values in place of the placeholder. Raises InvalidInput for more than MAX_VALUES.

    Without values the list has one name that no row has: a PIVOT over no rows has no rows.
    """
    if len(values) > MAX_VALUES:
        raise InvalidInput(f"a PIVOT over more than {MAX_VALUES} values: aggregate, or write IN (...)")
    literals = ", ".join("'" + value.replace("'", "''") + "'" for value in values or ["no value"])
    return sql.replace(f"'{placeholder}'", literals)


def _tokens(data: bytes) -> list[_Token]:
    """Return DuckDB's tokens in lower case, without comments. Its tokenizer gives starts only."""
    try:
        places = duckdb.tokenize(data.decode())
    except duckdb.Error:
        return []
    starts = [start for start, _ in places]
    spans = zip(starts, [*starts[1:], len(data)], places, strict=True)
    kinds = [
        (_Token(data[start:end].decode(errors="replace").strip().lower(), start, end), kind)
        for start, end, (_, kind) in spans
    ]
    return [token for token, kind in kinds if "comment" not in str(kind).lower()]


def _edits(tokens: list[_Token], at: int) -> Iterator[tuple[int, str]]:
    """Yield (position, text to insert) for the PIVOT keyword at ``at``."""
    begin = _find(tokens, at + 1, frozenset({"on"}))
    if begin is None or _is_standard(tokens, at):
        return
    first = begin + 1
    while first < len(tokens):
        last = _find(tokens, first, _ENDS | {","})
        last = len(tokens) if last is None else last
        item = tokens[first:last]
        if not item:
            return
        if not any(token.text == "in" for token in _outermost(item)):
            yield item[0].start, "("
            yield item[-1].end, f"\n) IN ('{_PLACEHOLDER}') "  # on a new line: a comment may end the item
        if last == len(tokens) or tokens[last].text != ",":
            return
        first = last + 1


def _find(tokens: list[_Token], first: int, texts: frozenset[str]) -> int | None:
    """Return the index of the next token of ``texts`` at the depth of ``first``; None if the depth ends before."""
    depth = 0
    for index in range(first, len(tokens)):
        text = tokens[index].text
        if depth == 0 and text in texts:
            return index
        if text in _OPENING:
            depth += 1
        elif text in _CLOSING:
            depth -= 1
            if depth < 0:
                return None
    return None


def _outermost(tokens: list[_Token]) -> Iterator[_Token]:
    depth = 0
    for token in tokens:
        if token.text in _CLOSING:
            depth -= 1
        if depth == 0:
            yield token
        if token.text in _OPENING:
            depth += 1


def _is_standard(tokens: list[_Token], at: int) -> bool:
    """Return whether this is ``FROM t PIVOT (... FOR c IN (...))``, which always has a list."""
    return at + 2 < len(tokens) and tokens[at + 1].text == "(" and _find(tokens, at + 2, frozenset({"for"})) is not None


def _pivots(tree: Any) -> Iterator[tuple[Node, list[Node]]]:
    """Yield every PIVOT node with the CTEs in scope there, inner nodes first."""
    waiting: list[tuple[Any, list[Node]]] = [(tree, [])]
    found = []
    while waiting:
        node, tables = waiting.pop()
        if isinstance(node, list):
            waiting.extend((value, tables) for value in node)
        elif isinstance(node, dict):
            for entry in (node.get("cte_map") or {}).get("map", ()):
                waiting.append((entry["value"], tables))
                tables = [*tables, entry]
            if node_type(node) == "PIVOT":
                found.append((node, tables))
            waiting.extend((node[key], tables) for key in node if key != "cte_map")
    yield from reversed(found)


def _placeholder(pivot: Node, mark: str) -> str | None:
    """Return the placeholder in a PIVOT's list of values, or None if the list is the user's own."""
    for entry in pivot.get("entries") or ():
        for value in entry.get("values") or ():
            if str(value.get("value")).startswith(mark):
                return str(value["value"])
    return None


def _values_query(node: Node, pivot: Node, tables: list[Node], template: Callable[[str], Node]) -> Node:
    """Return the tree of: the distinct values of the PIVOT's expression in its source, in order."""
    (expression,) = pivot["pivot_expressions"]
    tree = template(_VALUES)
    select = tree["statements"][0]["node"]
    select["select_list"][0]["child"] = copy.deepcopy(expression)
    select["where_clause"]["children"] = [copy.deepcopy(expression)]
    select["from_table"] = copy.deepcopy(node["source"])
    inner = {str(entry["key"]): entry for entry in tables}  # of two tables with one name the inner one is meant
    select["cte_map"] = {"map": copy.deepcopy(list(inner.values()))}
    return tree
