"""Runs the query of `trace-lite query` in this process, where no query service answers."""

from __future__ import annotations

from typing import cast

from trace_dagster.cli.answers import print_answer
from trace_dagster.cli.commands import opened_core, run_query
from trace_dagster.cli.query import Question, deliver
from trace_dagster.config.settings import Settings
from trace_dagster.query.as_of import parse_as_of
from trace_dagster.query.protocol import StreamFormat
from trace_dagster.query.render import to_json


def run_here(question: Question, settings: Settings) -> None:
    """Show the answer of the core."""
    as_of = parse_as_of(question.as_of, finalized_only=question.finalized_only)
    if not question.is_streamed:
        result = run_query(question.sql, settings, question.rows, question.parameters, as_of)
        print_answer(to_json(result), as_json=question.form == "json")
        return
    form = cast("StreamFormat", question.form)
    with (
        opened_core(settings) as (opening, runner),
        opening.stream(runner, question.sql, form, question.parameters, as_of, limit=question.limit) as stream,
    ):
        deliver(stream, stream.snapshot.to_json(), question)
