"""The command `trace-lite changes`: print the change log, and follow it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import click

from trace_dagster.cli.commands import opened
from trace_dagster.config.settings import Settings
from trace_dagster.messages.printable import printable
from trace_dagster.registry.changes import Change, ChangeLog

_PAGE = 1000
"""Changes that are read at once."""

_POLL_SECONDS = 1.0


def cursor_of_now(settings: Settings) -> str:
    """Return the cursor of the last change. A read of the lake that begins now has every change up to it."""
    with opened(settings) as runtime:
        return ChangeLog(runtime.database).now()


def print_changes(settings: Settings, cursor: str, *, follow: bool, as_json: bool, limit: int | None) -> None:
    """Print changes after a cursor, one line each, at most ``limit``. With ``follow``, wait for more until Ctrl-C."""
    line = _json_line if as_json else _line
    with opened(settings) as runtime:
        try:
            for page in _pages(ChangeLog(runtime.database), cursor, limit, follow=follow):
                _print(page, line)
        except KeyboardInterrupt:
            if not follow:
                raise
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _pages(log: ChangeLog, cursor: str, limit: int | None, *, follow: bool) -> Iterator[list[Change]]:
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page, cursor = log.after(cursor, size)
        yield page
        left = None if left is None else left - len(page)
        if len(page) < size:
            if not follow:
                return
            time.sleep(_POLL_SECONDS)


def _print(page: list[Change], line: Callable[[Change], str]) -> None:
    for change in page:
        click.echo(line(change))


def _json_line(change: Change) -> str:
    return json.dumps(change.to_json())


def _line(change: Change) -> str:
    """Return a line for people: time, kind, dataset, range, which rows, cursor, and the reason if there is one."""
    return printable(
        f"{change.changed_at:%Y-%m-%d %H:%M:%S}  {change.kind:<11}  {change.chain_id}.{change.dataset_key:<20}"
        f"  {change.block_range!s:<26}  {_rows(change):<14}  {change.cursor}"
        + (f"  {change.reason}" if change.reason else "")
    )


def _rows(change: Change) -> str:
    """Return which rows came or went: those of a generation, hot ones, or none."""
    if change.generation is not None:
        return f"generation {change.generation}"
    changes_nothing = change.kind == "compacted" or (change.kind == "pruned" and change.reason is None)
    return "the same rows" if changes_nothing else "hot rows"
