"""YAML as plain values plus the line of each key, from PyYAML's own marks.

The text is not trusted. Aliases (and with them expansion bombs), tags, merge keys, duplicate keys, keys that are not
text, and numbers that mean something else than they show (``0100``, ``1:40``) are errors. No error repeats a value.
Depth, number and length of values are limited while the text is parsed: 1 MB of the worst text we know takes 0.5 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from trace_dagster.errors import InvalidInput

MAX_DEPTH = 20
MAX_VALUES = 20_000
"""Keys count as values. The largest chain_sync file, 64 streams with every key, has about 1,700."""

KeyPath = tuple[str | int, ...]
"""The keys and list indexes that lead to a value from the top of the document."""

MAX_SCALAR_CHARACTERS = 1000
"""Of one value. PyYAML needs quadratic time for a long number in base 60: 25 s for 800 kB of ``1:1:1:...``."""

_TEXT_TAG = "tag:yaml.org,2002:str"
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_OCTAL = re.compile(r"[-+]?0[0-9_]*[0-9]")
_QUOTED = re.compile(r"'(?!<)[^']{2,}'|\"[^\"]{2,}\"")
"""What PyYAML quotes from the text. Single characters and its own names, such as ``'<block end>'``, stay."""


def dotted(path: KeyPath) -> str:
    """Return a path with dots between its keys."""
    return ".".join(map(str, path))


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML document."""

    source: str
    """Its name in error messages: a file's path."""
    value: Any
    lines: dict[KeyPath, int]
    """The line of each key, from 1."""
    shown: Callable[[KeyPath], str] = dotted
    """Returns a path as errors show it."""

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or of its nearest parent that is in the text."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def error(self, path: KeyPath, reason: str) -> InvalidInput:
        """Return the error ``source:line: path: reason`` for a key."""
        return InvalidInput(f"{self.source}:{self.line(path)}: {self.shown(path) or 'file'}: {reason}")


def read_document(text: str, source: str, shown: Callable[[KeyPath], str] = dotted) -> Document:
    """Parse YAML. Raises InvalidInput with source, line and reason if it is not valid, or not allowed here.

    ``shown`` returns a path as errors show it: a key that is in the wrong place might be a secret.
    """
    try:
        loader = _Loader(text, shown)
        node = loader.get_single_node()
        value = loader.value(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidInput(f"{source}:{line}: {_reason(error)}") from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"{source}: not valid YAML: {str(error).partition(chr(10))[0]}") from None
    return Document(source, value, loader.lines, shown)


def _reason(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _Refused):
        return str(error.problem)
    if isinstance(error, yaml.composer.ComposerError):  # its problem alone is "but found another document"
        return f"not valid YAML: {_without_quotes(f'{error.context}, {error.problem}')}"
    return f"not valid YAML: {_without_quotes(str(error.problem))}"


def _without_quotes(problem: str) -> str:
    return _QUOTED.sub("(not shown)", problem)


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that is not allowed here."""

    def __init__(self, reason: str, mark: Any) -> None:
        super().__init__(problem=reason, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """A SafeLoader that records the line of each key, and refuses ambiguous or expensive YAML."""

    def __init__(self, text: str, shown: Callable[[KeyPath], str]) -> None:
        self._shown = shown
        self.lines: dict[KeyPath, int] = {}
        self._path: KeyPath = ()
        self._depth = 0
        self._values = 0
        super().__init__(text)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Check the limits and refuse aliases and tags before a node is built."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._values += 1
        if isinstance(event, yaml.AliasEvent):
            raise _Refused("YAML aliases are not used here: write the value out", event.start_mark)
        if event.tag is not None:
            raise _Refused("YAML tags are not used here: write the plain value", event.start_mark)
        if self._depth == MAX_DEPTH or self._values > MAX_VALUES:
            raise _Refused(f"more than {MAX_DEPTH} levels or {MAX_VALUES} keys and values", event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR_CHARACTERS:
            raise _Refused(f"a key or value of more than {MAX_SCALAR_CHARACTERS} characters", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def value(self, node: yaml.Node) -> Any:
        """Return the plain value of a node."""
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node))
        if isinstance(node, yaml.SequenceNode):
            return [self._at(index, item) for index, item in enumerate(node.value)]
        if node.tag in _NUMBER_TAGS:
            _require_decimal(node)
        try:
            return self.construct_object(node)
        except (ValueError, OverflowError) as error:  # such as a date in month 13
            raise _Refused(f"not valid YAML: {_without_quotes(str(error))}", node.start_mark) from None

    def _items(self, node: yaml.MappingNode) -> Iterator[tuple[str, Any]]:
        for key_node, value_node in node.value:
            if key_node.tag != _TEXT_TAG:
                raise _Refused(f"keys are plain text, not {key_node.tag.rpartition(':')[2]}", key_node.start_mark)
            path = (*self._path, key_node.value)
            if path in self.lines:
                raise _Refused(f"{self._shown(path)}: this key is written twice", key_node.start_mark)
            self.lines[path] = key_node.start_mark.line + 1
            yield key_node.value, self._at(key_node.value, value_node)

    def _at(self, key: str | int, node: yaml.Node) -> Any:
        with self._inside(key):
            return self.value(node)

    @contextmanager
    def _inside(self, key: str | int) -> Iterator[None]:
        self._path = (*self._path, key)
        yield
        self._path = self._path[:-1]


def _require_decimal(node: yaml.Node) -> None:
    """Refuse numbers that YAML 1.1 reads in another base than their digits suggest."""
    if ":" in node.value:
        raise _Refused("a number with colons is of base 60 in YAML: write it in decimal", node.start_mark)
    if _OCTAL.match(node.value):
        raise _Refused("a number that starts with 0 is octal in YAML: write it without the 0", node.start_mark)
