"""Proof before commit over real Postgres, a real S3 server and the real engine: evidence, forks, liars, repair."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.imitated.layer1 import SomeUnknownType
from tests.support.imitated.node import ImitatedNode
from tests.support.nodes import environment, forked, running, serving
from tests.support.replay import serving_chain
from trace_dagster.blocks import BlockRange
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.cli.render import endpoint_scores_table
from trace_dagster.cli.verification import certify_job, verify_job
from trace_dagster.config.chain_sync import parse
from trace_dagster.config.settings import settings_from
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.errors import InvalidInput, Refused, Unavailable, UnknownFormat, VerificationFailed
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.maintenance.certificate import read, unanchored
from trace_dagster.maintenance.certificate_check import check_certificate
from trace_dagster.manifest import decode
from trace_dagster.registry.jobs import Bounds
from trace_dagster.store.caps import Caps

pytestmark = pytest.mark.integration
TRANSACTIONS = "  transactions: {cryo_dataset_name: transactions}"
SEED, BLOCKS = 7, 320
FOUR = ("blocks", "transactions", "logs", "geth_calls")
JOB = """
kind: chain_sync
name: {name}
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 0, to_block: {end}}}
defaults: {{rpc_pool: dev, chunk_size: 100, verify: {verify}}}
streams:
{streams}
"""


@pytest.fixture(scope="module")
def chain():
    return DevChain(SEED, BLOCKS)


@pytest.fixture(scope="module")
def honest(chain):
    with serving(chain) as url:
        yield url


@pytest.fixture(scope="module")
def forking():
    """Serve two nodes: the same chain up to block 150, and different blocks after it."""
    with serving(forked(SEED, 150, BLOCKS)) as url:
        yield url


def apply(runtime, *, end=300, streams=FOUR, verify="full", name="proofs"):
    """Register a job; return its streams by dataset key."""
    text = "\n".join(f"  {key}: {{cryo_dataset_name: {key}}}" for key in streams)
    job = parse(JOB.format(name=name, chain=CHAIN_ID, end=end, verify=verify, streams=text))
    runtime.jobs.apply(job, Bounds(0, end))
    return {stream.dataset_key: stream for stream in runtime.jobs.streams()}


def commit(runtime, stream, start, *, refresh=False):
    """Commit one range, as a run does."""
    work = runtime.ingester.claim(stream, BlockRange(start, start + 100), "run", wait_seconds=0, refresh=refresh)
    assert isinstance(work, ClaimedRange), work
    return runtime.ingester.commit(runtime.ingester.start(work))


def commit_all(runtime, streams, end=300):
    return {
        (key, start): commit(runtime, stream, start) for key, stream in streams.items() for start in range(0, end, 100)
    }


def hash_of(chain, block):
    return f"0x{chain.blocks[block].hash.hex()}"


def rows(database, sql):
    with database.transaction() as session:
        return session.connection.execute(sql).fetchall()


class TestEvidence:
    def test_every_level_source_and_boundary_stands_in_manifest_and_registry(self, postgres_url, s3, honest, chain):
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime)
            published = commit_all(runtime, {key: streams[key] for key in FOUR})
            levels = {key: found.verification["level"] for (key, _), found in published.items()}
            assert levels == {"blocks": "full", "transactions": "full", "logs": "full", "geth_calls": "crosschecked"}
            for (key, start), found in published.items():
                data, _ = runtime.store.get(found.manifest_key)
                proof = decode(data).verification
                assert proof == found.verification
                assert proof["blocks"] == 100
                assert proof["boundary"]["last_block_hash"] == hash_of(chain, start + 99)
                if start:
                    assert proof["boundary"]["first_parent_hash"] == hash_of(chain, start - 1)
                assert proof["endpoints"] == {"dev#1": 100}
                assert proof["seconds"] > 0
                assert proof["unproven"] or key == "none"
            sources = {key: found.verification["evidence"] for (key, _), found in published.items()}
            assert sources["blocks"] == {"headers": {"rpc": 100}}
            assert sources["logs"] == {"headers": {"committed rows": 100}, "receipts": {"committed rows": 100}}
            assert set(sources["geth_calls"]) == {"headers", "transactions", "receipts"}
            assert all(source == {"committed rows": 100} for source in sources["geth_calls"].values())

    @pytest.mark.parametrize(("verify", "level"), [("structural", "structural"), ("off", "off")])
    def test_less_than_full_says_so(self, postgres_url, s3, honest, verify, level):
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime, streams=("logs",), verify=verify)
            proof = commit(runtime, streams["logs"], 0).verification
            assert (proof["asked"], proof["level"]) == (verify, level)
            assert proof["unproven"]

    def test_require_full_is_applied_and_taken_back_without_a_rebuild(self, postgres_url, s3, honest):
        """Rows are proven as with `full`; only the stream's setting differs, and the ranges stay committed."""
        with running(postgres_url, s3, dev=honest) as runtime:
            first = apply(runtime, streams=("logs",))["logs"]
            assert commit(runtime, first, 0).verification["asked"] == "full"
            strict = apply(runtime, streams=("logs",), verify="require_full")["logs"]
            assert strict.requires_full
            assert strict.config_hash == first.config_hash
            again = commit(runtime, strict, 0, refresh=True)
            assert not again.created, "the same rows with the same proof are no new version"
            proof = commit(runtime, strict, 100).verification
            assert (proof["asked"], proof["level"]) == ("require_full", "full")
            assert not apply(runtime, streams=("logs",))["logs"].requires_full

    def test_altered_evidence_is_not_the_nodes_lie(self, postgres_url, s3, honest):
        """The committed blocks were altered. The evidence comes from the node instead, and no endpoint is scored."""
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime, streams=("blocks", "logs"))
            commit(runtime, streams["blocks"], 0)
            (row,) = rows(runtime.database, "select file_key from trace.files")
            for change in (_without_rows, lambda data: b"no parquet at all"):
                _overwrite(runtime.store, row["file_key"], change)
                proof = commit(runtime, streams["logs"], 0, refresh=True).verification
                assert (proof["level"], proof["evidence"]["headers"]) == ("full", {"rpc": 100})
            assert runtime.endpoint_scores.all() == []

    def test_a_dataset_nothing_covers_is_checked_for_structure(self):
        from trace_dagster.evidence.needs import is_provable

        assert is_provable("contracts")
        assert not is_provable("geth_storage_diffs")
        assert not is_provable("four_byte_counts")

    def test_structural_rows_are_nobodys_evidence(self, postgres_url, s3, honest):
        with running(postgres_url, s3, dev=honest) as runtime:
            commit(runtime, apply(runtime, streams=("blocks",), verify="structural", name="one")["blocks"], 0)
            logs = apply(runtime, streams=("logs",), name="two")["logs"]
            assert commit(runtime, logs, 0).verification["evidence"]["headers"] == {"rpc": 100}


