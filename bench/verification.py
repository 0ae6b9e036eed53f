"""The cost of verification: the same ranges with verify off, structural and full, in one run, as ratios to off.

    .venv/bin/python -m bench.verification [--blocks 10000] [--rounds 5] [--latency 0.05]
    .venv/bin/python -m bench.verification --deposits

Ranges go through claim, Cryo, proof, Parquet on a real S3 server and the fenced commit in a real Postgres, without
Dagster. Node, S3 server and Postgres share the machine with them, so a proof competes for the cores with the parts that
it checks. With --latency every request to the node takes that many seconds longer, as at a provider. Requests go to the
node directly, because a gateway would answer the second round from the first.

A second table has the proof alone, in blocks per second of CPU time: of blocks that hold a transaction of type 2, and
of the same blocks with an OP deposit in its place, which every block of an OP chain begins with. ``--deposits`` prints
this table only, without the services.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import node
from bench.product import DATASETS
from tests.support.resealed import Answers, resealed, with_deposit
from trace_dagster.blocks import BlockRange
from trace_dagster.config.chain_sync import parse
from trace_dagster.config.settings import settings_from
from trace_dagster.datasets.chains import chain_of
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.devchain.encode import block_json, receipts_json
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.lite.home import Home
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.postgres import dsn, postgres_service
from trace_dagster.lite.processes import Child, Service
from trace_dagster.lite.s3 import s3_service
from trace_dagster.registry.jobs import Bounds
from trace_dagster.registry.migrations import migrate
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.runtime import Runtime
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ensure_bucket
from trace_dagster.verify.fast_path import await_compiled, prove_compiled

LEVELS = ("off", "structural", "full")
RANGES_AT_ONCE = 2
OP_MAINNET = 10
PAIR_BLOCKS, PAIR_ROUNDS = 200, 40
JOB = """kind: chain_sync
name: {name}
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 0, to_block: {blocks}}}
defaults: {{rpc_pool: node, chunk_size: {chunk}, max_inflight: 8, verify: {verify}}}
streams:
{streams}
"""


@contextmanager
def services(folder: Path) -> Iterator[dict[str, str]]:
    """Run a Postgres with the product's schema and an S3 server; yield the environment of a process."""
    folder.chmod(0o755)
    home = Home(folder / "home")
    home.prepare()
    ports, secrets = Ports({}), home.secrets()
    postgres_port, s3_port = ports.take(), ports.take(with_grpc=True)
    access = S3Access("bench", secrets.s3_access_key, secrets.s3_secret_key, f"http://{HOST}:{s3_port}")
    with ExitStack() as stack:
        stack.enter_context(_running(postgres_service(folder / "postgres", postgres_port, "bench"), folder / "pg.log"))
        stack.enter_context(_running(s3_service(folder / "s3", ports, secrets, access, s3_port), folder / "s3.log"))
        ensure_bucket(access)
        url = dsn(postgres_port, "bench", "postgres")
        migrate(url)
        yield {
            "TRACE_POSTGRES_URL": url,
            "TRACE_S3_ENDPOINT": access.endpoint or "",
            "TRACE_S3_BUCKET": access.bucket,
            "AWS_ACCESS_KEY_ID": access.access_key,
            "AWS_SECRET_ACCESS_KEY": access.secret_key,
        }


@contextmanager
def _running(service: Service, log: Path) -> Iterator[None]:
    child = Child(service, log)
    try:
        child.wait_healthy()
        yield
    finally:
        child.signal_stop()
        child.wait_stopped(10)


def round_of(runtime: Runtime, number: int, verify: str, blocks: int, chunk: int) -> dict[str, float]:
    """Return the seconds until everything is committed, by dataset, one after the other."""
    spans = list(BlockRange(0, blocks).split(chunk))
    seconds = {}
    for dataset, spec in applied(runtime, f"{verify}_{number}", verify, blocks, chunk).items():
        started = time.perf_counter()
        with ThreadPoolExecutor(RANGES_AT_ONCE) as threads:
            list(threads.map(partial(bring_in, runtime, spec), spans))
        seconds[dataset] = time.perf_counter() - started
    return seconds


def applied(runtime: Runtime, name: str, verify: str, blocks: int, chunk: int) -> dict[str, StreamSpec]:
    """Apply a new job over ``[0, blocks)``; return its streams by dataset."""
    streams = "\n".join(f"  {dataset}_{name}: {{cryo_dataset_name: {dataset}}}" for dataset in DATASETS)
    job = parse(JOB.format(name=name, chain=CHAIN_ID, blocks=blocks, chunk=chunk, verify=verify, streams=streams))
    runtime.jobs.apply(job, Bounds(0, blocks))
    found = {stream.dataset_key: stream for stream in runtime.jobs.streams() if stream.job_name == name}
    return {dataset: found[f"{dataset}_{name}"] for dataset in DATASETS}


