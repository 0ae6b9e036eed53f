"""What people see in a terminal: progress, tables. All of it on stderr, so that stdout stays data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trace_dagster.query.render import to_json, value
from trace_dagster.registry.endpoint_scores import Standing
from trace_dagster.registry.status import JobStatus, StreamStatus

if TYPE_CHECKING:
    from trace_dagster.estimate.costs import Plan, StreamPlan
    from trace_dagster.maintenance.audit import Report
    from trace_dagster.query.session import QueryResult

_LOG_STEP_PERCENT = 10
_WIDTH_IN_A_LOG = 180
_PLAN_HEADINGS = ("stream", "blocks", "ranges", "runs", "calls", "rows", "size", "as sampled", "at the limit")
_NUMBERS = {"BIGINT", "INTEGER", "UBIGINT", "UINTEGER", "HUGEINT", "UHUGEINT", "DOUBLE", "BIGNUM", "SMALLINT"}


@contextmanager
def progress() -> Iterator[Callable[[JobStatus], None]]:
    """A bar per stream in a terminal, a line per tenth in a log."""
    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as bars:
            tasks: dict[str, TaskID] = {}
            yield lambda job: _update(bars, tasks, job)
    else:
        said: dict[str, int] = {}
        yield lambda job: _lines(console, said, job)


def status_table(jobs: list[JobStatus]) -> None:
    """One table per job."""
    console = _console()
    if not jobs:
        console.print("no job is applied yet: `trace-lite apply --file examples/devchain.yaml`")
    for job in jobs:
        left = f" · {_left(job.seconds_left)}" if job.seconds_left else ""
        title = f"{job.name} · chain {job.chain_id} · {job.mode} · {job.state}{left}"
        table = Table(title=title, title_justify="left")
        for heading in (
            "stream",
            "ranges",
            "blocks",
            "rows",
            "size",
            "in flight",
            "failed",
            "queued",
            "blocks/s",
            "left",
            "head seen",
            "verified",
        ):
            table.add_column(heading, justify="left" if heading in ("stream", "verified") else "right")
        for stream in job.streams:
            table.add_row(*_cells(stream))
        console.print(table)
        for stream in job.streams:
            for reason in filter(None, (stream.blocked_reason, stream.last_error)):
                console.print(f"{stream.dataset_key}: {reason}", markup=False)


def plan_lines(plan: Plan) -> Iterator[str]:
    """A line per stream, what could not be found out, and what the figures rest on."""
    yield f"{plan.job} · chain {plan.chain_id} · {plan.mode}"
    yield from aligned([_PLAN_HEADINGS, *(_plan_cells(each) for each in plan.streams), _plan_sum(plan)])
    yield from (f"{each.dataset_key}: {each.error}" for each in plan.streams if each.error)
    yield from (f"note: {note}" for note in plan.notes)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of one width each; the first to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for name, *figures in rows:
        cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *cells])


def _plan_cells(plan: StreamPlan) -> list[str]:
    counts = plan.counts
    return [
        plan.dataset_key,
        _count(counts.blocks if counts else None),
        _count(counts.ranges if counts else None),
        _count(plan.runs),
        _count(counts.rpc_calls if counts else None),
        _count(plan.rows),
        human_bytes(plan.bytes) if plan.bytes is not None else "-",
        _hours(plan.hours_measured),
        _hours(plan.hours_at_limit) if plan.counts is None or plan.calls_per_second else "no limit",
    ]


def _plan_sum(plan: Plan) -> list[str]:
    counts = [each.counts for each in plan.streams if each.counts]
    measured = [each for each in plan.streams if each.sample]
    return [
        "all that is known" if any(each.error for each in plan.streams) else "all",
        "",
        _count(sum(each.ranges for each in counts)),
        _count(plan.runs),
        _count(sum(each.rpc_calls for each in counts)),
        _count(sum(each.rows or 0 for each in measured) if measured else None),
        human_bytes(sum(each.bytes or 0 for each in measured)) if measured else "-",
        _hours(sum(each.hours_measured or 0 for each in measured) if measured else None),
        _hours(plan.hours_at_limit),
    ]


def _count(count: int | None) -> str:
    return f"{count:,}" if count is not None else "-"


def _hours(hours: float | None) -> str:
    return human_seconds(hours * 3600) if hours is not None else "-"


def standings_table(standings: list[Standing]) -> None:
    """Endpoints that gave rows the chain contradicts; nothing where none did."""
    if not standings:
        return
    table = Table("endpoint", "lies", "score", "last", "reason", title="endpoints that lied", title_justify="left")
    for each in standings:
        last = f"{human_seconds(each.last_lie_seconds)} ago"
        table.add_row(each.endpoint, f"{each.lies:,}", f"{each.score:.2f}", last, Text(each.reason))
    _console().print(table)


def gateway_table(asked: dict[str, dict[str, Any]]) -> None:
    """Endpoints asked through the gateway; nothing where none is."""
    if not asked:
        return
    table = Table("endpoint", "calls asked", "sent", "in requests", "calls/s allowed", "limit", "429", "faults",
                  "queued", title="asked through the gateway", title_justify="left")  # fmt: skip
    for name, each in asked.items():
        counts = [f"{each[key]:,}" for key in ("calls_asked", "calls_sent", "requests_sent")]
        rates = ["-" if each[key] is None else f"{each[key]:,.1f}" for key in ("rate", "limit")]
        trouble = [f"{each[key]:,}" for key in ("refusals", "faults", "queued")]
        table.add_row(f"{name} (down)" if each["is_down"] else name, *counts, *rates, *trouble)
    _console().print(table)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """A bar over a known number of things; silent where stderr is no terminal."""
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bars:

        def begin(total: int) -> Callable[[], None]:
            task = bars.add_task(what, total=total)
            return lambda: bars.advance(task)

        yield begin


def verified_lines(report: Report, repaired: int) -> Iterator[str]:
    """A verification in words."""
    levels = ", ".join(f"{count:,} {level}" for level, count in sorted(report.levels.items()))
    yield (
        f"{report.ranges:,} ranges, {report.rows:,} rows, {human_bytes(report.bytes)} checked"
        f" ({levels or 'none proven'})"
    )
    for found in report.findings:
        yield f"{found}"
    for text in report.unchecked:
        yield f"not checked: {text}"
    if repaired:
        yield f"{repaired:,} ranges are fetched again"
    elif report.findings:
        yield "`trace-lite verify --repair` takes back what is broken and fetches exactly that again"
    else:
        yield "nothing is missing, nothing was altered" if report.passed else "what was checked is as committed"


def jobs_table(jobs: list[JobStatus]) -> None:
    """One row per job."""
    table = Table("job", "id", "chain", "mode", "state", "streams")
    for job in jobs:
        streams = ", ".join(stream.dataset_key for stream in job.streams)
        table.add_row(job.name, job.job_id, str(job.chain_id), job.mode, job.state, streams)
    _console().print(table if jobs else "no job is applied yet: `trace-lite apply --file examples/devchain.yaml`")


def human_seconds(seconds: float) -> str:
    """``1 h 05 min``, ``3 min``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"