class TestLiars:
    @pytest.mark.parametrize("dataset", FOUR)
    def test_a_liar_is_passed_over_named_and_put_last(self, postgres_url, s3, honest, dataset):
        with chaos_rpc(honest, faults=["truncate_tail", "empty_list"], rate=1.0, seed=3) as liar:
            liar.faults = ("neighbour_rows",) if dataset == "blocks" else liar.faults
            with running(postgres_url, s3, dev=f"{liar.url},{honest}") as runtime:
                streams = apply(runtime, streams=(dataset,))
                proof = commit(runtime, streams[dataset], 0).verification
                assert proof["endpoints"] == {"dev#2": 100}
                (standing,) = runtime.endpoint_scores.all()
                assert standing.endpoint == "dev#1"
                assert standing.lies >= 1
                assert "block=" in standing.reason
                pool = runtime.pools.named("dev", CHAIN_ID)
                assert [endpoint.name for endpoint in runtime.endpoint_scores.best_first(pool)] == ["dev#2", "dev#1"]
                before = liar.requests
                commit(runtime, streams[dataset], 100)
                assert liar.requests == before  # it is last in the order, and the first one answered

    def test_only_liars_fail_the_range_with_block_expected_got_and_endpoint(self, postgres_url, s3, honest):
        with (
            chaos_rpc(honest, faults=["truncate_tail"], rate=1.0, seed=3, methods=["eth_getBlockReceipts"]) as liar,
            running(postgres_url, s3, dev=liar.url) as runtime,
        ):
            streams = apply(runtime, streams=("logs",))
            with pytest.raises(VerificationFailed) as caught:
                commit(runtime, streams["logs"], 0)
            assert {"block", "expected", "got", "endpoint"} <= set(caught.value.facts)
            (task,) = rows(runtime.database, "select state, error from trace.tasks where lower(block_range) = 0")
            assert task["state"] == "queued"
            assert "endpoint=dev#1" in task["error"]
            assert rows(runtime.database, "select 1 from trace.dataset_versions") == []

    def test_a_quorum_needs_two_endpoints_that_agree(self, postgres_url, s3, honest):
        """No commitment covers the changed value, so only another node can show the lie."""
        with (
            chaos_rpc(honest, faults=["flip_byte"], rate=1.0, seed=5, methods=["debug_traceBlockByNumber"]) as liar,
            running(postgres_url, s3, quorum=2, dev=f"{honest},{liar.url}") as runtime,
        ):
            streams = apply(runtime, streams=("geth_calls",))
            with pytest.raises(VerificationFailed, match=r"no quorum of 2|root frame|call"):
                commit(runtime, streams["geth_calls"], 0)
        with running(postgres_url, s3, quorum=2, dev=f"{honest},{honest}?second") as runtime:
            proof = commit(runtime, streams["geth_calls"], 0).verification
            assert proof["quorum"] == 2
            assert proof["endpoints"] == {"dev#1": 100, "dev#2": 100}

    def test_a_quorum_of_more_endpoints_than_there_are_is_refused(self, postgres_url, s3, honest):
        with (
            pytest.raises(InvalidInput, match="TRACE_RPC_POOL_DEV_QUORUM must be a number from 1 to the pool's 1"),
            running(postgres_url, s3, quorum=2, dev=honest) as runtime,
        ):
            runtime.pools.named("dev", CHAIN_ID)

    def test_an_old_lie_is_forgotten_and_breaks_nothing(self, postgres_url, s3, honest):
        with running(postgres_url, s3, dev=f"{honest},{honest}?second") as runtime:
            pool = runtime.pools.named("dev", CHAIN_ID)
            for _ in range(2):
                runtime.endpoint_scores.record_lie(pool.endpoints[0], "a test")
            assert [each.name for each in runtime.endpoint_scores.best_first(pool)] == ["dev#2", "dev#1"]
            with runtime.database.transaction() as session:
                session.connection.execute("update trace.endpoints set lied_at = now() - interval '10 years'")
            runtime.endpoint_scores._read_at = float("-inf")
            assert [each.name for each in runtime.endpoint_scores.best_first(pool)] == ["dev#1", "dev#2"]
            runtime.endpoint_scores.record_lie(pool.endpoints[0], "again [/b]")
            (standing,) = runtime.endpoint_scores.all()
            assert (standing.lies, standing.score) == (3, 1.0)
            endpoint_scores_table([standing])  # text from a node is shown and not interpreted

    def test_the_same_url_twice_is_one_endpoint(self, postgres_url, s3, honest):
        with (
            pytest.raises(InvalidInput, match="from 1 to the pool's 1 endpoints"),
            running(postgres_url, s3, quorum=2, dev=f"{honest},{honest}") as runtime,
        ):
            runtime.pools.named("dev", CHAIN_ID)

    def test_a_silent_or_lame_second_endpoint_decides_nothing(self, postgres_url, s3, honest):
        """The first endpoint fails with an error that passes, the second with a permanent one: the range is retried."""
        with (
            chaos_rpc(honest, faults=["http_500"], rate=1.0, seed=1) as busy,
            chaos_rpc(honest, faults=["error_32601"], rate=1.0, seed=1) as lame,
            running(postgres_url, s3, dev=f"{busy.url},{lame.url}") as runtime,
        ):
            runtime.pools.named = lambda name, chain_id: runtime.settings.pool(name)
            streams = apply(runtime, streams=("logs",))
            with pytest.raises(Unavailable):
                commit(runtime, streams["logs"], 0)
            (task,) = rows(runtime.database, "select state from trace.tasks where lower(block_range) = 0")
            assert task["state"] == "queued"


