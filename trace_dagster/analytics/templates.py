"""SQL templates: each file is one SELECT with a header that states its parameters and its result columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from trace_dagster.config.shipped_files import shipped_file
from trace_dagster.errors import InvalidInput

_FIELD = re.compile(r"^-- (title|grain|inputs): (.+)$", re.MULTILINE)
_PARAMETER = re.compile(r"^--   ([a-z_0-9]+) \((address|integer)\): (.+)$", re.MULTILINE)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One bind parameter of a template."""

    name: str
    kind: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Template:
    """A named SELECT with its description."""

    name: str
    title: str
    grain: str
    inputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    sql: str

    def bind(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return the parameters as DuckDB takes them. Raises InvalidInput if one is missing, unknown or malformed."""
        unknown = sorted(set(values) - {parameter.name for parameter in self.parameters})
        if unknown:
            raise InvalidInput(f"template {self.name} has no parameter {unknown[0]!r}")
        return {parameter.name: self._value(parameter, values) for parameter in self.parameters}

    def _value(self, parameter: Parameter, values: Mapping[str, object]) -> object:
        if parameter.name not in values:
            raise InvalidInput(f"template {self.name} needs {parameter.name}: {parameter.meaning}")
        given = values[parameter.name]
        if parameter.kind == "address":
            if not isinstance(given, str) or not _ADDRESS.fullmatch(given):
                raise InvalidInput(f"{self.name}: {parameter.name} must be an address, 0x and 40 hex digits")
            return bytes.fromhex(given[2:])
        if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < 2**62:
            raise InvalidInput(f"{self.name}: {parameter.name} must be a whole number, not negative")
        return given


@cache
def templates() -> dict[str, Template]:
    """Return every template by its file name without ``.sql``."""
    paths = sorted(shipped_file("sql_templates").glob("*.sql"))
    return {path.stem: parse(path.stem, path.read_text()) for path in paths}


@cache
def macros() -> str:
    """Return the SQL that creates the macros of the templates; run it before the first template."""
    return "\n".join(path.read_text() for path in sorted((shipped_file("sql_templates") / "macros").glob("*.sql")))


def parse(name: str, text: str) -> Template:
    """Parse a template. Raises InvalidInput if its header is incomplete or contradicts its SQL."""
    fields = dict(_FIELD.findall(text))
    for needed in ("title", "grain", "inputs"):
        if needed not in fields:
            raise InvalidInput(f"template {name}: the header has no `-- {needed}:` line")
    parameters = tuple(Parameter(*found) for found in _PARAMETER.findall(text))
    sql = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    used, described = set(re.findall(r"\$([a-z_0-9]+)", sql)), {parameter.name for parameter in parameters}
    if used != described:
        differing = ", ".join(sorted(used ^ described))
        raise InvalidInput(f"template {name}: header and SQL disagree about parameters: {differing}")
    inputs = tuple(part.strip() for part in fields["inputs"].split(","))
    return Template(name, fields["title"], fields["grain"], inputs, parameters, sql.strip())
