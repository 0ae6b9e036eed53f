"""The cost of one range: thousands of tiny ranges in one backfill, launched as Dagster's UI launches it.

    .venv/bin/python -m bench.ranges [--ranges 10000] [--size 1] [--latency 0 0.05]

One stream of blocks. Before its job is applied the wake-up sensor is stopped with the mutation of its switch in the UI:
heads are observed, ranges planned and partitions added as usual, but no run is started, so that the backfill does all
the work. The cost of extraction is measured with bare Cryo, with as many calls as there are ranges.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import psycopg
from dagster_graphql import DagsterGraphQLClient

from bench.bare import Bare, collect_each
from bench.product import CLOCK_SECONDS, Line, apply, hide, place, sync
from bench.table import Compared, cpu_note, grouped, machine, markdown, middle
from bench.usage import Usage
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.dagster_client import LOCATION
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import STACK_VARIABLE

DATASET = "blocks"
SENSOR = "trace_wakeups"
KEYS_SECONDS = 120.0
FAR_CALLS = 200
"""Bare calls to a node with latency; thousands of sequential calls would only wait."""
STALL_SECONDS = 300.0
"""Seconds without a commit after which the backfill has failed; a run takes about ten seconds to start."""

_POLL_SECONDS = 1.0
_SENSOR = """
query Sensor($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) { __typename ... on Sensor { sensorState { id } } }
}
"""
_STOP = """
mutation Stop($id: String!) {
  stopSensor(id: $id) { __typename ... on StopSensorMutationResult { instigationState { status } } }
}
"""
_START = """
mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }
"""
_KEYS = """
query Keys($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { partitionKeys } } }
"""
_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
_COMMITS = """
select extract(epoch from a.ended_at)::float8, v.row_count
from trace.attempts a join trace.dataset_versions v using (task_id, attempt)
join trace.streams s on s.dataset_uuid = v.dataset_uuid join trace.jobs j using (job_id)
where j.name = %s and a.state = 'committed' order by 1
"""
_LEFT = """
select lower(t.block_range), t.state, coalesce(a.error, 'no attempt says why') from trace.tasks t
left join trace.attempts a on (a.task_id, a.attempt) = (t.task_id, t.attempt)
join trace.streams s using (dataset_uuid) join trace.jobs j using (job_id)
where j.name = %s and t.state <> 'committed' order by 1 limit 3
"""
_COUNT = """
select count(*) from trace.tasks t join trace.streams s using (dataset_uuid) join trace.jobs j using (job_id)
where j.name = %s and t.state = 'committed'
"""


@dataclass(frozen=True, slots=True)
class Ranges:
    """One backfill. Times are seconds since the launch."""

    commits: tuple[float, ...]
    spent: tuple[float, float, float]
    """CPU seconds of the stack: in all, until a tenth of the commits, in the last tenth."""
    cpu: dict[str, float]
    """CPU seconds by part."""
    rows: int
    line: Line
    bare: Bare
    bare_calls: int

    @property
    def bare_ms(self) -> tuple[float, float]:
        """Elapsed and CPU milliseconds of one bare call."""
        return self.bare.seconds / self.bare_calls * 1e3, self.bare.cpu_seconds / self.bare_calls * 1e3

    @property
    def tenths(self) -> tuple[float, float]:
        """Seconds of the first tenth of the ranges, from the first commit, and of the last tenth."""
        tenth = len(self.commits) // 10
        return self.commits[tenth] - self.commits[0], self.commits[-1] - self.commits[-1 - tenth]


class Web:
    """A client of the web server that sends the UI's queries."""

    def __init__(self, port: int) -> None:
        self._client = DagsterGraphQLClient(HOST, port_number=port)
        self._sensor = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "sensorName": SENSOR,
        }

    @property
    def has_wakeups(self) -> bool:
        """Return whether the sensor exists; there is none before the first job."""
        return bool(self._sensor_now()["__typename"] == "Sensor")

    def stop_wakeups(self) -> None:
        """Stop the sensor, so that no run is started for ranges that are planned from now on."""
        answer = self._ask(_STOP, id=self._sensor_now()["sensorState"]["id"])["stopSensor"]
        if answer.get("instigationState", {}).get("status") != "STOPPED":
            raise RuntimeError(f"the sensor was not stopped: {answer}")

    def start_wakeups(self) -> None:
        """Start the sensor again."""
        self._ask(_START, selector=self._sensor)

    def await_keys(self, dataset_key: str, wanted: int) -> None:
        """Wait until the asset's page shows all partitions, which the planner's sensor adds."""
        deadline = time.monotonic() + KEYS_SECONDS
        while len(self._ask(_KEYS, key={"path": _path(dataset_key)})["assetNodeOrError"]["partitionKeys"]) < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the partitions of {dataset_key} are not known to Dagster")
            time.sleep(_POLL_SECONDS)

    def backfill(self, dataset_key: str, keys: list[str]) -> None:
        """Launch a backfill of these partitions."""
        params = {"assetSelection": [{"path": _path(dataset_key)}], "partitionNames": keys}
        answer = self._ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise RuntimeError(f"the backfill was not launched: {answer}")

    def _sensor_now(self) -> Any:
        return self._ask(_SENSOR, selector=self._sensor)["sensorOrError"]

    def _ask(self, query: str, **variables: Any) -> Any:
        return self._client._execute(query, variables)


