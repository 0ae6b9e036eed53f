"""Tables, lines and human sizes, by rich and humanize.

A terminal gets tables with rules that fit its width. A pipe or a file gets one line per row, without rules, colours,
line breaks or truncation, so that grep and awk can read it. No text is interpreted as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Literal

from humanize import naturalsize, precisedelta
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trace_dagster.datasets.chains import chain_of
from trace_dagster.messages.printable import printable

Column = tuple[str, Literal["left", "right"]]
"""A heading, and how its cells are aligned."""

_WIDTH_WITHOUT_TERMINAL = 1_000_000
"""In characters: wide enough that rich breaks no cell."""


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, title: str = "", console: Console | None = None
) -> None:
    """Print a title line and a table; to stdout unless another console is given."""
    console = console or Console()
    piped = not console.is_terminal
    if piped:
        console.width = _WIDTH_WITHOUT_TERMINAL
    table = Table(box=None if piped else box.HEAVY_HEAD, pad_edge=not piped, padding=(0, 2 if piped else 1, 0, 0))
    for heading, justify in columns:
        table.add_column(Text(printable(heading)), justify=justify, no_wrap=piped, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if title:
        print_line(title, console=console)
    console.print(table, crop=False)


def print_line(text: str, *, console: Console | None = None) -> None:
    """Print one line as it is; to stdout unless another console is given."""
    (console or Console()).print(Text(printable(text)), soft_wrap=True)


def human_seconds(seconds: float) -> str:
    """Return a duration in its two largest useful units: ``2 days and 7 hours``, ``3 minutes``, ``12 seconds``."""
    whole = round(seconds)
    smallest = "seconds" if whole < 60 else "minutes" if whole < 86_400 else "hours"
    return precisedelta(timedelta(seconds=whole), minimum_unit=smallest, format="%d")


def human_bytes(count: int) -> str:
    """Return a size in binary units: ``1.5 MiB``."""
    return naturalsize(count, binary=True)


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 block``, ``2,000 blocks``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def chain_title(chain_id: int) -> str:
    """Return the chain's id and, if it is in the table of chains, its name."""
    chain = chain_of(chain_id)
    return f"chain {chain_id} ({chain.name})" if chain.is_listed else f"chain {chain_id}"
