"""What each command shows: job status, plans, reports and query results on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trace_dagster.cli.tables import (
    Column,
    chain_title,
    human_bytes,
    human_seconds,
    number_of,
    print_line,
    print_table,
)
from trace_dagster.datasets.chains import chain_of
from trace_dagster.datasets.levels import reasons_line
from trace_dagster.messages.printable import printable
from trace_dagster.planning.reachable import chain_lines, stream_line
from trace_dagster.registry.endpoint_scores import EndpointScore
from trace_dagster.registry.status import JobStatus, StreamStatus
from trace_dagster.registry.unreliable_methods import UnreliableMethod

if TYPE_CHECKING:
    from trace_dagster.cli.compaction import CompactedWindow
    from trace_dagster.compaction.status import StreamFiles
    from trace_dagster.estimate.costs import Plan, StreamPlan
    from trace_dagster.maintenance.audit import Report

_LOG_STEP_PERCENT = 10
_NO_JOB = "no job is applied yet: `trace-lite apply --file examples/devchain.yaml`"


def _columns(left: str, right: str = "", *, then_left: str = "") -> list[Column]:
    """Return columns from headings that are separated by commas."""
    return [
        *((heading, "left") for heading in filter(None, left.split(","))),
        *((heading, "right") for heading in filter(None, right.split(","))),
        *((heading, "left") for heading in filter(None, then_left.split(","))),
    ]


_STATUS_COLUMNS = _columns(
    "stream", "ranges,blocks,rows,size,in flight,failed,queued,blocks/s,left,head seen", then_left="verified"
)
_PLAN_COLUMNS = _columns("stream", "blocks,ranges,runs,calls,rows,size,as sampled,at the limit")
_ENDPOINT_COLUMNS = _columns("endpoint", "lies,score,last", then_left="reason")
_UNRELIABLE_COLUMNS = _columns("endpoint,method", "asked again in", then_left="reason")
_GATEWAY_COLUMNS = _columns("endpoint", "calls received,sent,in requests,calls/s allowed,limit,429,faults,queued")
_FILE_COLUMNS = _columns(
    "job,stream", "files,uncompacted,average size,windows compacted,due,failed", then_left="compact"
)
_JOB_COLUMNS = _columns("job,id,chain,mode,state,streams")


@contextmanager
def progress() -> Iterator[Callable[[JobStatus], None]]:
    """Show a job's progress on stderr: a bar per stream in a terminal, else a line whenever a stream gained 10 %."""
    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as bars:
            tasks: dict[str, TaskID] = {}
            yield lambda job: _update(bars, tasks, job)
    else:
        shown: dict[str, int] = {}
        yield lambda job: _lines(console, shown, job)


def status_table(jobs: list[JobStatus]) -> None:
    """Print one table per job, and below it the history that its streams lack, lower levels, and why they wait."""
    if not jobs:
        print_line(_NO_JOB)
    for job in jobs:
        left = f" · {_left(job.seconds_left)}" if job.seconds_left else ""
        title = f"{job.name} · {chain_title(job.chain_id)} · {job.mode} · {job.state}{left}"
        print_table(_STATUS_COLUMNS, map(_cells, job.streams), title=title)
        for stream in job.streams:
            lines = (stream.missing, stream.lowered_line(), stream.blocked_reason, stream.last_error)
            for reason in filter(None, lines):
                print_line(f"{stream.dataset_key}: {reason}")


def print_plan(plan: Plan) -> None:
    """Print a table with a row per stream and their sum, then level and error of each stream, then notes."""
    title = f"{plan.job} · {chain_title(plan.chain_id)} · {plan.mode}"
    print_table(_PLAN_COLUMNS, [*map(_plan_cells, plan.streams), _plan_sum(plan)], title=title)
    for line in chain_lines(chain_of(plan.chain_id)):
        print_line(line)
    for each in plan.streams:
        if each.reach:
            print_line(f"{each.dataset_key}: {stream_line(each.stream, each.reach)}")
        if compaction := _compaction_line(each):
            print_line(f"{each.dataset_key}: {compaction}")
        if each.error:
            print_line(f"{each.dataset_key}: {each.error}")
    for note in plan.notes:
        print_line(f"note: {note}")


