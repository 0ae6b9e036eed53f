"""Parameters of a query, ``$name``, ``$1`` or ``?``: each is replaced in the text by a literal of its value.

So the gate checks, the planner prunes by, and the session runs one and the same text. The new text is accepted only if
its syntax tree is the old one with exactly the parameters replaced: a value cannot become syntax.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.syntax import Node, Statement, objects, parse, without_places
from trace_dagster.query.typed_values import require_microseconds, typed_value

Parameters = Mapping[str, Any] | Sequence[Any]
"""Values by name, or in the order of ``?``."""

MAX_ITEMS = 10_000
"""Most values of a list."""
_MAX_DIGITS = 38
_NAME = re.compile(r"[^\W\d]\w*")
_NUMBERED = re.compile(r"\$(\d+)")
_Place = tuple[int, int, str]
"""Start and end in the bytes of the text, and the name of the parameter."""


def by_name(parameters: Parameters | None) -> dict[str, Any]:
    """Return the values by name; those in order are named ``1``, ``2``, and so on. Raises InvalidInput for two values
    of one name.
    """
    if parameters is None:
        return {}
    if isinstance(parameters, Mapping):
        named = {str(name).lower(): value for name, value in parameters.items()}
        if len(named) < len(parameters):
            raise InvalidInput("two parameters have the same name: upper and lower case are the same")
        return named
    return {str(number): value for number, value in enumerate(parameters, 1)}


def literals(parameters: Parameters | None) -> dict[str, str]:
    """Return the literal of each value by name. Raises InvalidInput for a value that has none."""
    return {name: literal(value, name) for name, value in by_name(parameters).items()}


def literal(value: Any, name: str) -> str:  # noqa: C901  (one case per type)
    """Return a value as SQL. Raises InvalidInput, with the parameter's name, for a value of another type.

    A number is a cast of a text: DuckDB's parser would join a bare number with a minus before it.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case int() if -(1 << 127) < value < 1 << 127:
            return f"cast('{value}' as {'bigint' if -(1 << 63) <= value < 1 << 63 else 'hugeint'})"
        case float() if math.isfinite(value):
            return f"cast('{value!r}' as double)"
        case decimal.Decimal() if value.is_finite() and (kind := _decimal(value)):
            return f"cast('{value:f}' as {kind})"
        case str():
            return _text(value)
        case bytes() | bytearray():
            return f"unhex('{bytes(value).hex()}')"
        case datetime.datetime():
            require_microseconds(value.isoformat(), name)  # a time of pandas may have nanoseconds
            return f"cast('{value.isoformat()}' as {'timestamptz' if value.tzinfo else 'timestamp'})"
        case datetime.date():
            return f"cast('{value.isoformat()}' as date)"
        case list() | tuple() if len(value) <= MAX_ITEMS:
            return f"[{', '.join(literal(each, name) for each in value)}]"
        case dict():
            return literal(typed_value(value, name), name)
    raise InvalidInput(
        f"the value of parameter ${name} is not a text, a number of at most 38 digits, true, false, null, a list of"
        " these, or an object with type and value: give a longer number as a text"
    )


def with_literals(statement: Statement, given: Mapping[str, str], parser: duckdb.DuckDBPyConnection) -> Statement:
    """Return the statement with a literal in place of each parameter.

    ``given`` are the literals by name. Raises InvalidInput if a parameter has no value, a value no parameter, or a
    parameter stands where no literal can.
    """
    named = {str(node["identifier"]).lower() for node in objects(statement.tree) if _is_parameter(node)}
    if missing := sorted(named - given.keys()):
        name = missing[0][:80]
        raise InvalidInput(f"the query's parameter ${name} has no value: give it one")
    if unknown := sorted(given.keys() - named):
        raise InvalidInput(
            f"the query has no parameter ${unknown[0][:80]}: write it in the SQL, or leave out its value"
        )
    if not named:
        return statement
    text = _spliced(statement.text, given)
    again = parse(text, parser)
    expected = _replaced(statement.tree, {name: _constant(given[name], parser) for name in named})
    if again.explain or without_places(again.tree) != without_places(expected):
        raise InvalidInput("a parameter of the query cannot be replaced: write $name, where a value can stand")
    return Statement(text, again.tree, statement.explain)


def _decimal(value: decimal.Decimal) -> str | None:
    """Return the type of a decimal number; None if it has more digits than a type can have."""
    exponent = value.as_tuple().exponent
    scale = max(0, -exponent) if isinstance(exponent, int) else 0
    width = max(value.adjusted() + 1 + scale, scale, 1)
    return f"decimal({width}, {scale})" if width <= _MAX_DIGITS else None


def _text(value: str) -> str:
    if "\0" in value:
        raise InvalidInput("a parameter may not contain a NUL character")
    return "'" + value.replace("'", "''") + "'"


def _is_parameter(node: Node) -> bool:
    return node.get("class") == "PARAMETER"


def _spliced(text: str, given: Mapping[str, str]) -> str:
    data = text.encode()
    for start, end, name in reversed(list(_places(text))):
        if name in given:
            data = data[:start] + b" " + given[name].encode() + b" " + data[end:]
    return data.decode()


def _places(text: str) -> Iterator[_Place]:
    """Yield each parameter in the text, by DuckDB's tokens: texts, quoted names and comments hold none."""
    data, tokens, asked = text.encode(), duckdb.tokenize(text), 0
    for at, (start, _) in enumerate(tokens):
        end = tokens[at + 1][0] if at + 1 < len(tokens) else len(data)
        word = data[start:end].decode(errors="replace")
        if word.startswith("?"):
            asked += 1
            yield start, start + 1, str(asked)
        elif found := _NUMBERED.match(word):
            yield start, start + found.end(), found[1]
        elif word == "$" and (found := _NAME.match(data[end:].decode(errors="replace"))):
            yield start, end + len(found[0].encode()), found[0].lower()


def _constant(text: str, parser: duckdb.DuckDBPyConnection) -> Node:
    """Return the syntax tree of a literal."""
    node: Node = parse(f"select {text}", parser).tree["statements"][0]["node"]["select_list"][0]
    return node


def _replaced(tree: Any, constants: Mapping[str, Node]) -> Any:
    if isinstance(tree, list):
        return [_replaced(each, constants) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if _is_parameter(tree):
        return {**constants[str(tree["identifier"]).lower()], "alias": tree["alias"]}
    return {key: [] if key == "named_param_map" else _replaced(each, constants) for key, each in tree.items()}
