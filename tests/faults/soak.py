"""A soak test: the whole stack works on thousands of ranges while its processes are killed repeatedly.

    make soak
    python -m tests.faults.soak --ranges 2000 --seed 1 --minutes 20 --report soak.json

Real Postgres, S3, Dagster and Cryo; the node is the devchain behind a proxy that fails a share of the requests. At the
end every row is compared with the chain's own. The seed fixes which faults are drawn, not their timing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil
import psycopg

from tests.support.chaos import Chaos, connected
from tests.support.lake_truth import COLUMNS, differences
from tests.support.registry import assert_registry_sound
from trace_dagster.chaos_rpc.proxy import ChaosRpc, chaos_rpc
from trace_dagster.config.running_stack import StackState, load_state
from trace_dagster.config.settings import Settings
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID, FINAL_BEHIND
from trace_dagster.lite.devchain import SEED as CHAIN_SEED
from trace_dagster.lite.stack import Stack, down
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore

ROOT = Path(__file__).parents[2]
JOB = "soak"
POOL = "faulty"
CHUNK_BLOCKS = 10
FAULT_RATE = 0.03
FAULTS = ("http_500", "http_429_text", "reset", "null_result", "malformed_json", "delay")
"""Faults that an engine or a structural check can detect; only verification detects lists that are too short."""
LEASE_TTL_SECONDS = 5

MATERIALIZATIONS_REQUIRED = True
"""True if a range that Dagster does not show fails the soak test, False if it is only a warning in the report."""

MATERIALIZED_WITHIN_SECONDS = 60.0
RETRY_EVERY_SECONDS = 60.0
STALL_SECONDS = 45.0
"""Seconds without a commit after which the state of all parts is printed."""

_PROGRESS_SECONDS = 5.0

JOB_FILE = """kind: chain_sync
name: {job}
chain_id: {chain_id}
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: {pool}, chunk_size: {chunk}, max_inflight: 8, compact: off}}
streams:
{streams}
"""

_TASKS = """
select count(*) filter (where state = 'committed') as committed,
       count(*) filter (where state = 'queued') as queued,
       count(*) filter (where state = 'running' and lease_expires_at >= now()) as running,
       count(*) filter (where state = 'running' and lease_expires_at < now()) as lapsed,
       count(*) filter (where state in ('failed', 'dead')) as failed
from trace.tasks where state <> 'superseded'
"""
_ATTEMPTS = """
select count(*) as total,
       count(*) filter (where state in ('committed', 'confirmed')) as committed,
       count(*) filter (where state = 'failed') as failed,
       count(*) filter (where state = 'expired') as expired,
       count(*) filter (where state = 'running') as running,
       count(*) filter (where attempt > 1) as retries,
       count(*) filter (where attempt > 1 and state in ('committed', 'confirmed')) as recovered
from trace.attempts
"""
_REASONS = """
select left(regexp_replace(error, ' ?range=\\[[^)]*\\)|\\d+', '', 'g'), 110) as reason, count(*) as n
from trace.attempts where error is not null group by 1 order by 2 desc limit 15
"""
_FAILED = """
select d.dataset_key, t.block_range::text as range, t.state, t.attempt, t.error
from trace.tasks t join trace.datasets d using (dataset_uuid)
where t.state in ('failed', 'dead') order by t.block_range limit 20
"""
_STUCK = """
select 'tasks' as what, json_agg(x)::text as is from (
  select state, count(*) as n, count(batch_id) as batched, count(*) filter (where not_before > now()) as backing_off,
         round(extract(epoch from now() - max(lease_expires_at))) as newest_lease_lapsed_s,
         round(extract(epoch from now() - max(woken_at))) as last_woken_s_ago
  from trace.tasks where state <> 'committed' group by state) x
union all select 'open batches', json_agg(x)::text from (
  select left(batch_id::text, 8) as batch, cardinality(keys) as keys, launched_at is not null as launched,
         round(extract(epoch from now() - created_at)) as age_s from trace.batches where closed_at is null) x
