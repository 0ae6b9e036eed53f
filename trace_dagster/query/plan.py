"""The text of a query plan, from DuckDB's JSON, without the names of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_HIDDEN = ("file", "path")
"""A fact of an operator is left out if its name contains one of these words, or its text contains ``://``."""


def readable(operators: Sequence[dict[str, Any]], depth: int = 0) -> Iterator[str]:
    """Yield one line per operator and per fact of it, indented by depth; an operator's inputs follow it."""
    for operator in operators:
        yield f"{'  ' * depth}{operator['name'].strip()}"
        for name, value in (operator.get("extra_info") or {}).items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            is_hidden = "://" in shown or any(word in name.lower() for word in _HIDDEN)
            if shown and not is_hidden:
                yield f"{'  ' * depth}  {name}: {' '.join(shown.split())}"
        yield from readable(operator.get("children") or (), depth + 1)
