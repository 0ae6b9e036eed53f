"""The demo: start a stack, follow and sync the devchain, run SQL and analytics, and report the seconds of each step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trace_dagster.cli.commands import apply_file, read_files, read_status, run_query, watch
from trace_dagster.cli.dagster_client import DagsterWeb
from trace_dagster.cli.demo_service import service_lines
from trace_dagster.cli.demo_tip import ask_at_the_tip, follow_devchain, reorganise
from trace_dagster.cli.render import files_table
from trace_dagster.cli.tables import Column, human_bytes, print_line, print_table
from trace_dagster.cli.tip import read_tips, tip_table
from trace_dagster.config.settings import Settings
from trace_dagster.config.shipped_files import shipped_file
from trace_dagster.defs.analytics import analytics_job_name
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.errors import Unavailable
from trace_dagster.lite.stack import Stack
from trace_dagster.query.render import to_json

Say = Callable[[str], None]

_SYNCED_COLUMNS: list[Column] = [
    ("stream", "left"),
    ("ranges", "right"),
    ("rows", "right"),
    ("size", "right"),
    ("blocks/s", "right"),
]
_QUERIES = {
    "erc20_total_supply_by_block": "select block_number, minted, burned, total_supply"
    " from erc20_total_supply_by_block order by block_number desc limit 5",
    "erc20_top_holders": "select rank, holder, balance from erc20_top_holders"
    " where block_number = (select max(block_number) from erc20_top_holders) order by rank",
    "staking_by_validator": "select rank, validator, stake, round(share, 4) as share, round(gini, 4) as gini,"
    " round(top5_share, 4) as top5_share from staking_by_validator order by rank limit 5",
}


def run_demo(settings: Settings, say: Say, *, report: Path | None, keep: bool) -> int:
    """Run the demo; returns the exit code. With ``keep`` the stack runs until Ctrl-C; ``report`` is a JSON file."""
    started = time.monotonic()
    stack = Stack(_growing(settings))
    with stack.running(say) as state:
        say(state.summary())
        seconds = {"start": time.monotonic() - started}
        running = Settings.read({**settings.child_variables(), **state.environment()})
        seconds["newest block"] = follow_devchain(running, say)
        with _measured(seconds, "sync"):
            applied = apply_file(shipped_file("examples/devchain.yaml"), running, say)
            code = watch(applied.name, running, say)
        if code:
            return code
        with _measured(seconds, "analytics"):
            say("materializing analytics")
            _materialize(state.web_url, settings.web_password)
            found = {name: to_json(run_query(sql, running, 100)) for name, sql in _QUERIES.items()}
        with _measured(seconds, "tip"):
            seconds["reorganisation"] = reorganise(running, say)
            tip = ask_at_the_tip(running)
        jobs = read_status(running, None)
        job = next(each for each in jobs if each.name == applied.name)
        _print(job.to_json(), {**found, **tip})
        tip_table(read_tips(running, jobs))
        files_table(read_files(running, jobs))
        print_line("compaction merges the files of a window when all of its ranges are committed")
        seconds["total"] = time.monotonic() - started
        print_line(", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
        print_line("open while the stack runs, which `make demo KEEP=1` keeps up:")
        print_line(f"partitions in the UI: {state.web_url}/assets/{CHAIN_ID}/blocks?view=partitions")
        for line in service_lines(state):
            print_line(line)
        if report is not None:
            _write(report, {"job": job.to_json(), "analytics": found, "tip": tip, "seconds": seconds})
        if keep:
            say(f"the UI stays up: {state.web_url}   (ctrl-c ends everything)")
            stack.run_until_interrupted(say)
    return 0


def _growing(settings: Settings) -> Settings:
    """Return the settings with a devchain that grows, as fast as it is set, or by a block a second."""
    seconds = settings.stack.devchain_block_interval_seconds or 1
    return Settings.read({**settings.child_variables(), "TRACE_DEVCHAIN_BLOCK_INTERVAL_SECONDS": str(seconds)})


@contextmanager
def _measured(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Store the seconds that the block took, if it does not raise."""
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def _materialize(web_url: str, password: str | None) -> None:
    web = DagsterWeb(web_url, password)
    run_id = web.launch(analytics_job_name(CHAIN_ID))
    if not web.wait(run_id):
        raise Unavailable(f"the analytics run failed: {web_url}/runs/{run_id}")


def _print(job: dict[str, Any], found: dict[str, Any]) -> None:
    print_table(_SYNCED_COLUMNS, map(_synced_cells, job["streams"]), title="synced")
    for name, result in found.items():
        columns: list[Column] = [(column["name"], "left") for column in result["columns"]]
        print_table(columns, ([str(item) for item in row] for row in result["rows"]), title=name)


def _synced_cells(stream: dict[str, Any]) -> list[str]:
    rate = stream["blocks_per_second"]
    return [
        stream["dataset_key"],
        f"{stream['committed_ranges']:,}",
        f"{stream['committed_rows']:,}",
        human_bytes(stream["committed_bytes"]),
        f"{rate:,.0f}" if rate else "-",
    ]


def _write(report: Path, content: dict[str, Any]) -> None:
    report.write_text(json.dumps(content, indent=2) + "\n")
