"""The time of every row, at each level: who says it, how many calls it costs, and what happens to nodes that lie."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from tests.support.imitated.chain import START_TIME
from tests.support.imitated.chains import IMITATED
from tests.support.imitated.layer1 import Modern
from tests.support.imitated.node import ImitatedNode
from tests.support.nodes import counting, running
from tests.support.replay import serving_chain
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.verification import verify_job
from trace_dagster.config.chain_sync import parse
from trace_dagster.datasets import chains
from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP, dataset
from trace_dagster.datasets.chain import Chain
from trace_dagster.devchain import server
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.errors import NoQuorum, Unavailable, VerificationFailed
from trace_dagster.evidence.claimed_times import ClaimedTimes
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.manifest import decode
from trace_dagster.registry.jobs import Bounds
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration
BLOCKS = 60
SPAN = BlockRange(5, 55)
DATASETS = ("blocks", "transactions", "logs", "geth_calls", "erc20_transfers")
IN_ROWS = ("blocks", "transactions")
RECIPE = Modern("Monad", 143, first=90_000_000)


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS)


class WrongHeaders(ImitatedNode):
    """A node that answers calls for headers alone, for Cryo's as well, in its own way: ``alter`` changes a block."""

    def __init__(self, alter, recipe=RECIPE):
        super().__init__(recipe)
        self.alter = alter

    def call(self, method, params):
        answer = super().call(method, params)
        if method == "eth_getBlockByNumber" and not params[1]:
            return self.alter(dict(answer))
        return answer


def request(name, urls, span, chain_id, verify="structural", quorum=1, evidence=None):
    known = dataset(name)
    pool = RpcPool("node", tuple(urls), quorum)
    options = {"timeout_seconds": 30, "inner_request_blocks": 20}
    return RangeRequest(known, span, chain_id, known.stored_columns(), verify, pool, evidence, options)


def extracted(engine, wanted, **more):
    """Return the pieces of a range, and the endpoints that were recorded as liars."""
    lies = []
    extractor = Extractor(
        engine, lambda pool, load: list(pool.endpoints), lambda endpoint, _: lies.append(endpoint.name), **more
    )
    try:
        return list(extractor.start(wanted)), lies
    finally:
        extractor.close()


def seconds_of(pieces):
    """Return the time of each block that has rows, in seconds."""
    return {
        block: time.timestamp()
        for piece in pieces
        for block, time in zip(
            piece.table["block_number"].to_pylist(), piece.table[BLOCK_TIMESTAMP].to_pylist(), strict=True
        )
    }


@pytest.mark.parametrize("verify", ["off", "structural", "full"])
@pytest.mark.parametrize("name", DATASETS)
def test_rows_have_the_time_of_their_block(engine, chain, name, verify):
    with counting(server.application(chain)) as (url, calls):
        evidence = EvidenceCollector(name, CHAIN_ID, None) if verify == "full" else None
        pieces, _ = extracted(engine, request(name, [url], SPAN, CHAIN_ID, verify, evidence=evidence), piece_blocks=20)
        asked = calls["eth_getBlockByNumber"]
    found = seconds_of(pieces)
    assert found
    assert found == {block: chain.blocks[block].timestamp for block in found}
    assert all(piece.table[BLOCK_TIMESTAMP].null_count == 0 for piece in pieces)
    assert {piece.has_proven_times for piece in pieces} == {verify == "full"}
    if verify != "full":
        by_cryo = len(SPAN) if name in {*IN_ROWS, "geth_calls"} else 0
        assert asked == by_cryo + (0 if name in IN_ROWS else len(SPAN))


def test_streams_of_a_chain_share_the_headers(engine, chain):
    with counting(server.application(chain)) as (url, calls):
        extractor = Extractor(engine)
        streams = [extractor.start(request(name, [url], SPAN, CHAIN_ID)) for name in ("logs", "erc20_transfers")]
        assert sum(piece.table.num_rows for stream in streams for piece in stream)
        counted = sum(stream.calls for stream in streams)
        extractor.close()
        assert calls["eth_getBlockByNumber"] == len(SPAN)
        assert counted == calls.total()


