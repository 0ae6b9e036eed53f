"""Named SQL: every statement stands in a ``.sql`` file as ``-- name: ...`` and is bound, never built."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: ([a-z_]+)\s*$", re.MULTILINE)


@cache
def queries() -> dict[str, str]:
    """All statements by name. Raises ValueError when a name is used twice."""
    found: dict[str, str] = {}
    for source in sorted(files(__package__).joinpath("sql").iterdir(), key=lambda entry: entry.name):
        if not source.name.endswith(".sql"):
            continue
        _, *pairs = _NAME.split(source.read_text())
        for name, statement in zip(pairs[::2], pairs[1::2], strict=True):
            if name in found:
                raise ValueError(f"query {name} is defined twice, again in {source.name}")
            found[name] = statement.strip()
    return found


def query(name: str) -> str:
    """One statement. Raises KeyError for a name that stands in no file."""
    return queries()[name]
