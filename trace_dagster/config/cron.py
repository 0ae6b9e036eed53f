"""The five-field cron expressions that a chain_sync file may hold: numbers, ``*``, ranges, lists and steps."""

from __future__ import annotations

import re

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6))
_PART = re.compile(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?")
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def cron(text: str) -> str:
    """Return a cron expression with single spaces. Raises ValueError with the reason if it can never be due."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError("must have five fields: minute, hour, day of month, month, day of week, such as '30 2 * * *'")
    _, _, days, months, _ = (
        _values(field, name, least, most) for field, (name, least, most) in zip(fields, _FIELDS, strict=True)
    )
    if not any(day <= _DAYS[month - 1] for month in months for day in days):
        raise ValueError("none of its months has such a day")
    return " ".join(fields)


def named_cron(key: str, text: str) -> str:
    """Return a cron expression as :func:`cron` does. Raises ValueError with the name of its key before the reason."""
    try:
        return cron(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _values(field: str, name: str, least: int, most: int) -> set[int]:
    return {value for part in field.split(",") for value in _values_of_part(part, name, least, most)}


def _values_of_part(part: str, name: str, least: int, most: int) -> range:
    match = _PART.fullmatch(part)
    if match is None or not part.isascii():
        raise ValueError(f"the {name} must be *, a number, a range such as 1-5, a list, or one with a step such as */2")
    first, last, step = (int(group) if group else None for group in match.groups())
    start = least if first is None else first
    end = last if last is not None else most if first is None or step else start
    if not least <= start <= end <= most or step == 0 or (last is not None and first == last):
        raise ValueError(f"the {name} must lie between {least} and {most}, in rising order, with steps of 1 or more")
    return range(start, end + 1, step or 1)
