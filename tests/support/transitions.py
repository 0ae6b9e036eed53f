"""The transitions of ``trace.tasks.state`` in docs/state_machine.md, and those that tests observe."""

from __future__ import annotations

import re
from pathlib import Path

from trace_dagster.registry.connection import Database

_PAGE = Path(__file__).parents[2] / "docs" / "state_machine.md"
_ARROW = re.compile(r"^\s*(\[\*\]|[a-z]+) --> ([a-z]+):", re.MULTILINE)

DOCUMENTED = {
    (None if source == "[*]" else source, target)
    for source, target in _ARROW.findall(_PAGE.read_text().split("```mermaid")[1].split("```")[0])
}
"""``(from, to)``; from is None for a new task."""


def log_transitions(database: Database) -> None:
    """Record every change of a task's state from now on."""
    with database.connection() as connection:
        connection.execute(
            """
            create schema test_log;
            create table test_log.transitions (before text, after text, unique nulls not distinct (before, after));
            create function test_log.note() returns trigger language plpgsql as $$
            begin
                if tg_op = 'INSERT' then
                    insert into test_log.transitions values (null, new.state) on conflict do nothing;
                elsif old.state <> new.state or old.attempt <> new.attempt then
                    insert into test_log.transitions values (old.state, new.state) on conflict do nothing;
                end if;
                return null;
            end $$;
            create trigger note after insert or update on trace.tasks for each row execute function test_log.note();
            """
        )


def seen_transitions(database: Database) -> set[tuple[str | None, str]]:
    """Return the recorded transitions."""
    with database.connection() as connection:
        return {
            (row["before"], row["after"])
            for row in connection.execute("select before, after from test_log.transitions").fetchall()
        }