def human_bytes(count: int) -> str:
    """``1.5 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _console() -> Console:
    """Stdout; in a pipe or a log wide enough that no cell is broken."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_IN_A_LOG)


def _cells(stream: StreamStatus) -> list[str]:
    total = f"/{stream.total_blocks:,}" if stream.total_blocks is not None else ""
    rate = stream.recent_blocks_per_second or stream.blocks_per_second
    return [
        stream.dataset_key + ("" if stream.enabled else " (disabled)"),
        f"{stream.committed_ranges:,}",
        f"{stream.committed_blocks:,}{total}",
        f"{stream.committed_rows:,}",
        human_bytes(stream.committed_bytes),
        str(stream.inflight),
        str(stream.failed),
        f"{stream.queued:,}" + (f" ({stream.backing_off} wait)" if stream.backing_off else ""),
        f"{rate:,.0f}" if rate else "-",
        "done" if stream.done else _left(stream.seconds_left),
        f"{human_seconds(stream.head_age_seconds)} ago" if stream.head_age_seconds is not None else "-",
        _verified(stream),
    ]


def _left(seconds: float | None) -> str:
    """``~2 h 10 min left``; a stream that follows the head and has none left is there."""
    if seconds is None:
        return "-"
    return f"~{human_seconds(seconds)} left" if seconds else "at the head"


def _verified(stream: StreamStatus) -> str:
    """How far committed ranges are proven; loud where nobody asked for proof."""
    reached = ", ".join(f"{level} {ranges:,}" for level, ranges in sorted(stream.verified.items()))
    loud = {"off": "NOT VERIFIED", "structural": "STRUCTURE ONLY"}.get(stream.verify)
    return " · ".join(filter(None, (loud, reached))) or stream.verify


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _update(bars: Progress, tasks: dict[str, TaskID], job: JobStatus) -> None:
    for stream in job.streams:
        if stream.dataset_key not in tasks:
            tasks[stream.dataset_key] = bars.add_task(stream.dataset_key, total=stream.total_blocks, note="")
        bars.update(tasks[stream.dataset_key], completed=stream.committed_blocks, note=_note(stream))


def _lines(console: Console, said: dict[str, int], job: JobStatus) -> None:
    for stream in job.streams:
        total = stream.total_blocks or 0
        tenth = stream.committed_blocks * 100 // total // _LOG_STEP_PERCENT if total else 0
        if said.get(stream.dataset_key) != tenth:
            said[stream.dataset_key] = tenth
            console.print(
                f"{stream.dataset_key}: {stream.committed_blocks:,}/{total:,} blocks {_note(stream)}",
                markup=False,
            )


def _note(stream: StreamStatus) -> str:
    parts = [f"{stream.inflight} in flight"] if stream.inflight else []
    if stream.failed:
        parts.append(f"{stream.failed} failed")
    if stream.blocked_reason:
        parts.append(stream.blocked_reason)
    if stream.seconds_left:
        parts.append(_left(stream.seconds_left))
    return ", ".join(parts)


def print_result(result: QueryResult, *, as_json: bool) -> None:
    """Rows on stdout: JSON for machines, a table for people."""
    if as_json:
        sys.stdout.write(json.dumps(to_json(result)) + "\n")
        return
    table = Table()
    for name, kind in result.columns:
        table.add_column(name, justify="right" if kind in _NUMBERS else "left", overflow="fold")
    for row in result.rows:
        table.add_row(*[_text(value(item, kind)) for item, (_, kind) in zip(row, result.columns, strict=True)])
    _console().print(table)
    if result.truncated:
        Console(stderr=True).print(f"only the first {len(result.rows):,} rows: see --limit", markup=False)


def _text(item: object) -> str:
    return "" if item is None else str(item)
