"""The command `trace-lite query`: asks the query service, or runs the query itself if there is none."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trace_dagster.cli.answers import print_answer, print_snapshot
from trace_dagster.client.connect import connect
from trace_dagster.client.saving import FORMATS, format_of, save
from trace_dagster.client.service_errors import ServiceAway
from trace_dagster.errors import InvalidInput

if TYPE_CHECKING:
    from trace_dagster.client.lake import ConnectedLake
    from trace_dagster.config.settings import Settings

Say = Callable[[str], None]

_DEFAULT_ROWS = 1000
_MOST_ROWS = 10_000
_OF_PARAMETERS = re.compile(r"parameter \$\w+ has no value|has no parameter \$\w")
"""Errors about parameters for which the command line has more advice than the core and a service."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query, and how to answer it."""

    sql: str
    form: str
    """table, json, csv, arrow or parquet."""
    limit: int | None
    parameters: Mapping[str, Any]
    as_of: tuple[str, ...]
    finalized_only: bool
    output: Path | None

    @property
    def is_streamed(self) -> bool:
        """Whether the answer is bytes with all rows."""
        return self.form in FORMATS.values()

    @property
    def rows(self) -> int:
        """The most rows of a table, or of JSON."""
        return min(self.limit or _DEFAULT_ROWS, _MOST_ROWS)


def form_of(form: str | None, output: Path | None) -> str:
    """Return the format of an answer. Raises InvalidInput if it does not fit where it goes."""
    if output is not None:
        form = form or format_of(output)
        if form not in FORMATS.values():
            raise InvalidInput("--output needs --format csv, arrow or parquet: redirect a table or JSON by `>`")
    elif form in {"arrow", "parquet"} and sys.stdout.isatty():
        raise InvalidInput(f"{form} is no text for a terminal: give --output FILE.{form}")
    return form or "table"


def run(question: Question, settings: Settings, say: Say, *, is_own_url: bool) -> None:
    """Print the answer to a question, or write it to its file.

    A service that the user named has to answer. If that of the stack is away, this process runs the query.
    """
    try:
        _run(question, settings, say, is_own_url=is_own_url)
    except InvalidInput as error:
        if not _OF_PARAMETERS.search(error.message):
            raise
        raise InvalidInput(
            f"{error.message}; `--parameter NAME=VALUE` gives a value, and a shell keeps $NAME only in single quotes"
        ) from error


def _run(question: Question, settings: Settings, say: Say, *, is_own_url: bool) -> None:
    url, token = settings.query.url, settings.query.token
    if url is not None:
        try:
            ask_service(connect(url, None if token is None else token.get_secret_value()), question)
        except ServiceAway:
            if is_own_url:
                raise
            say("note: the query service of the stack does not answer: this command runs the query itself")
        else:
            return
    from trace_dagster.cli.own_query import run_here

    run_here(question, settings)


def ask_service(lake: ConnectedLake, question: Question) -> None:
    """Show the answer of a service."""
    cut: dict[str, Any] = {"as_of": question.as_of or None, "finalized_only": question.finalized_only}
    if question.is_streamed:
        with lake.stream(question.sql, question.form, question.parameters, limit=question.limit, **cut) as transfer:
            deliver(transfer, transfer.snapshot, question)
        return
    answer = lake.json(question.sql, question.parameters, limit=question.rows, **cut)
    answer.pop("query_id", None)  # an answer is the same, whoever ran the query
    print_answer(answer, as_json=question.form == "json")


def deliver(pieces: Iterable[bytes], snapshot: Mapping[str, Any], question: Question) -> None:
    """Write the bytes of an answer to its file or to stdout, and to stderr what it was made of."""
    if question.output is not None:
        save(pieces, question.output)
    else:
        try:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print_snapshot(snapshot)