def test_threads_that_need_the_same_times_fetch_them_once(chain):
    times, made, found = ClaimedTimes(), [], []
    with counting(server.application(chain)) as (url, calls):
        (endpoint,) = RpcPool("node", (url,)).endpoints

        def fetch():
            found.append(times.of(endpoint, chains.chain_of(CHAIN_ID), SPAN, made.append))

        threads = [threading.Thread(target=fetch) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert calls["eth_getBlockByNumber"] == len(SPAN)
    assert sum(made) == calls.total()
    assert found == [[chain.blocks[block].timestamp * 1_000_000 for block in range(5, 55)]] * 8


WRONG = {
    "no block": lambda block: None,
    "another block": lambda block: block | {"number": hex(int(block["number"], 16) + 1)},
    "no number": lambda block: block | {"number": None},
    "no timestamp": lambda block: {name: value for name, value in block.items() if name != "timestamp"},
    "a decimal": lambda block: block | {"timestamp": int(block["timestamp"], 16)},
    "a text": lambda block: block | {"timestamp": "now"},
    "a negative": lambda block: block | {"timestamp": "0x-5"},
    "beyond the type": lambda block: block | {"timestamp": hex(1 << 64)},
    "beyond 256 bits": lambda block: block | {"timestamp": "0x" + "f" * 80},
    "in milliseconds": lambda block: block | {"timestamp": hex(int(block["timestamp"], 16) * 1000)},
    "a list": lambda block: [],
    "text": lambda block: "block",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_header_that_is_wrong_is_asked_of_another_endpoint(engine, wrong):
    span = BlockRange(RECIPE.first, RECIPE.first + 6)
    with serving_chain(WrongHeaders(WRONG[wrong])) as liar, serving_chain(ImitatedNode(RECIPE)) as honest:
        pieces, _ = extracted(engine, request("logs", [liar.url, honest.url], span, RECIPE.chain_id))
        assert seconds_of(pieces) == {block: START_TIME + 2 * (block - span.start) for block in seconds_of(pieces)}
        assert {name for piece in pieces for name in piece.endpoints} == {"node#2"}
        with pytest.raises((Unavailable, VerificationFailed)):
            extracted(engine, request("logs", [liar.url], span, RECIPE.chain_id))


def test_endpoints_that_lack_different_headers_give_the_range_together(engine):
    span = BlockRange(RECIPE.first, RECIPE.first + 12)

    def lacking(number):
        return WrongHeaders(lambda block: None if int(block["number"], 16) == span.start + number else block)

    with serving_chain(lacking(3)) as one, serving_chain(lacking(4)) as two:
        pieces, _ = extracted(engine, request("logs", [one.url, two.url], span, RECIPE.chain_id))
    assert seconds_of(pieces) == {block: START_TIME + 2 * (block - span.start) for block in seconds_of(pieces)}


def later(block):
    return block | {"timestamp": hex(int(block["timestamp"], 16) + 1)}


def test_a_quorum_holds_for_times_that_nothing_proves(engine):
    span = BlockRange(RECIPE.first, RECIPE.first + 6)
    with ExitStack() as stack:
        liar = stack.enter_context(serving_chain(WrongHeaders(later))).url
        one, two = (stack.enter_context(serving_chain(ImitatedNode(RECIPE))).url for _ in range(2))
        with pytest.raises(NoQuorum, match=BLOCK_TIMESTAMP):
            extracted(engine, request("logs", [liar, one], span, RECIPE.chain_id, quorum=2))
        pieces, _ = extracted(engine, request("logs", [liar, one, two], span, RECIPE.chain_id, quorum=2))
        assert set(seconds_of(pieces).values()) == {START_TIME + 2 * (each - span.start) for each in seconds_of(pieces)}


class LaterBlocks(ImitatedNode):
    """A node whose blocks are all a second later, under their true hashes."""

    def call(self, method, params):
        answer = super().call(method, params)
        return later(dict(answer)) if method == "eth_getBlockByNumber" else answer


@pytest.mark.parametrize("name", DATASETS)
def test_a_time_that_the_hash_does_not_cover_is_never_committed_at_full(engine, name):
    span = BlockRange(RECIPE.first, RECIPE.first + 6)
    with serving_chain(LaterBlocks(RECIPE)) as liar, serving_chain(ImitatedNode(RECIPE)) as honest:

        def tried(urls):
            evidence = EvidenceCollector(name, RECIPE.chain_id, None)
            return extracted(engine, request(name, urls, span, RECIPE.chain_id, "full", evidence=evidence))

        with pytest.raises(VerificationFailed):
            tried([liar.url])
        pieces, lies = tried([liar.url, honest.url])
        assert seconds_of(pieces) == {block: START_TIME + 2 * (block - span.start) for block in seconds_of(pieces)}
        assert set(lies) == {"node#1"}


class Milliseconds(Modern):
    """The recipe of a chain whose headers count milliseconds."""

    def header_members(self, rng, number):
        return super().header_members(rng, number) | {"timestamp": hex(START_TIME * 1000 + 400 * number + 7)}


@pytest.fixture
def milliseconds(monkeypatch):
    """Yield the recipe of a chain that the table has with milliseconds."""
    recipe = Milliseconds("Milliseconds", 777_001)
    row = Chain(recipe.chain_id, "Milliseconds", timestamp_unit="milliseconds", finality_blocks=1)
    monkeypatch.setitem(chains._BY_ID, recipe.chain_id, row)
    return recipe


JOB = """
kind: chain_sync
name: {name}
chain_id: {chain_id}
mode: {{kind: fixed_target, from_block: {start}, to_block: {end}}}
defaults: {{rpc_pool: node, chunk_size: 12, verify: {verify}}}
streams:
{streams}
"""


def audited(runtime, name):
    """Yield the report of ``trace-lite verify``."""
    yield verify_job(
        name, runtime.settings, None, deep=False, repair=False, progress=lambda ranges: lambda: None
    ).report


def committed(runtime, recipe, verify, names, source="cryo", name=None):
    """Sync one range of each dataset; return the publications by name."""
    lines = [f"  {name}: {{cryo_dataset_name: {name}, engine: {source}}}" for name in names]
    span = BlockRange(recipe.first, recipe.first + 12)
    text = JOB.format(
        name=name or f"job_{source}", chain_id=recipe.chain_id, start=span.start, end=span.end, verify=verify,
        streams="\n".join(lines),
    )  # fmt: skip
    runtime.jobs.apply(parse(text), Bounds(span.start, span.end))
    found = {}
    for spec in runtime.jobs.streams():
        if spec.dataset_key not in names:
            continue
        work = runtime.ingester.claim(spec, span, "run", wait_seconds=5)
        found[spec.dataset_key] = runtime.ingester.commit(runtime.ingester.start(work))
    return found


def spans_of(runtime):
    """Return the first and last time of each committed version in seconds, by dataset key."""
    with runtime.database.connection() as connection:
        rows = connection.execute(
            "select d.dataset_key, v.first_time, v.last_time from trace.dataset_versions v"
            " join trace.datasets d using (dataset_uuid)"
        ).fetchall()
    return {row["dataset_key"]: (row["first_time"].timestamp(), row["last_time"].timestamp()) for row in rows}


@pytest.mark.parametrize("source", ["cryo", "native"])
def test_a_chain_that_counts_milliseconds_is_synced_in_full(milliseconds, postgres_url, s3, source):
    """Cryo cannot read such timestamps: the decoder takes its place."""
    names = ("blocks", "transactions", "logs", "geth_calls")
    node = ImitatedNode(milliseconds)
    with serving_chain(node) as served, running(postgres_url, s3, node=served.url) as runtime:
        found = committed(runtime, milliseconds, "full", names, source)
        assert {name: each.verification["level"] for name, each in found.items()} == {
            **dict.fromkeys(names, "full"),
            "geth_calls": "crosschecked",
        }
        assert all(BLOCK_TIMESTAMP not in each.verification["unproven"] for each in found.values())
        first = START_TIME * 1000 + 400 * milliseconds.first + 7
        assert spans_of(runtime)["blocks"] == (first / 1000, (first + 400 * 11) / 1000)
        manifest = decode(runtime.store.get(found["blocks"].manifest_key)[0])
        assert manifest.rows == 12


def test_a_chain_outside_of_the_table_that_counts_milliseconds_says_what_is_wrong(postgres_url, s3):
    recipe = Milliseconds("Milliseconds", 777_002)
    with serving_chain(ImitatedNode(recipe)) as served, running(postgres_url, s3, node=served.url) as runtime:
        for verify in ("structural", "full"):
            with pytest.raises(Exception, match=r"in seconds, the unit that the table of chains has for chain 777002"):
                committed(runtime, recipe, verify, ("logs",))


@pytest.mark.parametrize("verify", ["structural", "off"])
def test_a_commit_says_that_its_times_are_claimed(postgres_url, s3, verify):
    with serving_chain(ImitatedNode(RECIPE)) as served, running(postgres_url, s3, node=served.url) as runtime:
        found = committed(runtime, RECIPE, verify, ("blocks", "transactions", "logs"))
        assert all(BLOCK_TIMESTAMP in each.verification["unproven"] for each in found.values())
        assert all(each.metrics["rpc_calls"] > 0 for each in found.values())
        spans = spans_of(runtime)
        assert spans["blocks"] == (START_TIME, START_TIME + 22)
        assert spans["logs"] == spans["transactions"] == spans["blocks"]


def test_a_header_that_is_only_claimed_gives_times_that_are_not_proven(postgres_url, s3):
    known = IMITATED["zksync"]
    recipe = known.recipe
    with serving_chain(ImitatedNode(recipe, known.manner)) as served, running(postgres_url, s3, node=served.url) as one:
        found = committed(one, recipe, "full", ("blocks", "transactions", "logs"))
        for each in found.values():
            assert each.verification["level"] != "full"
            assert BLOCK_TIMESTAMP in each.verification["unproven"]


@pytest.mark.parametrize("is_wrong", [True, False])
def test_verify_compares_claimed_times_with_proven_blocks(postgres_url, s3, is_wrong):
    with (
        serving_chain(WrongHeaders(later if is_wrong else dict)) as liar,
        serving_chain(ImitatedNode(RECIPE)) as honest,
        running(postgres_url, s3, node=liar.url) as runtime,
    ):
        committed(runtime, RECIPE, "structural", ("logs",))
        (unproven,) = audited(runtime, "job_cryo")
        assert (unproven.findings, unproven.unproven_times) == ([], 12)
        with running(postgres_url, s3, node=honest.url) as other:
            committed(other, RECIPE, "full", ("blocks",), name="blocks")
        (report,) = audited(runtime, "job_cryo")
    assert report.unproven_times == 0
    assert [each.kind for each in report.findings] == (["bad_rows"] if is_wrong else [])