def bring_in(runtime: Runtime, spec: StreamSpec, span: BlockRange) -> None:
    """Claim a range and commit it."""
    work = runtime.ingester.claim(spec, span, "bench", wait_seconds=0)
    assert isinstance(work, ClaimedRange)
    runtime.ingester.commit(runtime.ingester.start(work))


def hide(runtime: Runtime) -> None:
    """Hide a round's versions, so that they are not evidence for the next round."""
    with runtime.database.transaction() as session:
        session.connection.execute("update trace.dataset_versions set visible = false, hidden_at = now() where visible")


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--chunk", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to each request")
    parser.add_argument("--deposits", action="store_true", help="only compare the proof of deposits and of type 2")
    options = parser.parse_args()
    report_deposits()
    if options.deposits:
        return
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True))
        )
        variables = stack.enter_context(services(folder))
        url = stack.enter_context(node.running(options.blocks, latency=options.latency))
        runtime = Runtime(settings_from({**variables, "TRACE_RPC_POOL_NODE_URL": url, "TRACE_RPC_GATEWAY": "never"}))
        stack.callback(runtime.close)
        round_of(runtime, 0, "full", options.blocks, options.chunk)  # starts the engine, loads the compiled proof
        hide(runtime)
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(1, options.rounds + 1):
            rounds.append({})
            for verify in LEVELS:
                rounds[-1][verify] = round_of(runtime, number, verify, options.blocks, options.chunk)
                hide(runtime)
            print(f"round {number}: {rounds[-1]}", file=sys.stderr)
    report(options, rounds)


def report_deposits() -> None:
    """Print the proof's blocks per second with a transaction of type 2, with a deposit in its place, and the ratio."""
    await_compiled()
    print(f"the proof of {PAIR_BLOCKS} blocks, medians of {PAIR_ROUNDS} pairs, blocks per second of CPU time\n")
    print("| block | with a type 2 | with a deposit | deposit / type 2 |")
    print("|---|---|---|---|")
    for name, most in (("as on the devchain", None), ("of one transaction", 1)):
        pairs = list(_pairs(most))
        seconds = [[_proof_seconds([pair[which] for pair in pairs]) for which in (0, 1)] for _ in range(PAIR_ROUNDS)]
        speeds = [PAIR_BLOCKS / statistics.median(each[which] for each in seconds) for which in (0, 1)]
        ratio = statistics.median(one / other for one, other in seconds)
        print(f"| {name} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {ratio:.2f} |")
    print()


def _pairs(most: int | None) -> Iterator[tuple[Answers, Answers]]:
    """Yield blocks with consecutive numbers, each with a type 2 and with a deposit, and ``most`` transactions."""
    number = 0
    for block in DevChain(7, 2 * PAIR_BLOCKS).blocks:
        found, receipts = block_json(block, full=True), receipts_json(block)
        at = next((at for at, each in enumerate(found["transactions"]) if each["type"] == "0x2"), None)
        if at is None or number == PAIR_BLOCKS:
            continue
        found |= {"number": hex(number), "transactions": found["transactions"][at:][:most]}
        yield resealed(found, receipts[at:][:most]), with_deposit(found, receipts[at:][:most])
        number += 1


def _proof_seconds(answers: list[Answers]) -> float:
    texts = [json.dumps(each[which]).encode() for which in (0, 1) for each in answers]
    started = time.thread_time()
    found = prove_compiled(texts, 0, chain_of(OP_MAINNET))
    taken = time.thread_time() - started
    assert found is not None, "the compiled proof does not accept these blocks"
    return taken


def report(options: argparse.Namespace, rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print medians, and the median of the paired ratios."""
    print(f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, medians of {len(rounds)}")
    print(f"{options.blocks} blocks, ranges of {options.chunk}, {options.latency * 1000:.0f} ms added per request\n")
    print("| dataset | off, s | structural, s | full, s | structural / off | full / off |")
    print("|---|---|---|---|---|---|")
    for dataset in (*DATASETS, "all four"):
        names = DATASETS if dataset == "all four" else (dataset,)
        taken = {level: [sum(each[level][name] for name in names) for each in rounds] for level in LEVELS}
        median = {level: statistics.median(taken[level]) for level in LEVELS}
        ratios = [
            statistics.median(one / off for one, off in zip(taken[level], taken["off"], strict=True))
            for level in LEVELS[1:]
        ]
        cells = [f"{median[level]:.2f}" for level in LEVELS] + [f"{ratio:.2f}" for ratio in ratios]
        print(f"| {dataset} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
