"""Reads which state of the chain a user wants to see from the text that they write: ``--as-of`` of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.as_of import AsOf

_NUMBER = re.compile(r"[0-9]{1,19}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?", re.ASCII | re.IGNORECASE)


def parse_as_of(texts: Iterable[str], *, finalized_only: bool = False) -> AsOf:
    """Return what texts like ``19000000``, ``2024-05-01``, ``2024-05-01T12:00:00Z`` and ``common`` mean together.

    A date means its first moment in UTC; a time needs a zone. Raises InvalidInput for any other text, and for two
    numbers or two times.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, value = _part(text.strip())
        if name in found:
            raise InvalidInput(f"as_of has two values of one kind: give one {name}")
        found[name] = value
    return AsOf(**found, finalized_only=finalized_only)


def _part(text: str) -> tuple[str, Any]:
    """Return the name of a field of AsOf with its value."""
    if text == "common":
        return "common", True
    if _NUMBER.fullmatch(text) and int(text) < MAX_BLOCK:
        return "block", int(text)
    if _TIME.fullmatch(text):
        return "time", _time(text)
    raise InvalidInput(f"as_of must be a block, a time such as 2024-05-01T12:00:00Z, or `common`, not {text[:80]!r}")


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if len(text) == len("2024-05-01"):
            return found.replace(tzinfo=UTC)
        if found.tzinfo is None:
            raise InvalidInput(f"a time needs a zone: write {text[:80]}Z for UTC, or +02:00")
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(f"as_of is no valid time: {text[:80]!r}") from None
