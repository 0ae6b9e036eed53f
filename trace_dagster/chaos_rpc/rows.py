"""Incorrect answers with missing, duplicate or reordered rows."""

from __future__ import annotations

from random import Random

from trace_dagster.chaos_rpc.shapes import Answer, FaultContext, Request, rows_of, with_rows


def empty_list(request: Request, answer: Answer, _rng: Random, _context: FaultContext) -> Answer:
    return with_rows(request, answer, []) if rows_of(request, answer) else answer


def truncate_head(request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    rows = rows_of(request, answer)
    return with_rows(request, answer, rows[rng.randint(1, len(rows)) :]) if rows else answer


def truncate_middle(request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    """Remove rows between the first and the last one."""
    rows = rows_of(request, answer)
    if len(rows) < 3:
        return answer
    start = rng.randint(1, len(rows) - 2)
    end = rng.randint(start + 1, len(rows) - 1)
    return with_rows(request, answer, rows[:start] + rows[end:])


def truncate_tail(request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    rows = rows_of(request, answer)
    return with_rows(request, answer, rows[: -rng.randint(1, len(rows))]) if rows else answer


def duplicate_rows(request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    """Repeat rows; each duplicate follows its row."""
    rows = rows_of(request, answer)
    if not rows:
        return answer
    twice = set(rng.sample(range(len(rows)), rng.randint(1, len(rows))))
    return with_rows(request, answer, [row for i, row in enumerate(rows) for _ in range(1 + (i in twice))])


def reorder_rows(request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    rows = rows_of(request, answer)
    shuffled = rng.sample(rows, len(rows))
    if shuffled == rows:
        shuffled = rows[::-1]
    return with_rows(request, answer, shuffled) if shuffled != rows else answer