union all select 'messages', json_agg(x)::text from (
  select count(*) as n, count(*) filter (where visible_at <= now()) as visible, max(deliveries) as deliveries,
         round(extract(epoch from max(visible_at) - now())) as last_visible_in_s,
         (select count(*) from trace.queue_dead) as dead from trace.queue_messages) x
union all select 'runs', json_agg(x)::text from (
  select status, count(*) as n, left(max(run_id), 8) as one,
         round(extract(epoch from (now() at time zone 'utc') - max(update_timestamp))) as newest_change_s_ago
  from dagster.runs group by status) x
union all select 'sensors', json_agg(x)::text from (
  select (t.tick_body::json) ->> 'instigator_name' as sensor, t.status,
         round(extract(epoch from (now() at time zone 'utc') - max(t.timestamp))) as last_s_ago
  from dagster.job_ticks t where t.timestamp > (now() at time zone 'utc') - interval '3 minutes' group by 1, 2) x
"""
_MATERIALIZED = """
select count(distinct partition) from dagster.event_logs
where dagster_event_type = 'ASSET_MATERIALIZATION' and asset_key = %s
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a soak test."""

    ranges: int = 2000
    seed: int = 1
    minutes: float = 30.0
    chaos_until: float = 1.0
    """Share of committed ranges after which no process is killed any more, so that a short test ends in time."""
    strikes: int | None = None
    """Most faults to inject; each kind comes one time before any kind comes again."""
    every_seconds: tuple[float, float] = (4.0, 12.0)
    overlap: bool = False
    """True to kill a service also while another one is being restarted."""
    home: Path | None = None

    @property
    def blocks(self) -> int:
        """Blocks to sync, so that all streams together have at least ``ranges`` ranges."""
        return -(-self.ranges // len(COLUMNS)) * CHUNK_BLOCKS

    @property
    def planned(self) -> int:
        """Number of planned ranges."""
        return self.blocks // CHUNK_BLOCKS * len(COLUMNS)


@dataclass(slots=True)
class Report:
    """The result of a soak test."""

    seed: int
    ranges: int
    complete: bool = False
    seconds: float = 0.0
    """Seconds from apply to the last commit."""
    committed: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    rpc_requests: int = 0
    rpc_faults: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """Attempts that ended without a commit, by reason."""
    retry_commands: int = 0
    requeued: list[str] = field(default_factory=list)
    longest_pause_seconds: float = 0.0
    """The longest time without a commit, in seconds."""
    restarts: dict[str, int] = field(default_factory=dict)
    tracebacks: dict[str, int] = field(default_factory=dict)
    """Tracebacks in the services' logs by service and last line. Not all are defects, because processes were killed."""
    missing_materializations: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if no range is missing, duplicate, wrong or unfinished."""
        return self.complete and not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {"ok": self.ok, **found, "ranges_per_second": self.rate}

    @property
    def rate(self) -> float:
        """Committed ranges per second."""
        return round(self.committed / self.seconds, 2) if self.seconds else 0.0


class Clock:
    """Prints lines with the seconds since the start. Thread-safe."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self.progress = ""

    def say(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            print(f"{time.monotonic() - self._started:7.1f}s {self.progress:>14}  {text}", flush=True)


class Soak:
    """One soak test over a running stack."""

    def __init__(
        self, options: Options, state: StackState, environment: Mapping[str, str], home: Path, clock: Clock
    ) -> None:
        self._options = options
        self._state = state
        self._environment = {**environment, "TRACE_HOME": str(home)}
        self._home = home
        self._clock = clock
        self._say = clock.say
        self.report = Report(options.seed, options.planned)

    def run(self) -> Report:
        """Apply the job, kill processes until everything is committed or the time is up, then check."""
        chaos = Chaos(
            self._state,
            seed=self._options.seed,
            say=self._say,
            every_seconds=self._options.every_seconds,
            overlap=self._options.overlap,
            most=self._options.strikes,
        )
        started = time.monotonic()
        try:
            self._apply()
            chaos.start()
            self._wait(chaos, started + self._options.minutes * 60)
        finally:
            chaos.stop()
            self.report.seconds = round(time.monotonic() - started, 1)
            self.report.kills = dict(chaos.strikes)
        if self.report.complete:
            self._check()
        else:
            self._explain()
        self._read_attempts()
        self._read_logs()
        return self.report

    def _apply(self) -> None:
        path = self._home.parent / "soak.yaml"
        streams = "\n".join(f"  {name}: {{cryo_dataset_name: {name}}}" for name in COLUMNS)
        path.write_text(
            JOB_FILE.format(
                job=JOB, chain_id=CHAIN_ID, blocks=self._options.blocks, pool=POOL, chunk=CHUNK_BLOCKS, streams=streams
            )
        )
        for _ in range(10):  # the proxy also fails requests of apply
            done = self._cli("apply", "--file", str(path))
            if done.returncode == 0:
                self._say(f"applied: {self._options.planned} ranges over {self._options.blocks} blocks")
                return
            self._say(f"apply failed, again: {done.stderr.strip()[-200:]}")
        raise SystemExit("error: the job could not be applied")

    def _wait(self, chaos: Chaos, deadline: float) -> None:
        moved = said = warned = retried = time.monotonic()
        committed = -1
        while (now := time.monotonic()) < deadline:
            if load_state(self._home) is None:
                self.report.problems.append("the stack ended by itself: " + self._supervisor_says())
                return
            tasks = self._tasks()
            if tasks["committed"] > committed >= 0 or committed < 0:
                self.report.longest_pause_seconds = max(self.report.longest_pause_seconds, round(now - moved, 1))
                committed, moved, warned = max(committed, tasks["committed"]), now, now
            self._clock.progress = f"{committed}/{self._options.planned}"
            self.report.committed = committed
            if committed >= self._options.chaos_until * self._options.planned:
                chaos.stop()
            if committed >= self._options.planned and self._is_complete():
                self.report.complete = True
                return
            if now - said > _PROGRESS_SECONDS:
                self._say("progress: " + (_pairs(tasks) or "no task, or no database"))
                said = now
            if now - warned > STALL_SECONDS:
                self._say(f"stall: no commit for {now - moved:.0f} s")
                self._explain_stall()
                warned = now
            if tasks["failed"] and now - retried > RETRY_EVERY_SECONDS:
                self._retry_failed()
                retried = now
            time.sleep(1)

    def _tasks(self) -> dict[str, int]:
        """Return the tasks by state; all zero while the database is down."""
        row = self._row(_TASKS)
        return row or dict.fromkeys(("committed", "queued", "running", "lapsed", "failed"), 0)

    def _is_complete(self) -> bool:
        """Return whether ``trace-lite status`` says that every range is committed."""
        done = self._cli("status", "--json", "--job", JOB)
        return done.returncode == 0 and json.loads(done.stdout)["jobs"][0]["state"] == "complete"

    def _retry_failed(self) -> None:
        for row in self._rows(_FAILED):
            line = f"{row['dataset_key']} {row['range']} {row['state']} after {row['attempt']} attempts: {row['error']}"
            self.report.requeued.append(line)
            self._say(f"failed: {line}")
        done = self._cli("retry", "--job", JOB)
        self.report.retry_commands += done.returncode == 0
        self._say(f"retry: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")

    def _check(self) -> None:
        self._say("complete; comparing every row with the chain's own")
        chain = DevChain(CHAIN_SEED, self._options.blocks)
        variables = self._state.environment()
        database = Database(variables["TRACE_POSTGRES_URL"])
        store = ObjectStore(Settings.read(variables).s3)
        try:
            wrong = differences(database, store, chain, self._options.blocks)
            self.report.problems += [f"{dataset}: {text}" for dataset, text in wrong.items()]
            assert_registry_sound(database, store)
        except AssertionError as error:
            self.report.problems.append(f"the registry is not sound: {error!r}")
        finally:
            database.close()
        running = self._row("select count(*) as n from trace.attempts where state = 'running'")
        if not running or running["n"]:
            self.report.problems.append(f"attempts still running: {running}")
        self._check_materializations()

    def _check_materializations(self) -> None:
        """Check that Dagster has an event for each commit; a sensor repairs those that were lost with their run."""
        expected = self._options.blocks // CHUNK_BLOCKS
        deadline = time.monotonic() + MATERIALIZED_WITHIN_SECONDS
        missing: dict[str, int] = {}
        while True:
            for dataset in COLUMNS:
                row = self._row(_MATERIALIZED, (json.dumps([str(CHAIN_ID), dataset]),))
                missing[dataset] = expected - (row["count"] if row else 0)
            if not any(missing.values()) or time.monotonic() > deadline:
                break
            time.sleep(2)
        self.report.missing_materializations = {name: count for name, count in missing.items() if count}
        if self.report.missing_materializations:
            text = f"partitions Dagster does not show as materialized: {self.report.missing_materializations}"
            (self.report.problems if MATERIALIZATIONS_REQUIRED else self.report.warnings).append(text)

    def _explain(self) -> None:
        """Print the state of an unfinished soak test."""
        self._say(self._cli("status", "--job", JOB).stderr or "no status")
        self._explain_stall()
        for row in self._rows(_FAILED):
            self._say(f"{row['state']}: {row['dataset_key']} {row['range']}: {row['error']}")
        if not self.report.problems:
            self.report.problems.append(
                f"not complete in time: {self.report.committed} of {self._options.planned} ranges"
            )

    def _explain_stall(self) -> None:
        for row in self._rows(_STUCK):
            self._say(f"  {row['what']}: {row['is']}")

    def _read_attempts(self) -> None:
        self.report.attempts = self._row(_ATTEMPTS) or {}
        self.report.reasons = {row["reason"]: row["n"] for row in self._rows(_REASONS)}

    def _read_logs(self) -> None:
        self.report.restarts = dict(
            Counter(
                line.split(" died: starting")[0]
                for line in self._log("supervisor").splitlines()
                if " died: starting" in line
            )
        )
        found: Counter[str] = Counter()
        for log in sorted((self._home / "logs").glob("*.log")):
            for last in _last_lines_of_tracebacks(log.read_text(errors="replace")):
                found[f"{log.stem}: {last[:160]}"] += 1
        self.report.tracebacks = dict(found.most_common(25))

    def _supervisor_says(self) -> str:
        with suppress(psutil.Error):
            psutil.Process(self._state.pid).wait(60)  # its reason comes last, when everything has ended
        return (self._log("supervisor").strip().splitlines() or ["nothing"])[-1]

    def _log(self, name: str) -> str:
        path = self._home / "logs" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _row(self, statement: str, values: tuple[object, ...] = ()) -> dict[str, Any] | None:
        return next(iter(self._rows(statement, values)), None)

    def _rows(self, statement: str, values: tuple[object, ...] = ()) -> list[dict[str, Any]]:
        """Return rows as dicts; an empty list while the database is down."""
        try:
            with connected(self._state) as connection:
                cursor = connection.execute(statement, values or None)
                names = [column.name for column in cursor.description or ()]
                return [dict(zip(names, row, strict=True)) for row in cursor]
        except psycopg.OperationalError:
            return []

    def _cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``trace-lite`` as a user would; print the error of a command that fails during an outage."""
        return subprocess.run(
            [sys.executable, "-m", "trace_dagster.cli.main", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            cwd=ROOT,
        )


def run_soak(options: Options) -> Report:
    """Run a soak test over its own stack, and end the stack."""
    clock = Clock()
    with ExitStack() as stack:
        proxy = stack.enter_context(chaos_rpc(None, faults=FAULTS, rate=FAULT_RATE, seed=options.seed))
        home = options.home or Path(mkdtemp(prefix="trace-soak-")) / "home"
        home.parent.chmod(0o755)  # when run as root, Postgres is another user, who must be able to enter the folder
        environment = soak_environment(home, options, proxy)
        state = stack.enter_context(_running(home, environment, clock.say))
        proxy.upstream_url = f"http://{state.devchain_address}"
        report = Soak(options, state, environment, home, clock).run()
        report.rpc_requests, report.rpc_faults = proxy.requests, dict(proxy.injected)
    if not report.ok:
        clock.say(f"kept to look at: {home}")
    elif options.home is None:
        _remove(home.parent)
    return report


def soak_environment(home: Path, options: Options, proxy: ChaosRpc) -> dict[str, str]:
    """Return the stack's environment: none of the shell's settings, short leases, many tries."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "AWS_"))}
    return kept | {
        "TRACE_HOME": str(home),
        "TRACE_DEVCHAIN_BLOCKS": str(options.blocks + FINAL_BEHIND),
        "TRACE_LEASE_TTL_SECONDS": str(LEASE_TTL_SECONDS),
        "TRACE_MAX_ATTEMPTS": "20",
        "TRACE_RETRY_BASE_SECONDS": "1",
        f"TRACE_RPC_POOL_{POOL.upper()}_URL": proxy.url,
    }


@contextmanager
def _running(home: Path, environment: dict[str, str], say: Say) -> Iterator[StackState]:
    """Run a stack with a separate supervisor process, which restarts what is killed."""
    try:
        yield Stack(Settings.read({**environment, "TRACE_HOME": str(home)})).start_detached(say)
    finally:
        down(home)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _last_lines_of_tracebacks(text: str) -> Iterator[str]:
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and line and not line[0].isspace():
            inside = False
            yield line


def summary(report: Report) -> str:
    """Return the table that is printed at the end."""
    rows: list[tuple[str, object]] = [
        ("seconds", report.seconds),
        ("ranges", f"{report.committed} of {report.ranges}"),
        ("ranges per second", report.rate),
        ("longest pause without a commit, s", report.longest_pause_seconds),
        ("attempts", _pairs({k: v for k, v in report.attempts.items() if k not in ("retries", "recovered")})),
        ("retries (attempts after the first)", report.attempts.get("retries", 0)),
        ("recovered (of them, committed)", report.attempts.get("recovered", 0)),
        ("retry commands", report.retry_commands),
        ("kills", f"{sum(report.kills.values())}: {_pairs(report.kills)}"),
        ("service restarts", _pairs(report.restarts)),
        ("rpc requests", report.rpc_requests),
        ("rpc faults", f"{sum(report.rpc_faults.values())}: {_pairs(report.rpc_faults)}"),
        ("materializations missing", _pairs(report.missing_materializations) or 0),
        *(("attempt ended", f"{count} x {reason[:120]}") for reason, count in report.reasons.items()),
        *(("traceback", f"{count} x {line}") for line, count in report.tracebacks.items()),
        *(("warning", text) for text in report.warnings),
        *(("PROBLEM", text) for text in report.problems),
        ("outcome", "ok" if report.ok else "FAILED"),
    ]
    return "\n".join(f"{name:<36} {value}" for name, value in rows)


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count)


def main() -> int:
    """Run the command line."""
    usual = Options()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranges", type=int, default=usual.ranges, help="at least so many, over all streams")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--minutes", type=float, default=usual.minutes, help="give up after so many")
    parser.add_argument("--report", type=Path, help="write the summary as JSON")
    parser.add_argument("--home", type=Path, help="keep the stack's files here")
    parser.add_argument("--every", type=float, nargs=2, default=usual.every_seconds, help="seconds between strikes")
    parser.add_argument("--overlap", action="store_true", help="also kill services while others are being restarted")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the stack is ended when this exits
    options = Options(
        ranges=asked.ranges,
        seed=asked.seed,
        minutes=asked.minutes,
        every_seconds=tuple(asked.every),
        home=asked.home,
        overlap=asked.overlap,
    )
    report = run_soak(options)
    print(summary(report), flush=True)
    if asked.report:
        asked.report.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
