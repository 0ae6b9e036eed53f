"""Named SQL. Each statement stands in a ``.sql`` file below a name and a description, and its values are always bound.

-- name: files_of_version
-- The files of a version, with their digests.
select ...
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: ([a-z_]+)[ \t]*\n", re.MULTILINE)
_DESCRIPTION = re.compile(r"-- \S.*\.\n")


@cache
def queries() -> dict[str, str]:
    """Return all statements by name. Raise ValueError for a name used twice or a statement without description."""
    found: dict[str, str] = {}
    for source in sorted(files(__package__).joinpath("sql").iterdir(), key=lambda entry: entry.name):
        if source.name.endswith(".sql"):
            for name, statement in parse(source.read_text(), source.name):
                if name in found:
                    raise ValueError(f"query {name} is defined twice, again in {source.name}")
                found[name] = statement
    return found


def parse(text: str, source: str) -> list[tuple[str, str]]:
    """Return (name, statement) of each statement in a file's text. Raise ValueError if one has no description."""
    before, *pairs = _NAME.split(text)
    if before.strip():
        raise ValueError(f"{source} has text before its first name")
    found = [(name, statement.rstrip()) for name, statement in zip(pairs[::2], pairs[1::2], strict=True)]
    for name, statement in found:
        if not _DESCRIPTION.match(statement):
            raise ValueError(f"query {name} in {source} has no description: one line, a sentence, below its name")
    return found


def query(name: str) -> str:
    """Return one statement. Raise KeyError if no file has the name."""
    return queries()[name]
