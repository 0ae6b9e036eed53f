"""SQL of strangers through HTTP: the corpora, and random statements for a minute.

Every answer is one of the documented ones, no query reaches anything but its tables or outlives its deadline by two
seconds, and the service answers as before when all of it is over.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import psutil
import pytest
import urllib3

from tests.conftest import cloned_database, fresh_bucket
from tests.support.corpus_lake import commit_lake
from tests.support.outsider import outsider
from tests.support.service import RunningService, service_process
from tests.support.sql_corpora import COSTLY, HARMLESS, corpus, lake_tables, shape_of
from tests.support.sql_grammar import Grammar
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import ObjectStore

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
CANARY = "canary-7f3a"
DEADLINE = 10
SHARE = 1.0 if os.environ.get("TRACE_FAULTS_FULL") else 0.05
"""Part of the costly attacks that is tried, drawn by a seed."""
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("FUZZ_SEED", "20"))
AT_ONCE = 3
FORMATS = ("json", "arrow", "csv", "parquet")
LIMITS = {"seconds": DEADLINE, "stream_seconds": DEADLINE, "memory_mib": 512, "running": AT_ONCE, "temporary_mib": 64}


@dataclass
class Served:
    """A service over the corpora's lake, with things to steal beside it."""

    service: RunningService
    process: psutil.Process
    store: ObjectStore
    places: dict[str, str]
    folder: Any
    heard: list[str]

    def ask(self, sql: str, form: str = "json") -> tuple[int, bytes, float]:
        """Return status, body and seconds of a query. Status 0 is a broken transfer."""
        started = time.monotonic()
        try:
            answer = self.service.query(sql, format=form)
        except urllib3.exceptions.HTTPError:  # a stream that failed midway
            assert form != "json"
            return 0, b"", time.monotonic() - started
        return answer.status, answer.body, time.monotonic() - started


@pytest.fixture(scope="module")
def served(postgres, template_database, s3_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("canaries")
    for name in ("canary.txt", "canary.csv", "canary.json", "k.csv", "canary.parquet"):
        (folder / name).write_text(f"a\n{CANARY}\n")
    with (
        cloned_database(*postgres, template_database) as url,
        fresh_bucket(s3_server) as access,
        outsider() as (host, heard),
    ):
        store, database = ObjectStore(access), Database(url)
        commit_lake(database, store)
        database.close()
        store.put_if_absent("secret/_manifest.json", f'{{"a": "{CANARY}"}}'.encode())
        store.put_if_absent("secret/x.parquet", (folder / "canary.parquet").read_bytes())
        places = {
            "object": access.uri("secret/x.parquet"),
            "file": f"{folder}/canary.csv",
            "bucket": access.bucket,
            "listener": f"http://{host}",
        }
        with service_process(url, access, **LIMITS) as service:
            assert service.process is not None
            yield Served(service, psutil.Process(service.process.pid), store, places, folder, heard)


def attacks(served):
    """Yield the attacks and their SQL, with the lake's bucket, and without most of the costly ones."""
    drawn, bucket = random.Random(16), served.store.access.bucket
    for each in corpus("attacks", DIR=str(served.folder), OBJECT="secret/x.parquet", MANIFEST="secret/_manifest.json"):
        if each.kind not in COSTLY or drawn.random() < SHARE:
            yield (
                each,
                each.sql.replace("trace-lake", bucket).replace(
                    "{LISTENER}", served.places["listener"].removeprefix("http://")
                ),
            )


@contextmanager
def nothing_leaks(served):
    """Require that nothing outside was asked, no object changed, and that the service is the same and answers."""
    before = {key: served.store.sha256(key) for key in served.store.keys("")}
    yield
    assert served.heard == []
    assert {key: served.store.sha256(key) for key in served.store.keys("")} == before
    assert served.process.is_running()
    deadline = time.monotonic() + DEADLINE + 2
    while live := service_queries(served):
        assert time.monotonic() < deadline, f"queries outlive their deadline by more than two seconds: {live}"
        time.sleep(0.1)
    assert served.service.rows("select count(*) from blocks") == [[120]]


def service_queries(served):
    """Return the number of queries that run, and of processes beyond those that wait for a query and their server."""
    text = served.service.ask("/metrics").body.decode()
    (running,) = re.findall(r"^trace_query_running (\S+)$", text, re.MULTILINE)
    return int(float(running)) + max(0, len(served.process.children(recursive=True)) - AT_ONCE - 1)


def require_harmless(served, sql, status, body, seconds):
    """Check one answer, whatever the query was."""
    assert status in {0, 200, 400, 408, 413, 422}, (status, sql, body[:500])
    assert seconds < DEADLINE + 2 + 5, (seconds, sql)  # it may wait for its turn before
    if status == 200:
        for stolen in (CANARY, "secret/x", "_manifest.json", served.store.access.secret_key, served.service.token):
            assert stolen.encode() not in body or stolen in sql, (sql, body[:500])
    elif status:
        assert b'"error"' in body, (sql, body[:500])


def test_attacks_are_refused_or_harmless(served):
    """Each has the verdict that it has without HTTP, whatever the format is."""
    with nothing_leaks(served), ThreadPoolExecutor(AT_ONCE) as threads:
        tried = list(attacks(served))
        forms = [FORMATS[place % len(FORMATS)] for place in range(len(tried))]
        answers = list(threads.map(served.ask, [sql for _, sql in tried], forms))
    for (_, sql), answer in zip(tried, answers, strict=True):
        require_harmless(served, sql, *answer)
    ran = {each.id for (each, _), (status, _, _) in zip(tried, answers, strict=True) if status == 200}
    print(f"attacks through HTTP: {dict(Counter(status for status, _, _ in answers))}")
    assert ran & {each.id for each, _ in tried if each.kind not in COSTLY} <= set(HARMLESS.split())


def test_honest_sql_runs(served):
    honest = corpus("honest")
    with nothing_leaks(served), ThreadPoolExecutor(AT_ONCE) as threads:
        forms = [FORMATS[place % len(FORMATS)] for place in range(len(honest))]
        answers = list(threads.map(served.ask, [each.sql for each in honest], forms))
    wrong = [
        (each.id, each.sql, body[:300])
        for each, (status, body, _) in zip(honest, answers, strict=True)
        if status != 200
    ]
    assert wrong == []


def test_random_sql_is_answered_or_refused(served):
    """A minute of statements of a grammar, in all formats: the first seed can be set, and is printed."""
    relations = {name: shape_of(table) for name, table in lake_tables(2).items()}
    seeds, until, statuses = count(SEED * 1_000_000), time.monotonic() + FUZZ_SECONDS, Counter()
    print(f"random SQL from seed {SEED}")

    def ask_until_the_end(number: int) -> None:
        while time.monotonic() < until:
            seed = next(seeds)
            sql = Grammar(relations, served.places, seed, hostile=0.04).statement()
            status, body, seconds = served.ask(sql, FORMATS[seed % len(FORMATS)])
            require_harmless(served, sql, status, body, seconds)
            statuses[status] += 1

    with nothing_leaks(served), ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(ask_until_the_end, range(AT_ONCE)))
    tried = sum(statuses.values())
    print(f"random SQL through HTTP: {tried} statements, {dict(statuses)}")
    assert statuses[200] > tried / 5, "the grammar makes nothing that runs"
    assert statuses[400] > tried / 20, "the grammar makes nothing that is refused"