class TestForks:
    def test_nothing_is_taken_back_while_an_endpoint_is_silent(self, postgres_url, s3, honest, forking):
        """The silent endpoint may be the one that knows the canonical chain."""
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime, streams=("blocks",))
            commit(runtime, streams["blocks"], 100)
        with running(postgres_url, s3, dev=f"{forking},http://127.0.0.1:9/") as runtime:
            with pytest.raises(Unavailable, match="not every endpoint answers"):
                commit(runtime, streams["blocks"], 200)
            assert len(rows(runtime.database, "select 1 from trace.dataset_versions where visible")) == 1

    def test_what_is_proven_better_replaces_the_same_rows(self, postgres_url, s3, honest):
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime, streams=("logs",), verify="structural")
            assert commit(runtime, streams["logs"], 0).verification["level"] == "structural"
            streams = apply(runtime, streams=("logs",))
            better = commit(runtime, streams["logs"], 0, refresh=True)
            assert (better.created, better.generation, better.verification["level"]) == (True, 1, "full")
            assert not commit(runtime, streams["logs"], 0, refresh=True).created

    def test_a_reorganised_neighbour_is_invalidated_and_fetched_again(self, postgres_url, s3, honest, forking, chain):
        with running(postgres_url, s3, dev=forking) as runtime:
            streams = apply(runtime, streams=("blocks", "logs"))
            commit(runtime, streams["blocks"], 100)  # the hash of the stale fork
            commit(runtime, streams["logs"], 100)
        with running(postgres_url, s3, dev=honest) as runtime:
            with pytest.raises(Unavailable, match="2 committed ranges were invalidated"):
                commit(runtime, streams["blocks"], 200)
            assert {
                row["reason"].split(":")[0] for row in rows(runtime.database, "select * from trace.invalidations")
            } == {"reorganised"}
            assert rows(runtime.database, "select 1 from trace.dataset_versions where visible") == []
            for start in (100, 200):
                assert commit(runtime, streams["blocks"], start).created
            assert commit(runtime, streams["logs"], 100).generation == 1
            shown = rows(
                runtime.database, "select last_block_hash from trace.dataset_versions where visible order by 1"
            )
            assert {bytes(row["last_block_hash"]).hex() for row in shown} == {
                chain.blocks[199].hash.hex(), chain.blocks[299].hash.hex(),
            }  # fmt: skip
            assert (
                rows(runtime.database, "select 1 from trace.endpoints") == []
            )  # a reorganisation does not lower any endpoint's score

    def test_rows_of_a_stale_fork_do_not_take_committed_ones_with_them(self, postgres_url, s3, honest, forking):
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime, streams=("blocks",))
            commit(runtime, streams["blocks"], 100)
        with running(postgres_url, s3, dev=f"{forking},{honest}") as runtime:
            with pytest.raises(Unavailable, match="do not agree"):
                commit(runtime, streams["blocks"], 200)
            assert len(rows(runtime.database, "select 1 from trace.dataset_versions where visible")) == 1
        with running(postgres_url, s3, dev=honest) as runtime:
            assert not commit(
                runtime, streams["blocks"], 100
            ).created  # compared with the visible version, and confirmed
            assert commit(runtime, streams["blocks"], 200).created

    def test_logs_of_another_fork_than_the_committed_blocks(self, postgres_url, s3, honest, forking):
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime, streams=("blocks", "logs"))
            commit(runtime, streams["blocks"], 200)
        with running(postgres_url, s3, dev=f"{forking},{honest}") as runtime:
            found = commit(runtime, streams["logs"], 200)
            assert found.verification["endpoints"] == {"dev#2": 100}
        with running(postgres_url, s3, dev=forking) as runtime, pytest.raises(Unavailable, match="invalidated"):
            commit(runtime, streams["logs"], 200, refresh=True)


