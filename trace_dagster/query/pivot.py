"""PIVOT without a list of values: a checked query of our own finds the values, and the statement gets a static list.

DuckDB runs such a PIVOT as two statements, the first of which creates a type. A query session runs one SELECT only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.syntax import Node, node_type

MAX_VALUES = 500
"""Most columns that one PIVOT expression makes."""
PLACEHOLDER = "values of this pivot"
"""The one value in the list of a PIVOT whose values are not known yet."""
_KEYWORDS = frozenset({"pivot", "pivot_wider"})
_ENDS = frozenset({"using", "group", "order", "limit", "offset", "union", "except", "intersect", ";", ")"})
_OPENING, _CLOSING = "([{", ")]}"


_VALUES = "select distinct x::varchar from t where x is not null order by 1"


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int


def with_placeholders(sql: str) -> str:
    """Return the SQL with a list of one placeholder for each PIVOT expression that has no list of values."""
    data = sql.encode(errors="replace")
    tokens = _tokens(data)
    edits = [edit for at, token in enumerate(tokens) if token.text in _KEYWORDS for edit in _edits(tokens, at)]
    inserted = sorted(edits, key=lambda edit: edit[0])
    for at, text in reversed(inserted):
        data = data[:at] + text.encode() + data[at:]
    return data.decode()


def fill(tree: Node, run: Callable[[Node], list[tuple[Any, ...]]], template: Callable[[str], Node]) -> bool:
    """Replace every placeholder in the tree by the values that ``run`` finds; return whether there was one.

    ``run`` runs a tree and returns its rows; ``template`` parses SQL of our own. The source and the expression of each
    query are parts of the tree that was checked. Raises InvalidInput for more than MAX_VALUES values.
    """
    found = False
    for node, tables in _pivots(tree):
        for pivot in node["pivots"]:
            if not _is_open(pivot):
                continue
            found = True
            rows = run(_values_query(node, pivot, tables, template))
            if len(rows) > MAX_VALUES:
                raise InvalidInput(f"a PIVOT over more than {MAX_VALUES} values: aggregate, or write IN (...)")
            entry = pivot["entries"][0]
            pivot["entries"] = [
                {**entry, "values": [{**entry["values"][0], "value": str(value)}]} for value, *_ in rows
            ]
            if not rows:
                raise InvalidInput("a PIVOT over no values: its source has no rows")
    return found


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
            yield item[-1].end, f"\n) IN ('{PLACEHOLDER}') "  # on a new line: a comment may end the item
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


def _is_open(pivot: Node) -> bool:
    values = [entry.get("values") or [] for entry in pivot.get("entries") or ()]
    return [[value.get("value") for value in each] for each in values] == [[PLACEHOLDER]]


def _values_query(node: Node, pivot: Node, tables: list[Node], template: Callable[[str], Node]) -> Node:
    """Return the tree of: the distinct values of the PIVOT's expression in its source, in order."""
    (expression,) = pivot["pivot_expressions"]
    tree = template(_VALUES)
    select = tree["statements"][0]["node"]
    select["select_list"][0]["child"] = copy.deepcopy(expression)
    select["where_clause"]["children"] = [copy.deepcopy(expression)]
    select["from_table"] = copy.deepcopy(node["source"])
    select["cte_map"] = {"map": copy.deepcopy(tables)}
    return tree
