"""Corpora of SQL over a lake on a real S3 server: attacks are refused or harmless, and honest queries run.

Two walls are tried alone: the gate with a session that has no restriction, and the session with no gate. What costs
memory, time or the process is tried through the whole way, in a query's process.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from uuid import uuid4

import duckdb
import pytest

from tests.support.outsider import outsider
from tests.support.sql_corpora import COSTLY, HARMLESS, Sql, corpus, put_lake
from tests.support.ungated import ungated
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.query.planner import planner
from trace_dagster.query.protocol import QueryLimits, Relation
from trace_dagster.query.runner import QueryRunner
from trace_dagster.query.session import QuerySession
from trace_dagster.query.statement import UserStatement
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore, ensure_bucket

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
CANARY = "canary-7f3a"
SHARE = 1.0 if os.environ.get("TRACE_FAULTS_FULL") else 0.05
"""Part of the costly attacks that is tried, drawn by a seed; `make faults` tries all. Those that once crashed, hung or
took memory are always tried."""
LIMITS = QueryLimits(memory_mib=512, timeout_seconds=2.0, result_mib=4)


@dataclass
class Lake:
    """A lake with something to steal beside it: objects, local files, and a host that hears every request."""

    access: S3Access
    store: ObjectStore
    relations: list[Relation]
    folder: str
    host: str
    heard: list[str]

    def attacks(self) -> list[Sql]:
        bucket = self.access.bucket
        found = corpus("attacks", DIR=self.folder, OBJECT="secret/x.parquet", MANIFEST="secret/_manifest.json")
        return [Sql(each.id, each.kind, _placed(each.sql, bucket, self.host), each.now) for each in found]

    def objects(self) -> dict[str, str]:
        return {key: self.store.sha256(key) for key in self.store.keys("")}


def _placed(sql: str, bucket: str, host: str) -> str:
    return (
        sql.replace("trace-lake", bucket)
        .replace("trace-la\u212ae", bucket.upper().replace("K", "\u212a"))
        .replace("{LISTENER}", host)
    )


@pytest.fixture(scope="module")
def lake(s3_server, tmp_path_factory):
    access = S3Access(f"lake{uuid4().hex}", s3_server.access_key, s3_server.secret_key, s3_server.endpoint)
    ensure_bucket(access)
    store = ObjectStore(access)
    relations = put_lake(store)
    store.put_if_absent("secret/_manifest.json", f'{{"a": "{CANARY}"}}'.encode())
    folder = tmp_path_factory.mktemp("canaries")
    (folder / "cwd").mkdir()
    for name in ("canary.txt", "canary.csv", "canary.json", "k.csv"):
        (folder / name).write_text(f"a\n{CANARY}\n")
    duckdb.sql(f"copy (select '{CANARY}' as a) to '{folder}/canary.parquet'")
    store.put_if_absent("secret/x.parquet", (folder / "canary.parquet").read_bytes())
    for name in ("imp", "imp2"):
        (folder / name).mkdir()
        for part in ("schema.sql", "load.sql"):
            (folder / name / part).write_text(f"{CANARY}\n")
    with outsider() as (host, heard):
        yield Lake(access, store, relations, str(folder), host, heard)
        assert heard == []


def shapes(lake):
    return {each.name: each.columns for each in lake.relations}


def verdict(run) -> str:
    """Return ``refused``, or the rows of what ran as text."""
    try:
        return repr(run())
    except (InvalidInput, Unavailable):
        return "refused"


def test_the_gate_alone_refuses_every_attack(lake):
    """No session runs what the gate refuses, so its answer is the same for a session without any restriction."""
    with planner() as parsing:
        accepted = [
            each.id
            for each in lake.attacks()
            if each.kind not in COSTLY
            and verdict(lambda each=each: UserStatement(each.sql, shapes(lake), parsing)) != "refused"
        ]
    print(f"attacks at the gate: {len(accepted)} accepted as harmless, the others refused")
    assert accepted == HARMLESS.split()
    assert lake.heard == []


@pytest.fixture(params=[None, "its own"], ids=["no temporary folder", "a temporary folder"])
def own_folder(request, tmp_path):
    """The temporary folder of a session, beside one of another query."""
    if request.param is None:
        return None
    for name in ("mine", "mine2"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine2" / "canary.csv").write_text(f"a\n{CANARY}\n")
    return str(tmp_path / "mine")


def test_the_session_alone_reaches_nothing_but_its_files(lake, own_folder):
    before, ran = lake.objects(), 0
    with ungated(lake.relations, lake.access, own_folder) as process:
        for each in lake.attacks():
            if each.kind not in COSTLY:
                answer = process.answer(each.sql)
                is_run = not answer.startswith("refused")
                ran += is_run
                for stolen in (CANARY, "secret/x", "_manifest.json", lake.access.secret_key):
                    assert not is_run or stolen not in answer, (each, answer)
    print(f"attacks without the gate: {ran} ran, none of them reached anything")
    assert ran > 2 * len(HARMLESS.split()), "the gate is off"
    assert (lake.heard, lake.objects()) == ([], before)
    assert os.listdir(f"{lake.folder}/cwd") == []


WAYS_OUT = ["{0}/../mine2/canary.csv", "{0}2/canary.csv", "{0}/./../mine2/*", "{0}*/canary.csv", "{0}//..//mine2/*.csv"]


def test_a_temporary_folder_leads_nowhere_without_the_gate(lake, tmp_path):
    """DuckDB allows the paths below it, and it can hold nothing but what the query put there itself: a session runs
    no statement that writes a file.
    """
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine2").mkdir()
    (tmp_path / "mine2" / "canary.csv").write_text(f"a\n{CANARY}\n")
    mine = str(tmp_path / "mine")
    ways = [way.format(mine) for way in WAYS_OUT]
    with ungated(lake.relations, lake.access, mine) as process:
        answers = [
            process.answer(f"from {read}('{way}')") for way in ways for read in ("read_text", "read_csv", "glob")
        ]
        assert [each for each in answers if not each.startswith("refused")] == []
        assert process.answer(f"copy (select 1) to '{mine}/out.csv'").startswith("refused")
        assert process.answer(f"from glob('{mine}/*')") == "[]"
        spilled = "select count(*) from (select hash(range) h, repeat('x', 200) x from range(2000000) order by h, x)"
        assert process.answer(spilled) in ("[(2000000,)]", "ended")
    assert os.listdir(tmp_path / "mine2") == ["canary.csv"]


def costly(lake):
    drawn = random.Random(16)
    bad = {"CRASHED", "HUNG", "MEMORY"}
    return [each for each in lake.attacks() if each.kind in COSTLY and (each.now in bad or drawn.random() < SHARE)]


def test_costly_attacks_end_with_their_process(lake):
    """Each ends within its limits, and the next query works."""
    ended = {}
    with QueryRunner(LIMITS, ahead=2) as runner:
        for each in costly(lake):
            answer = verdict(lambda each=each: runner.query(each.sql, lake.relations, lake.access).rows)
            ended[each.id] = answer[:40]
        assert runner.query("select count(*) from blocks", lake.relations, lake.access).rows == [(120,)]
    refused = sum(answer == "refused" for answer in ended.values())
    print(f"costly attacks: {refused} of {len(ended)} refused or ended, the others ran within their limits")
    assert {"b030", "b038", "b106", "b107", "b210"} <= {name for name, answer in ended.items() if answer == "refused"}


@pytest.fixture(scope="module")
def opened(lake):
    with QuerySession() as session:
        session.open(lake.relations, lake.access)
        yield session


@pytest.mark.parametrize("each", corpus("honest"), ids=lambda each: each.id)
def test_honest_sql_runs(lake, opened, each):
    with planner() as parsing:
        checked = UserStatement(each.sql, shapes(lake), parsing)
        _, batches = checked.run(opened)
        list(batches)