class TestSentinels:
    def test_another_chain_stops_the_stream_until_it_is_resumed(self, postgres_url, s3, honest):
        with (
            chaos_rpc(honest, faults=["wrong_chain_id"], rate=0.0, seed=1) as node,
            running(postgres_url, s3, dev=node.url) as runtime,
        ):
            streams = apply(runtime, streams=("logs",))
            commit(runtime, streams["logs"], 0)
            node.rate = 1.0
            with pytest.raises(UnknownFormat, match=r"dev#1 serves chain \d+ now") as caught:
                commit(runtime, streams["logs"], 100)
            assert "TRACE_RPC_POOL_DEV_URL" in str(caught.value)
            with pytest.raises(Refused, match=r"its stream was stopped: .*resume"):
                commit(runtime, streams["logs"], 200)
            node.rate = 0.0
            runtime.jobs.set_enabled("proofs", True)
            assert commit(runtime, streams["logs"], 200).created

    @pytest.mark.parametrize(("verify", "way_out"), [("full", "structural"), ("require_full", "full")])
    def test_an_unknown_transaction_type_stops_the_stream(self, postgres_url, s3, verify, way_out):
        """The chain is in the table, so all of its types are known: another one is a new fork, or invented."""
        strange = ImitatedNode(SomeUnknownType("A chain of the table, unknown type", 56))
        job = JOB.format(name="proofs", chain=56, end=strange.recipe.end, verify=verify, streams=TRANSACTIONS)
        job = job.replace("from_block: 0", f"from_block: {strange.recipe.first}").replace(
            "chunk_size: 100", "chunk_size: 12"
        )
        with serving_chain(strange) as node, running(postgres_url, s3, dev=node.url) as runtime:
            runtime.jobs.apply(parse(job), Bounds(strange.recipe.first, strange.recipe.end))
            (stream,) = runtime.jobs.streams()
            first = BlockRange(strange.recipe.first, min(strange.recipe.first // 12 * 12 + 12, strange.recipe.end))
            work = runtime.ingester.claim(stream, first, "run", wait_seconds=0)
            with pytest.raises(UnknownFormat, match="block="):
                runtime.ingester.commit(runtime.ingester.start(work))
            (stream,) = runtime.jobs.streams()
            assert f"is halted: settle it or apply `verify: {way_out}`" in (stream.halted_reason or "")


def silent(total):
    del total
    return lambda: None


class TestAudit:
    @pytest.fixture
    def lake(self, postgres_url, s3, honest):
        with running(postgres_url, s3, dev=honest) as runtime:
            streams = apply(runtime)
            commit_all(runtime, {key: streams[key] for key in FOUR})
            yield runtime, streams, environment(postgres_url, s3, dev=honest)

    def verify(self, lake, *, deep=False, repair=False, span=None):
        return verify_job("proofs", settings_from(lake[2]), span, deep=deep, repair=repair, progress=silent)

    @pytest.mark.parametrize("deep", [False, True])
    def test_a_whole_lake_passes(self, lake, deep):
        report = self.verify(lake, deep=deep).report
        assert report.passed, report
        assert report.ranges == 12
        assert report.levels.get("full", 0) >= (
            9 if deep else 3
        )  # offline: logs are checked against blocks and transactions

    def test_every_kind_of_damage_is_found_and_exactly_that_is_fetched_again(self, lake, chain):
        runtime, streams, _ = lake
        files = {
            (row["dataset_key"], row["start"]): row
            for row in rows(
                runtime.database,
                "select d.dataset_key, lower(v.block_range) as start, v.manifest_key, f.file_key, v.dataset_version"
                " from trace.dataset_versions v join trace.datasets d using (dataset_uuid)"
                " join trace.version_files using (dataset_version) join trace.files f using (file_key)",
            )
        }
        store = runtime.store
        store.delete([files["logs", 0]["file_key"]])
        _overwrite(store, files["transactions", 100]["file_key"], lambda data: data[:-20] + b"\0" * 20)
        _overwrite(store, files["blocks", 200]["manifest_key"], lambda data: data.replace(b"full", b"Full"))
        store.delete([files["geth_calls", 200]["manifest_key"]])
        found = {(each.dataset_key, each.range_start): each.kind for each in self.verify(lake).report.findings}
        assert found == {
            ("logs", 0): "missing_object",
            ("transactions", 100): "altered_object",
            ("blocks", 200): "bad_manifest",
            ("geth_calls", 200): "missing_object",
        }
        assert self.verify(lake, repair=True).repaired == 4
        state = rows(runtime.database, "select state, count(*) from trace.tasks group by 1 order by 1")
        assert {row["state"]: row["count"] for row in state} == {"committed": 8, "queued": 4}
        holes = self.verify(lake).report
        assert {each.kind for each in holes.findings} == {"hole"}
        for key, start in found:
            assert commit(runtime, streams[key], start).created
        assert self.verify(lake, deep=True).report.passed
        assert self.verify(lake, span=BlockRange(100, 200)).report.ranges == 4

    def test_rows_that_were_swapped_for_others_with_the_right_digest_in_the_registry_are_found_by_the_node(self, lake):
        """The rows were replaced, with matching digests in the registry.

        Only the chain's commitments show the change.
        """
        runtime, *_ = lake
        (row,) = rows(
            runtime.database,
            "select f.file_key from trace.dataset_versions v join trace.datasets d using (dataset_uuid)"
            " join trace.version_files using (dataset_version) join trace.files f using (file_key)"
            " where d.dataset_key = 'logs' and lower(v.block_range) = 100",
        )
        forged = _forge(runtime, row["file_key"])
        assert forged
        (finding,) = self.verify(lake).report.findings
        assert (finding.dataset_key, finding.kind) == ("logs", "bad_rows")
        assert "receipts root" in finding.reason

    def test_a_certificate_is_checked_with_nothing_but_the_parquet(self, lake, tmp_path, chain):
        runtime, _, variables = lake
        statement = tmp_path / "statement.json"
        statement.write_text(certify_job("proofs", settings_from(variables), None).model_dump_json())
        folder = _downloaded(runtime, tmp_path / "data")
        trusted = (299, chain.blocks[299].hash)
        wrong, checked = check_certificate(read(statement), folder, trusted)
        assert wrong == []
        assert checked == {"rows": 1200, "receipts roots": 300, "times": 900}
        assert check_certificate(read(statement), folder, (299, bytes(32)))[0]
        assert check_certificate(read(statement), folder, (10_000, bytes(32)))[0]
        assert unanchored(read(statement), (199, bytes(32))) == 100
        doubled = read(statement)
        doubled.ranges.append(doubled.ranges[0])
        assert "another range covers" in check_certificate(doubled, folder, trusted)[0][0]
        victim = next(folder.rglob("logs_*.parquet"))
        victim.write_bytes(victim.read_bytes()[:-1] + b"x")
        assert "not the certified one" in check_certificate(read(statement), folder, trusted)[0][0]
        changed = json.loads(statement.read_text())
        changed["ranges"][0]["rows"] += 1
        statement.write_text(json.dumps(changed))
        with pytest.raises(InvalidInput, match="changed after it was made"):
            read(statement)

    def test_a_range_of_many_files_is_read_in_its_order(self, postgres_url, s3, honest, monkeypatch, tmp_path):
        """Part 10 comes after part 9, although its name sorts before."""
        monkeypatch.setattr("trace_dagster.store.parquet.ROW_GROUP_BYTES", 15_000)
        with running(postgres_url, s3, dev=honest) as runtime:
            runtime.committer._caps = Caps(bytes_per_file=18_000)
            streams = apply(runtime, end=100)
            found = commit_all(runtime, {key: streams[key] for key in FOUR}, end=100)
            (most,) = rows(
                runtime.database,
                "select count(*) as files from trace.version_files group by dataset_version order by 1 desc limit 1",
            )
            assert most["files"] > 11
            assert found["logs", 0].verification["evidence"]["receipts"] == {"committed rows": 100}
            variables = environment(postgres_url, s3, dev=honest)
            assert verify_job(
                "proofs", settings_from(variables), None, deep=False, repair=False, progress=silent
            ).report.passed
            statement = tmp_path / "statement.json"
            statement.write_text(certify_job("proofs", settings_from(variables), None).model_dump_json())
            assert check_certificate(read(statement), _downloaded(runtime, tmp_path / "data"), None)[0] == []

    def test_an_incomplete_job_gets_no_certificate(self, lake):
        runtime, streams, variables = lake
        runtime.forks.invalidate([commit(runtime, streams["blocks"], 0, refresh=True).dataset_version], "a test")
        with pytest.raises(InvalidInput, match=r"blocks is not complete: \[0, 100\) is not committed"):
            certify_job("proofs", settings_from(variables), None)


def _overwrite(store, key, change):
    data, etag = store.get(key)
    store.replace(key, change(data), etag)


def _without_rows(data):
    import io

    table = pq.read_table(io.BytesIO(data))
    sink = io.BytesIO()
    pq.write_table(table.slice(0, 40), sink)
    return sink.getvalue()


def _forge(runtime, key):
    """Replace a logs file by one with a changed row, and the registry's digests to match."""
    import io
    from hashlib import sha256

    import pyarrow as pa

    from trace_dagster.digest import ContentDigest

    data, etag = runtime.store.get(key)
    table = pq.read_table(io.BytesIO(data))
    values = table["data"].to_pylist()
    values[0] = bytes(len(values[0]))
    table = table.set_column(table.column_names.index("data"), "data", pa.array(values, pa.large_binary()))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    runtime.store.replace(key, sink.getvalue(), etag)
    digest = ContentDigest(table.schema.remove_metadata())
    digest.update(table.replace_schema_metadata(None))
    new = {"content_digest": digest.hexdigest(), "rows": table.num_rows}
    with runtime.database.transaction() as session:
        execute = session.connection.execute
        execute("update trace.files set sha256 = %s where file_key = %s", (sha256(sink.getvalue()).hexdigest(), key))
        version = execute("select * from trace.version_files where file_key = %s", (key,)).fetchone()["dataset_version"]
        found = execute("select * from trace.dataset_versions where dataset_version = %s", (version,)).fetchone()
        manifest, etag = runtime.store.get(found["manifest_key"])
        changed = json.dumps({**json.loads(manifest), "content_digest": new["content_digest"]}).encode()
        runtime.store.replace(found["manifest_key"], changed, etag)
        execute(
            "update trace.dataset_versions set content_digest = %s, manifest_sha256 = %s where dataset_version = %s",
            (new["content_digest"], sha256(changed).hexdigest(), version),
        )
    return True


def _downloaded(runtime, folder: Path) -> Path:
    folder.mkdir()
    keys = sorted(runtime.store.keys(""))
    for name, group in groupby(keys, key=lambda key: key.rpartition("/")[2]):
        for number, key in enumerate(group):
            if name.endswith(".parquet"):
                runtime.store.download(key, folder / (name if not number else f"{number}-{name}"))
    return folder
