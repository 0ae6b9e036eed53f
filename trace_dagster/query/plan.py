"""The text of a query plan, from DuckDB's JSON, without the names of files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_HIDDEN = ("file", "path")
"""A fact of an operator is left out if its name contains one of these words, or its text contains ``://``."""


def readable(plan: Any, depth: int = 0) -> Iterator[str]:
    """Yield one line per operator and per fact of it, indented by depth; an operator's inputs follow it.

    ``plan`` is a list of operators (EXPLAIN) or one object over them (EXPLAIN ANALYZE, which adds rows and seconds).
    """
    for operator in plan if isinstance(plan, list) else [plan]:
        name = operator.get("name") or operator.get("operator_name")
        is_shown = bool(name) and name != "EXPLAIN_ANALYZE"
        if is_shown:
            yield f"{'  ' * depth}{name.strip()}"
            yield from (f"{'  ' * depth}  {fact}" for fact in _facts(operator))
        yield from readable(operator.get("children") or [], depth + is_shown)


def _facts(operator: dict[str, Any]) -> Iterator[str]:
    for name, value in (operator.get("extra_info") or {}).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        if shown and "://" not in shown and not any(word in name.lower() for word in _HIDDEN):
            yield f"{name}: {' '.join(shown.split())}"
    if "operator_timing" in operator:
        yield f"Rows: {operator['operator_cardinality']}"
        yield f"Seconds: {operator['operator_timing']:.6f}"