def measure(environment: Mapping[str, str], line: Line, *, ranges: int, size: int = 1, number: int = 0) -> Ranges:
    """Commit ``ranges`` ranges of ``size`` blocks by one backfill; the node's chain must have the blocks."""
    name = f"ranges_{line.pool}_{number}"
    dataset_key = f"{DATASET}_{name}"
    web = Web(int(environment["TRACE_WEB_URL"].rsplit(":", 1)[1]))
    if not web.has_wakeups:
        sync("first", environment, blocks=size, chunk=size, verify="structural", datasets=(DATASET,), pool=line.pool)
    hide(environment)
    web.stop_wakeups()
    try:
        apply(
            name,
            environment,
            blocks=ranges * size,
            chunk=size,
            verify="structural",
            datasets=(DATASET,),
            pool=line.pool,
        )
        web.await_keys(dataset_key, ranges)
        with Usage(environment[STACK_VARIABLE], CLOCK_SECONDS) as usage:
            launched = time.time()
            web.backfill(dataset_key, [each.key for each in BlockRange(0, ranges * size).split(size)])
            _await_commits(environment, name, ranges)
    finally:
        web.start_wakeups()
    with psycopg.connect(environment["TRACE_POSTGRES_URL"]) as connection:
        rows = connection.execute(_COMMITS, [name]).fetchall()
    commits = [float(moment) for moment, _ in rows]
    tenth = len(commits) // 10
    at_first, at_tenth, before_last, at_last = (usage.total_at(commits[place]) for place in (0, tenth, -1 - tenth, -1))
    spent = (sum(usage.cpu().values()), at_tenth - at_first, at_last - before_last)
    calls = min(ranges, FAR_CALLS) if line.latency else ranges
    bare = collect_each(line.url, calls, size, DATASET)
    relative = tuple(moment - launched for moment in commits)
    return Ranges(relative, spent, usage.cpu(), sum(count for _, count in rows), line, bare, calls)


def compared(rounds: Sequence[Ranges]) -> list[Compared]:
    """Return for each line: rates, CPU time beyond extraction, and the last tenth relative to the first."""
    return [row for mine in grouped(rounds, lambda each: each.line) for row in _at_one_node(mine)]


def _at_one_node(rounds: Sequence[Ranges]) -> list[Compared]:
    count, shown = len(rounds[-1].commits), middle(rounds, lambda each: each.spent[0])
    what = f"{count:,} ranges in one backfill, {shown.line.name}"
    sustained = tuple(((each.commits[-1] - each.commits[0]) / count * 1e3, each.bare_ms[0]) for each in rounds)
    spent = tuple((each.spent[0] / count * 1e3, each.bare_ms[1]) for each in rounds)
    beyond = shown.spent[0] / count * 1e3 - shown.bare_ms[1]
    rate = count / (shown.commits[-1] - shown.commits[0])
    tenth = count // 10
    slower = tuple((each.tenths[1] / tenth * 1e3, each.tenths[0] / tenth * 1e3) for each in rounds)
    dearer = tuple((each.spent[2] / tenth * 1e3, each.spent[1] / tenth * 1e3) for each in rounds)
    note = f"{rate:.1f} ranges/s sustained, first commit {shown.commits[0]:.1f} s after the launch"
    return [
        Compared(f"{what}: one range, beside one bare call", "ms", sustained, note),
        Compared(
            f"{what}: CPU of one range, beside one bare call",
            "CPU ms",
            spent,
            f"{beyond:.1f} CPU ms beyond extraction; {cpu_note(shown.cpu)}",
        ),
        Compared(f"{what}: a range of the last tenth, beside the first tenth", "ms", slower),
        Compared(f"{what}: CPU of a range of the last tenth, beside the first tenth", "CPU ms", dearer),
    ]


def _path(dataset_key: str) -> list[str]:
    return [str(CHAIN_ID), dataset_key]


def _await_commits(environment: Mapping[str, str], name: str, ranges: int) -> None:
    committed, moved = 0, time.monotonic()
    with psycopg.connect(environment["TRACE_POSTGRES_URL"], autocommit=True) as connection:
        while committed < ranges:
            time.sleep(_POLL_SECONDS)
            row = connection.execute(_COUNT, [name]).fetchone()
            assert row is not None
            if row[0] > committed:
                committed, moved = row[0], time.monotonic()
            if time.monotonic() - moved > STALL_SECONDS:
                left = "; ".join(map(str, connection.execute(_LEFT, [name]).fetchall()))
                raise RuntimeError(f"{committed} of {ranges} ranges are committed and no more: {left}")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranges", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1, help="blocks of one range")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0], help="seconds added to each request")
    options = parser.parse_args()
    with place(options.ranges * options.size, options.latency) as (environment, lines):
        rounds = [
            measure(environment, line, ranges=options.ranges, size=options.size, number=number)
            for number, line in product(range(options.rounds), lines)
        ]
    print(f"{machine()}\n\n{markdown(compared(rounds))}")


if __name__ == "__main__":
    main()