def _compaction_line(plan: StreamPlan) -> str | None:
    """Return what compaction will do with the ranges of a stream; None if nothing is planned or it is off."""
    if not plan.windows or plan.counts is None:
        return None
    windows = f"{number_of(plan.windows, 'window')} of {plan.window_blocks:,} blocks"
    become = f"become about {plan.compacted_files:,}" if plan.compacted_files is not None else "are compacted"
    return f"compaction: {number_of(plan.counts.ranges, 'file')} {become} in {windows}"


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


def files_table(files: Sequence[StreamFiles]) -> None:
    """Print the files of each stream and its windows, and below them why windows failed; nothing without files."""
    shown = [each for each in files if each.files]
    if not shown:
        return
    print_table(_FILE_COLUMNS, map(_file_cells, shown), title="files")
    for each in shown:
        if each.last_reason:
            print_line(f"{each.dataset_key}: not compacted: {each.last_reason}")


def _file_cells(each: StreamFiles) -> list[str]:
    return [
        each.job,
        each.dataset_key,
        *(f"{count:,}" for count in (each.files, each.uncompacted_files)),
        human_bytes(each.average_file_bytes or 0),
        *(f"{count:,}" for count in (each.windows_compacted, each.windows_due, each.windows_failed)),
        each.compact,
    ]


def endpoint_scores_table(scores: list[EndpointScore]) -> None:
    """Print the endpoints that gave rows which the chain contradicts; nothing if there are none."""
    if not scores:
        return
    rows = [
        (
            each.endpoint,
            f"{each.lies:,}",
            f"{each.score:.2f}",
            f"{human_seconds(each.last_lie_seconds)} ago",
            each.reason,
        )
        for each in scores
    ]
    print_table(_ENDPOINT_COLUMNS, rows, title="endpoints that lied")


def unreliable_methods_table(methods: list[UnreliableMethod]) -> None:
    """Print the methods that are not asked at an endpoint for a while; nothing if there are none."""
    if methods:
        rows = [(each.endpoint, each.method, human_seconds(each.left_seconds), each.reason) for each in methods]
        print_table(_UNRELIABLE_COLUMNS, rows, title="methods unreliable here")


def gateway_table(asked: dict[str, dict[str, Any]]) -> None:
    """Print the gateway's counters per endpoint; nothing if there are none."""
    if asked:
        rows = [_gateway_cells(name, each) for name, each in asked.items()]
        print_table(_GATEWAY_COLUMNS, rows, title="endpoints used through the gateway")


def _gateway_cells(name: str, each: dict[str, Any]) -> list[str]:
    return [
        name + (" (down)" if each["is_down"] else "") + (" (heads polled)" if each["is_subscribed"] is False else ""),
        *(f"{each[key]:,}" for key in ("calls_asked", "calls_sent", "requests_sent")),
        *("-" if each[key] is None else f"{each[key]:,.1f}" for key in ("rate", "limit")),
        *(f"{each[key]:,}" for key in ("refusals", "faults", "queued")),
    ]


