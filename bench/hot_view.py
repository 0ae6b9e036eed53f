"""Answers over the last 100 blocks of many hot logs, and what a query reads of them.

    .venv/bin/python -m bench.hot_view [--blocks 25000] [--logs 40] [--rounds 40]

The process runs and its children wait for a query, as in a service. Between two queries a block is added, so each finds
99 blocks in memory. The rows are made in Postgres by one statement, for a real stream.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.opening import wait_ready
from bench.table import machine
from bench.verification import services
from tests.support.hot_chain import apply_followed
from trace_dagster.config.settings import settings_from
from trace_dagster.query.opening import Opening
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.connection import Database
from trace_dagster.registry.streams import StreamRow
from trace_dagster.runtime import Runtime

_LAST = 100
_BY_ADDRESS = "select address, count(*) from logs where"
_CHAIN = """
insert into hot.chain (org_id, chain_id, block_number, block_hash, parent_hash, block_timestamp, level)
select %(org_id)s, %(chain_id)s, b, sha256(int8send(b)), sha256(int8send(b - 1)),
       timestamptz '2026-01-01' + b * interval '0.3 s', 'full'
from generate_series(%(first)s::bigint, %(last)s::bigint) b
"""
_LOGS = """
insert into hot.logs (dataset_uuid, block_number, block_timestamp, block_hash, transaction_index, log_index,
                      transaction_hash, address, topic0, topic1, topic2, data, chain_id)
select %(dataset_uuid)s, b, timestamptz '2026-01-01' + b * interval '0.3 s', sha256(int8send(b)), l / 2, l,
       sha256(int8send(b * 100 + l / 2)), substr(sha256(int8send((b * l) %% 500)), 1, 20), sha256(int8send(l %% 5)),
       sha256(int8send(b * l)), case when l %% 3 > 0 then sha256(int8send(b + l)) end, sha256(int8send(b - l)),
       %(chain_id)s
from generate_series(%(first)s::bigint, %(last)s::bigint) b, generate_series(0::bigint, %(logs)s::bigint - 1) l
"""
_BLOCKS = """
insert into hot.blocks (dataset_uuid, block_hash, parent_hash, block_number, block_timestamp, chain_id)
select %(blocks_uuid)s, sha256(int8send(b)), sha256(int8send(b - 1)), b,
       timestamptz '2026-01-01' + b * interval '0.3 s', %(chain_id)s
from generate_series(%(first)s::bigint, %(last)s::bigint) b
"""
_HEADS = """
insert into hot.heads (org_id, chain_id, tag, block_number)
values (%(org_id)s, %(chain_id)s, 'latest', %(last)s), (%(org_id)s, %(chain_id)s, 'finalized', %(last)s)
on conflict (org_id, chain_id, tag) do update set block_number = excluded.block_number
"""
_STREAM = """
insert into hot.streams (dataset_uuid, config_hash, blocks)
values (%(dataset_uuid)s, %(config_hash)s, int8multirange(int8range(0, %(last)s::bigint + 1))),
       (%(blocks_uuid)s, %(blocks_hash)s, int8multirange(int8range(0, %(last)s::bigint + 1)))
on conflict (dataset_uuid) do update set blocks = excluded.blocks
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=25_000)
    parser.add_argument("--logs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="trace-bench-", ignore_cleanup_errors=True) as folder,
        services(Path(folder)) as variables,
    ):
        runtime = Runtime(settings_from(variables))
        found = answers(runtime, blocks=options.blocks, logs=options.logs, rounds=options.rounds)
        runtime.close()
    print(machine(), *found, sep="\n")


def answers(runtime: Runtime, *, blocks: int, logs: int, rounds: int) -> list[str]:
    """Fill the tip of a stream; return a line about each query."""
    streams = apply_followed(runtime.database, "logs: {cryo_dataset_name: logs}\n  blocks: {cryo_dataset_name: blocks}")
    stream = streams["logs"]
    _add(runtime.database, streams, 0, blocks - 1, logs)
    with runtime.database.connection() as connection:
        connection.autocommit = True
        connection.execute("vacuum analyze")
        connection.autocommit = False
    opening = Opening(runtime.catalog, runtime.settings.s3_for_queries, runtime.committed_objects)
    lines, head = [], blocks - 1
    with QueryRunner(ahead=2) as runner:
        for name, sql in (
            ("logs by address of the last 100 blocks", f"{_BY_ADDRESS} {{last}} group by all"),
            (
                "the same by heads",
                f"{_BY_ADDRESS} block_number > (select number from heads where tag = 'latest') - {_LAST} group by all",
            ),
            (
                "the same by max()",
                f"{_BY_ADDRESS} block_number > (select max(block_number) from blocks) - {_LAST} group by all",
            ),
            ("1,000 whole logs of the last 100 blocks", "select * from logs where {last} limit 1000"),
            ("one transaction's logs, by hash", "select * from logs where transaction_hash = {hash}"),
            ("all logs by topic", "select topic0, count(*) from logs group by all"),
        ):
            seconds = []
            for _ in range(rounds):
                head += 1
                _add(runtime.database, streams, head, head, logs)
                places = {"last": f"block_number > {head - _LAST}", "hash": _hash(runtime.database, stream, head - 5)}
                wait_ready(runner)
                started = time.perf_counter()
                opening.query(runner, sql.format(**places))
                seconds.append(1000 * (time.perf_counter() - started))
            p95 = statistics.quantiles(seconds, n=20)[-1]
            lines.append(
                f"{name}, {blocks * logs:,} hot: {statistics.median(seconds):.0f} ms median, {p95:.0f} ms p95,"
                f" {seconds[0]:.0f} ms first"
            )
    return lines


def _add(database: Database, streams: Mapping[str, StreamRow], first: int, last: int, logs: int) -> None:
    stream, of_blocks = streams["logs"], streams["blocks"]
    values = {"first": first, "last": last, "logs": logs, "chain_id": stream.chain_id, "org_id": stream.org_id}
    values |= {"dataset_uuid": stream.dataset_uuid, "config_hash": stream.config_hash}
    values |= {"blocks_uuid": of_blocks.dataset_uuid, "blocks_hash": of_blocks.config_hash}
    with database.connection() as connection:
        for statement in (_STREAM, _CHAIN, _BLOCKS, _LOGS, _HEADS):
            connection.execute(statement, values)


def _hash(database: Database, stream: StreamRow, block: int) -> str:
    with database.connection() as connection:
        row = connection.execute(
            "select transaction_hash from hot.logs where dataset_uuid = %s and block_number = %s limit 1",
            [stream.dataset_uuid, block],
        ).fetchone()
    assert row is not None
    return f"unhex('{row['transaction_hash'].hex()}')"


if __name__ == "__main__":
    main()
