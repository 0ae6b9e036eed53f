"""The functions behind the commands: apply, watch, status, pause, retry, sweep, query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trace_dagster.blocks import MAX_BLOCK, BlockRange
from trace_dagster.compaction.status import StreamFiles, stream_files
from trace_dagster.config.chain_sync import ChainSync, read
from trace_dagster.config.settings import Settings
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.maintenance.sweep import Swept, sweep
from trace_dagster.messages.printable import printable_lines
from trace_dagster.planning.bounds import is_symbolic, resolve
from trace_dagster.planning.reachable import job_lines
from trace_dagster.planning.run_groups import all_run_groups
from trace_dagster.registry.as_of import NO_CUT, AsOf
from trace_dagster.registry.changes import ChangeLog
from trace_dagster.registry.endpoint_scores import EndpointScore
from trace_dagster.registry.forms import old_form_notes
from trace_dagster.registry.jobs import Applied, Bounds
from trace_dagster.registry.migrations import is_current, migrate
from trace_dagster.registry.status import JobStatus, failed_ranges, job_statuses
from trace_dagster.registry.unreliable_methods import UnreliableMethod
from trace_dagster.runtime import Runtime, prepare_bucket

if TYPE_CHECKING:
    from trace_dagster.query.opening import Opening
    from trace_dagster.query.query_result import QueryResult
    from trace_dagster.query.runner import QueryRunner

Say = Callable[[str], None]

_POLL_SECONDS = 0.5
_STALL_SECONDS = 10.0
"""`apply --wait` ends after so long without progress if a job waits for blocks that the chain does not have yet."""


@contextmanager
def opened(settings: Settings, *, with_notes: bool = True) -> Iterator[Runtime]:
    """Open a runtime, and print which rows have an older form. Raises InvalidInput if the registry's schema is not
    current.
    """
    runtime = Runtime(settings.complete())
    try:
        if not is_current(runtime.settings.postgres_url):
            raise InvalidInput("the registry's schema is not current: run `trace-lite migrate`")
        if with_notes:
            _note_old_forms(runtime)
        yield runtime
    finally:
        runtime.close()


def _note_old_forms(runtime: Runtime) -> None:
    """Print a line on stderr for rows of an older form, a single time per command."""
    context = click.get_current_context(silent=True)
    said = context.find_root().ensure_object(set) if context else None
    for line in old_form_notes(runtime.database):
        if said is not None and line not in said:
            said.add(line)
            click.echo(printable_lines(f"note: {line}"), err=True)


def migrate_registry(settings: Settings, say: Say) -> None:
    """Migrate the registry's schema to this version."""
    applied = migrate(settings.postgres_url)
    say(f"applied {', '.join(applied)}" if applied else "the schema is current")
    with opened(settings) as runtime:
        if ChangeLog(runtime.database).restart_if_restored():
            say("the change log was restored from another Postgres server: it is emptied, and old cursors are refused")


def prepare_store(settings: Settings, say: Say) -> None:
    """Create the bucket, and try put, conditional put, get, list and delete on it.

    Without any setting of the object store this only says so: a migration may run where the bucket cannot be reached.
    """
    if not settings.object_store.is_set:
        say("note: no object store is set, its bucket was not checked: set TRACE_S3_ENDPOINT or AWS credentials")
        return
    prepare_bucket(settings)
    say(f"bucket {settings.s3.bucket}: put, conditional put, get, list and delete work")


def apply_file(path: Path, settings: Settings, say: Say, *, rebuild: bool = False) -> Applied:
    """Check a chain_sync file against its chain, register the job, plan it, and reload Dagster's code location.

    ``rebuild`` has the ranges of other columns or of an older form fetched again. Raises InvalidInput if the file
    changes what cannot change, before anything is asked of a node.
    """
    job = read(path)
    with opened(settings) as runtime:
        runtime.jobs.check(job, rebuild=rebuild)
        bounds = _bounds(job, runtime, say)
        for line in job_lines(job, bounds, lambda pool: runtime.pools.named(pool, job.chain_id).quorum):
            say(line)
        applied = runtime.jobs.apply(job, bounds, rebuild=rebuild)
        names = [
            group.name for group in all_run_groups(runtime.jobs.streams()) if group.streams[0].job_name == job.name
        ]
        runtime.heads.observe(stream for stream in runtime.jobs.streams() if stream.job_name == job.name)
        runtime.planner.plan()
        runtime.outbox.publish(runtime.queue)
    say(f"{'registered' if applied.created else 'updated'} {job.name}: {', '.join(applied.streams)}")
    for key, ranges in applied.rebuilt.items():
        if ranges:
            say(f"{key}: {ranges:,} ranges are left out until their next generation is committed")
    if applied.disabled:
        say(f"no longer synced (their data stays): {', '.join(applied.disabled)}")
    _reload(settings, names, say)
    return applied


