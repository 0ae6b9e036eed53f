"""What the product costs beside bare Cryo: the same range, the same node, one run, one table, ratio last.

    make bench            (or: .venv/bin/python bench/overhead.py --blocks 4000 --rounds 3)

Bare: `cryo.freeze` of four datasets to local disk, in a fresh process. Product: apply to everything committed on
S3 and registered, through the real planner, daemon, run and commit. Both against the devchain on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trace_dagster.lite.stack import Stack
from trace_dagster.operate import apply_file, read_status, watch

DATASETS = ("blocks", "transactions", "logs", "geth_calls")
JOB = """kind: chain_sync
name: bench_{number}
chain_id: 20143
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: devchain, chunk_size: {chunk}, max_inflight: 8, verify: structural}}
streams:
{streams}
"""
BARE = """
import os, sys, time
import cryo
rpc = sys.stdin.readline().strip()
extra = {"blocks": ["parent_hash", "state_root", "transactions_root", "receipts_root", "logs_bloom", "size"],
         "logs": ["block_hash"], "transactions": ["block_hash"]}
started = time.perf_counter()
for dataset in sys.argv[4:]:
    more = {"include_columns": extra[dataset]} if dataset in extra else {}
    done = cryo.freeze(dataset, start_block=0, end_block=int(sys.argv[2]), rpc=rpc, output_dir=sys.argv[1],
                       chunk_size=int(sys.argv[3]), verbose=False, no_report=True, **more)
    assert done["n_errored"] == 0, done
print(time.perf_counter() - started, flush=True)
os._exit(0)
"""


def bare(rpc: str, blocks: int, chunk: int) -> float:
    """Seconds of bare Cryo, import and process start not counted."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", BARE, folder, str(blocks), str(chunk), *DATASETS],
            input=rpc + "\n",
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout)


def product(number: int, blocks: int, chunk: int, environment: dict[str, str]) -> tuple[float, float]:
    """(seconds from apply to everything committed, seconds from first to last commit)."""
    streams = "\n".join(f"  {name}_{number}: {{cryo_dataset_name: {name}}}" for name in DATASETS)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(JOB.format(number=number, blocks=blocks, chunk=chunk, streams=streams))
        file.flush()
        started = time.perf_counter()
        applied = apply_file(Path(file.name), environment, lambda _: None)
        if watch(applied.name, environment, lambda text: print(text, file=sys.stderr)):
            sys.exit("error: the product did not commit everything")
        whole = time.perf_counter() - started
    job = read_status(environment, applied.name)[0]
    slowest = max(stream.committed_blocks / (stream.blocks_per_second or 1) for stream in job.streams)
    return whole, slowest


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=4000)
    parser.add_argument("--chunk", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o755)
        environment = {**os.environ, "TRACE_HOME": home, "TRACE_DEVCHAIN_BLOCKS": str(options.blocks + 100)}
        with Stack(Path(home), environment).running(lambda text: print(text, file=sys.stderr)) as state:
            variables = {**environment, **state.environment()}
            rpc = variables["TRACE_RPC_POOL_DEVCHAIN_URL"]
            bare(rpc, options.blocks, options.chunk)  # the node encodes each answer once; not counted
            rounds = []
            for number in range(options.rounds):
                plain = bare(rpc, options.blocks, options.chunk)
                whole, committing = product(number, options.blocks, options.chunk, variables)
                rounds.append({"bare": plain, "product": whole, "committing": committing})
                print(f"round {number + 1}: bare {plain:.2f} s, product {whole:.2f} s", file=sys.stderr)
    report(options, rounds)


def report(options: argparse.Namespace, rounds: list[dict[str, float]]) -> None:
    """Medians, and the ratio of each pair."""
    ratio = statistics.median(entry["product"] / entry["bare"] for entry in rounds)
    steady = statistics.median(entry["committing"] / entry["bare"] for entry in rounds)
    median = {key: statistics.median(entry[key] for entry in rounds) for key in rounds[0]}
    ranges = -(-options.blocks // options.chunk) * len(DATASETS)
    print(f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, medians of {len(rounds)}")
    print(f"{options.blocks} blocks x {len(DATASETS)} datasets, {ranges} ranges of {options.chunk} blocks\n")
    print("| way | seconds | ratio to bare |")
    print("|---|---|---|")
    print(f"| bare cryo.freeze, local disk | {median['bare']:.2f} | 1.00 |")
    print(f"| product, first to last commit of the slowest stream | {median['committing']:.2f} | {steady:.2f} |")
    print(f"| product, apply to everything committed on S3 | {median['product']:.2f} | {ratio:.2f} |")
    if options.json:
        options.json.write_text(json.dumps({"rounds": rounds, "ratio": ratio, "steady": steady}, indent=2) + "\n")


if __name__ == "__main__":
    main()
