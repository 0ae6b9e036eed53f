"""Cryo alone in a separate process: the lower bound of the cost of extraction. Its import is not counted."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench import node
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.engine.columns import cryo_column

_PROBE_BLOCKS = 4000


@dataclass(frozen=True, slots=True)
class Bare:
    """The cost of some calls."""

    seconds: float
    cpu_seconds: float
    rows: int


def freeze(rpc: str, blocks: int, chunk: int, datasets: Sequence[str]) -> Bare:
    """Run ``cryo.freeze`` for ``[0, blocks)`` to local disk, one dataset after the other, with the product's
    columns.
    """
    with tempfile.TemporaryDirectory(prefix="trace-bench-") as folder:
        calls = [
            {
                "datatype": name,
                "start_block": 0,
                "end_block": blocks,
                "chunk_size": chunk,
                "output_dir": folder,
                **_more(name),
            }
            for name in datasets
        ]
        seconds, cpu_seconds, _ = _in_a_process("freeze", rpc, calls)
        rows = sum(pq.read_metadata(path).num_rows for path in Path(folder).glob("*.parquet"))
    return Bare(seconds, cpu_seconds, rows)


def collect_each(rpc: str, ranges: int, size: int, name: str) -> Bare:
    """Run ``cryo.collect`` for each of ``ranges`` ranges of ``size`` blocks, one after the other; rows are dropped."""
    calls = [
        {"datatype": name, "start_block": start, "end_block": start + size, **_more(name)}
        for start in range(0, ranges * size, size)
    ]
    return Bare(*_in_a_process("collect", rpc, calls))


def blocks_in(seconds: float, latency: float, chunk: int, datasets: Sequence[str]) -> int:
    """Return how many blocks ``freeze`` extracts in about this many seconds, in whole chunks."""
    with node.running(_PROBE_BLOCKS, latency=latency) as url:
        rate = _PROBE_BLOCKS / freeze(url, _PROBE_BLOCKS, chunk, datasets).seconds
    return max(1, round(rate * seconds / chunk)) * chunk


def _more(name: str) -> dict[str, Any]:
    """Return the columns that the product stores in addition to Cryo's defaults."""
    known = dataset(name)
    own = [each for each in known.stored_columns() if each in known.all_columns]
    extra = sorted({cryo_column(each) for each in own if each not in known.default_columns})
    return {"include_columns": extra} if extra else {}


def _in_a_process(function: str, rpc: str, calls: list[dict[str, Any]]) -> tuple[float, float, int]:
    """Return (seconds, CPU seconds, rows that were returned)."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.bare", function],
        input=json.dumps({"rpc": rpc, "calls": calls}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"bare cryo failed: {done.stderr[-500:]}")
    seconds, cpu_seconds, rows = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu_seconds, rows


def main() -> None:
    """Make the calls that stdin lists, then end without Python's normal exit, in which Cryo can crash."""
    import cryo

    asked = json.load(sys.stdin)
    function = getattr(cryo, sys.argv[1])
    started, before, rows = time.perf_counter(), _cpu_seconds(), 0
    for call in asked["calls"]:
        done = function(rpc=asked["rpc"], verbose=False, no_report=True, **call)
        if sys.argv[1] == "freeze":
            assert done["n_errored"] == 0, done
        else:
            rows += done.height
    print(json.dumps([time.perf_counter() - started, _cpu_seconds() - before, rows]), flush=True)
    os._exit(0)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