def watch(name: str, settings: Settings, say: Say) -> int:
    """Show progress until the job is complete or cannot go on; returns the exit code."""
    from trace_dagster.cli.render import progress

    with opened(settings) as runtime, progress() as show:
        moved = time.monotonic()
        committed = -1
        while True:
            job = _job(runtime, name)
            show(job)
            total = sum(stream.committed_ranges for stream in job.streams)
            if total != committed:
                committed, moved = total, time.monotonic()
            outcome = _outcome(job, runtime, stalled=time.monotonic() - moved > _STALL_SECONDS)
            if outcome is not None:
                code, lines = outcome
                break
            time.sleep(_POLL_SECONDS)
    for line in lines:
        say(line)
    return code


def read_status(settings: Settings, job_name: str | None) -> list[JobStatus]:
    """Return the status of every job, or of one by name or id. Raises InvalidInput if there is no such job."""
    with opened(settings) as runtime:
        found = job_statuses(runtime.database, runtime.jobs)
    if job_name is None:
        return found
    named = [job for job in found if job_name in (job.name, job.job_id)]
    if not named:
        known = ", ".join(job.name for job in found) or "none yet"
        raise InvalidInput(f"no job is called {job_name!r}; known: {known}")
    return named


def read_files(settings: Settings, jobs: Sequence[JobStatus]) -> list[StreamFiles]:
    """Return how the files of each stream of these jobs stand."""
    wanted = {job.name for job in jobs}
    with opened(settings) as runtime:
        streams = [stream for stream in runtime.jobs.streams() if stream.job_name in wanted]
        return [stream_files(runtime.database, runtime.due_windows, stream) for stream in streams]


def read_endpoint_scores(settings: Settings) -> list[EndpointScore]:
    """Return the penalty of every RPC endpoint that returned data which the chain contradicts."""
    with opened(settings) as runtime:
        return runtime.endpoint_scores.all()


def read_unreliable_methods(settings: Settings) -> list[UnreliableMethod]:
    """Return the methods that are not asked at an endpoint for a while."""
    with opened(settings) as runtime:
        return runtime.unreliable_methods.all()


def read_gateway(settings: Settings, say: Say) -> dict[str, dict[str, Any]]:
    """Return the gateway's counters per endpoint. Warns and returns an empty mapping if the gateway does not answer."""
    url = settings.gateway_url
    if url is None:
        return {}
    from trace_dagster.gateway.status_client import endpoints_asked

    try:
        return endpoints_asked(url)
    except Unavailable as error:
        say(f"warning: {error}")
        return {}


def set_paused(job_name: str, settings: Settings, say: Say, *, paused: bool) -> None:
    """Pause or resume a job. Ranges under way are finished; a paused job gets no further lease."""
    with opened(settings) as runtime:
        name = _name(runtime, job_name)
        if not paused:
            runtime.jobs.require_present_form(job_name)
        changed = runtime.jobs.set_enabled(name, not paused)
        runtime.outbox.publish(runtime.queue)
    say(f"{name} is {'paused' if paused else 'running'}{'' if changed else ' already'}")


def requeue(
    job_name: str,
    dataset_key: str | None,
    block_range: BlockRange | None,
    states: Sequence[str],
    settings: Settings,
) -> int:
    """Queue failed or committed ranges again; returns how many. Raises InvalidInput if job or stream is unknown."""
    with opened(settings) as runtime:
        job_id = runtime.jobs.find(job_name)
        runtime.jobs.require_present_form(job_name)
        if dataset_key is not None:
            runtime.jobs.stream_of(job_name, dataset_key)
        found = runtime.tasks.requeue(job_id, dataset_key, block_range or BlockRange(0, MAX_BLOCK), states)
        runtime.outbox.publish(runtime.queue)
    return found


def run_sweep(settings: Settings, grace_seconds: float, *, dry_run: bool) -> Swept:
    """Remove objects that no commit needs or can still need; see :mod:`trace_dagster.maintenance.sweep`."""
    with opened(settings) as runtime:
        return sweep(
            runtime.database,
            runtime.store,
            grace_seconds=grace_seconds,
            dry_run=dry_run,
            changes_days=settings.registry.changes_days,
            query_log_days=settings.query.log_days,
        )


def _name(runtime: Runtime, job_name: str) -> str:
    job_id = runtime.jobs.find(job_name)
    return next(stream.job_name for stream in runtime.jobs.streams() if stream.job_id == job_id)