@contextmanager
def counting(description: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """Show a progress bar on stderr, if it is a terminal. The caller gets a function that takes the total and returns
    the function to call after each item.
    """
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:

        def begin(total: int) -> Callable[[], None]:
            task = bars.add_task(printable(description), total=total)
            return lambda: bars.advance(task)

        yield begin


def verified_lines(report: Report, repaired: int, forgotten: int = 0) -> Iterator[str]:
    """Yield the lines of a verification report."""
    levels = ", ".join(f"{count:,} {level}" for level, count in sorted(report.levels.items()))
    yield (
        f"{report.ranges:,} ranges, {report.rows:,} rows, {report.objects:,} objects,"
        f" {human_bytes(report.bytes)} checked ({levels or 'none proven'})"
    )
    if report.lowered_blocks:
        lowered = ", ".join(f"{blocks:,} {level}" for level, blocks in sorted(report.lowered_blocks.items()))
        yield f"committed below the level of their dataset: {lowered} blocks: {reasons_line(report.lowered_reasons)}"
    if report.unproven_times:
        yield f"block_timestamp of {report.unproven_times:,} blocks is unproven: no full `blocks` are committed there"
    for found in report.findings:
        yield f"{found}"
    for text in report.unchecked:
        yield f"not checked: {text}"
    if repaired:
        yield f"{repaired:,} ranges are queued to be fetched again"
    if forgotten:
        yield f"{forgotten:,} hash indexes are forgotten: queries by hash scan the files of these blocks"
    if repaired or forgotten:
        return
    if report.findings:
        yield "`trace-lite verify --repair` invalidates the broken ranges and fetches them again"
    else:
        yield (
            "nothing is missing, nothing was altered"
            if report.passed
            else "everything that was checked is as committed"
        )


def compacted_lines(windows: Sequence[CompactedWindow]) -> Iterator[str]:
    """Yield a line per window, and their sum."""
    for each in windows:
        yield f"{each.job}: {each.dataset_key} {each.block_range}: {_compacted(each)}"
    done = [each for each in windows if each.files_after is not None and each.bytes_after is not None]
    if len(done) > 1:
        before, after = (sum(getattr(each, name) or 0 for each in done) for name in ("files_before", "files_after"))
        yield f"{len(done):,} windows: {before:,} files became {after:,}"
    if not windows:
        yield "no window is due: all are compacted, off, or not wholly committed (see `trace-lite status`)"


def _compacted(window: CompactedWindow) -> str:
    if window.files_after is None:
        return f"{window.outcome.replace('_', ' ')}: {window.reason}"
    before = f"{number_of(window.files_before or 0, 'file')} of {human_bytes(window.bytes_before or 0)}"
    if window.bytes_after is None:
        return f"{window.outcome.replace('_', ' ')}: {before} would become about {window.files_after:,}"
    after = f"{window.files_after:,} of {human_bytes(window.bytes_after)}"
    return f"{before} became {after}: {window.rows:,} rows in {window.seconds:.1f} s"


def jobs_table(jobs: list[JobStatus]) -> None:
    """Print one row per job."""
    if not jobs:
        print_line(_NO_JOB)
        return
    rows = [
        (
            job.name,
            job.job_id,
            str(job.chain_id),
            job.mode,
            job.state,
            ", ".join(stream.dataset_key for stream in job.streams),
        )
        for job in jobs
    ]
    print_table(_JOB_COLUMNS, rows)


def _cells(stream: StreamStatus) -> list[str]:
    total = f"/{stream.total_blocks:,}" if stream.total_blocks is not None else ""
    rate = stream.recent_blocks_per_second or stream.blocks_per_second
    return [
        stream.dataset_key + ("" if stream.enabled else " (disabled)"),
        f"{stream.committed_ranges:,}",
        f"{stream.committed_blocks:,}{total}" + (f" (+{stream.hot_blocks:,} hot)" if stream.hot_blocks else ""),
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
    """Return ``~2 hours and 10 minutes left``, or ``at the head`` if no blocks are left before the head."""
    if seconds is None:
        return "-"
    return f"~{human_seconds(seconds)} left" if seconds else "at the head"


def _verified(stream: StreamStatus) -> str:
    """Return how many ranges have each proof level, with a warning in capitals if proof is off or only structural."""
    reached = ", ".join(f"{level} {ranges:,}" for level, ranges in sorted(stream.verified.items()))
    warning = {"off": "NOT VERIFIED", "structural": "STRUCTURE ONLY"}.get(stream.verify)
    return " · ".join(filter(None, (warning, reached))) or stream.verify


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


def _update(bars: Progress, tasks: dict[str, TaskID], job: JobStatus) -> None:
    for stream in job.streams:
        if stream.dataset_key not in tasks:
            tasks[stream.dataset_key] = bars.add_task(stream.dataset_key, total=stream.total_blocks, note="")
        bars.update(tasks[stream.dataset_key], completed=stream.committed_blocks, note=printable(_note(stream)))


def _lines(console: Console, shown: dict[str, int], job: JobStatus) -> None:
    for stream in job.streams:
        total = stream.total_blocks or 0
        tenth = stream.committed_blocks * 100 // total // _LOG_STEP_PERCENT if total else 0
        if shown.get(stream.dataset_key) != tenth:
            shown[stream.dataset_key] = tenth
            text = f"{stream.dataset_key}: {stream.committed_blocks:,}/{total:,} blocks {_note(stream)}"
            print_line(text, console=console)


def _note(stream: StreamStatus) -> str:
    parts = [f"{stream.inflight} in flight"] if stream.inflight else []
    if stream.failed:
        parts.append(f"{stream.failed} failed")
    if stream.blocked_reason:
        parts.append(stream.blocked_reason)
    if stream.seconds_left:
        parts.append(_left(stream.seconds_left))
    return ", ".join(parts)