def _bounds(job: ChainSync, runtime: Runtime, say: Say) -> Bounds:
    """Resolve the bounds on the first stream's pool. Raises if a pool does not serve the job's chain."""
    for name in sorted({stream.rpc_pool for stream in job.streams.values()}):
        runtime.pools.named(name, job.chain_id)
    known = runtime.jobs.resolved(job) if is_symbolic(job) else None
    final = _finality(job, runtime, say, is_needed=is_symbolic(job) and known is None)
    if known is not None:
        return known

    def finalized() -> int:
        if final is None:
            raise InvalidInput("the fake engine has no head: write from_block and to_block as numbers")
        return final

    bounds = resolve(job, finalized)
    if is_symbolic(job):
        say(f"bounds resolved to [{bounds.from_block}, {bounds.to_block or 'head'})")
    elif final is not None and bounds.to_block is not None and bounds.to_block > final + 1:
        say(f"note: the chain is final up to block {final}; ranges after it wait until they are final")
    return bounds


def _finality(job: ChainSync, runtime: Runtime, say: Say, *, is_needed: bool) -> int | None:
    """Say which rule of finality holds at each pool; return the final block at the first stream's pool.

    Returns None for the fake engine, and if the pool does not say it although no bound needs it.
    """
    if not runtime.needs_rpc:
        return None
    from trace_dagster.rpc.finality import chain_head, finality_note

    found: dict[str, int] = {}
    first = next(iter(job.streams.values())).rpc_pool
    for name in dict.fromkeys(stream.rpc_pool for stream in job.streams.values()):
        pool = runtime.pools.named(name, job.chain_id)
        try:
            head = chain_head(pool, chain_of(job.chain_id), job.finality_blocks)
        except TraceError as error:
            if is_needed and name == first:
                raise
            say(f"note: {error.message}")
            continue
        found[name] = head.finalized
        say(finality_note(pool, head))
    return found.get(first)


def _reload(settings: Settings, names: list[str], say: Say) -> None:
    from trace_dagster.cli.dagster_client import DagsterWeb

    url = settings.stack.web_url
    if url:
        DagsterWeb(url, settings.web_password).reload(names)
        say(f"{', '.join(names)} in the UI: {url}")
    else:
        say("reload the code location in Dagster's UI to see it (or set TRACE_WEB_URL)")


def _job(runtime: Runtime, name: str) -> JobStatus:
    try:
        return next(job for job in job_statuses(runtime.database, runtime.jobs) if job.name == name)
    except StopIteration:
        raise InvalidInput(f"no job is called {name!r}") from None


def _outcome(job: JobStatus, runtime: Runtime, *, stalled: bool) -> tuple[int, list[str]] | None:
    enabled = [stream for stream in job.streams if stream.enabled]
    if job.state == "complete":
        lowered = [f"{each.dataset_key}: {line}" for each in enabled if (line := each.lowered_line())]
        return 0, [f"{job.name}: every range is committed", *lowered]
    if not job.enabled:
        return 1, [f"{job.name} is paused: `trace-lite resume --job {job.name}`"]
    busy = any(stream.inflight or stream.queued for stream in enabled)
    failed = sum(stream.failed for stream in enabled)
    if failed and not busy:
        reasons = failed_ranges(runtime.database, runtime.jobs, job.name)
        again = f"`trace-lite retry --job {job.name}` tries them again"
        return 1, [f"{job.name}: {failed} ranges failed", *reasons, again]
    blocked = [stream for stream in enabled if stream.blocked_reason]
    if blocked and not busy and stalled:
        return 1, [f"{job.name}: {stream.dataset_key}: {stream.blocked_reason}" for stream in blocked]
    return None


def run_query(
    sql: str, settings: Settings, limit: int, parameters: Mapping[str, Any] | None = None, as_of: AsOf = NO_CUT
) -> QueryResult:
    """Run one SELECT over everything that is committed or hot. Returns at most ``limit`` rows.

    ``parameters`` are the values of ``$name``. Raises Corrupt if an object that the SQL reads is missing or altered,
    and what :func:`trace_dagster.registry.as_of.cuts` raises.
    """
    with opened_core(settings) as (opening, runner):
        return opening.query(runner, sql, limit, parameters, as_of)


@contextmanager
def opened_core(settings: Settings) -> Iterator[tuple[Opening, QueryRunner]]:
    """Open what runs one query in this process. The snapshot of its answer has the notes."""
    from trace_dagster.cli.query_limits import limits_of
    from trace_dagster.query.opening import Opening
    from trace_dagster.query.runner import QueryRunner

    # the runner's process starts while the registry is read
    with QueryRunner(limits_of(settings.query), refill=False) as runner, opened(settings, with_notes=False) as runtime:
        yield Opening(runtime.catalog, runtime.settings.s3_for_queries, runtime.committed_objects), runner
