"""Both sources of rows at real nodes: equal on every column, requests counted, and the decoder in Cryo's place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.integration.test_proofs import commit
from tests.support.anvil import find_anvil, running_chain
from tests.support.anvil_node import CHAIN_ID as ANVIL_CHAIN
from tests.support.left_out import EVM_NODE, REAL_BLOCKS, leave_out
from tests.support.nodes import counting, running
from tests.support.proven import REAL, real_folder
from tests.support.replay import replaying
from trace_dagster.blocks import BlockRange
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.config.chain_sync import parse
from trace_dagster.datasets.catalogue import NATIVE_DATASETS, NATIVE_LACKS, dataset
from trace_dagster.devchain import server
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.errors import EndpointLacks, ExtractionFailed, NoAnswer, Unavailable, VerificationFailed
from trace_dagster.evidence.cache import EvidenceCache
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.extraction.engine_memory import FAILURES
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.manifest import decode
from trace_dagster.registry.jobs import Bounds
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration
BLOCKS = 120


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, BLOCKS + 1)


def request(name, urls, span, chain_id, source, cache=None, columns=None, quorum=1):
    known = dataset(name)
    columns = columns or [each for each in known.all_columns if each not in NATIVE_LACKS.get(name, ())]
    evidence = EvidenceCollector(name, chain_id, None, cache, span, for_rows=source == "native")
    return RangeRequest(
        dataset=known,
        block_range=span,
        chain_id=chain_id,
        columns=tuple(columns),
        verify="full",
        pool=RpcPool("node", tuple(urls), quorum),
        evidence=evidence,
        options={"engine": source, "timeout_seconds": 60, "inner_request_blocks": 100},
    )


class Refusing:
    """An engine that must not be called, or that always fails with ``error``."""

    name, version = "refusing", "0"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or AssertionError("Cryo is not called")
        self.calls = 0

    def extract(self, _):
        self.calls += 1
        raise self.error

    def made_up_times(self, _):
        """Return None: a node has the headers."""

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def extractor(engine, **more) -> Iterator[Extractor]:
    made = Extractor(engine, **more)
    try:
        yield made
    finally:
        made.close()


def both(engine, url, name, span, chain_id):
    """Return the rows of Cryo and of the decoder, whole."""
    with extractor(engine) as cryo, extractor(Refusing()) as native:
        one = list(cryo.start(request(name, [url], span, chain_id, "cryo")))
        other = list(native.start(request(name, [url], span, chain_id, "native")))
    assert {piece.rows_from for piece in one} == {"cryo"}
    assert {piece.rows_from for piece in other} == {"native"}
    assert {piece.proof.level for piece in one} == {piece.proof.level for piece in other}
    return [[piece.table for piece in pieces] for pieces in (one, other)]


@pytest.mark.parametrize("name", NATIVE_DATASETS)
def test_a_devchains_rows_are_equal(engine, chain, name):
    with counting(server.application(chain)) as (node, _):
        cryo, native = both(engine, node, name, BlockRange(0, BLOCKS), CHAIN_ID)
    assert cryo == native


@pytest.mark.parametrize("name", NATIVE_DATASETS)
def test_mainnets_rows_are_equal(engine, name):
    folder = real_folder()
    if folder is None:
        leave_out(REAL_BLOCKS)
    with replaying(folder) as node:
        for number in REAL:
            span = BlockRange(number, number + 1)
            cryo, native = both(engine, node.url, name, span, 1)
            assert cryo == native, number


@pytest.fixture(scope="module")
def anvil():
    if find_anvil() is None:
        leave_out(EVM_NODE)
    with running_chain() as chain:
        yield chain


@pytest.mark.parametrize("name", NATIVE_DATASETS)
def test_an_evm_nodes_rows_are_equal(engine, anvil, name):
    cryo, native = both(engine, anvil.url, name, BlockRange(0, anvil.head + 1), ANVIL_CHAIN)
    assert cryo == native


def test_four_streams_cost_three_requests_per_block(chain):
    cache = EvidenceCache()
    with counting(server.application(chain)) as (node, calls), extractor(Refusing()) as native:
        work = [request(name, [node], BlockRange(0, BLOCKS), CHAIN_ID, "native", cache) for name in NATIVE_DATASETS]
        streams = [native.start(each) for each in work]
        rows = {
            name: sum(piece.table.num_rows for piece in each)
            for name, each in zip(NATIVE_DATASETS, streams, strict=True)
        }
    assert rows == {name: chain.rows(name, 0, BLOCKS) for name in NATIVE_DATASETS}
    traced = sum(bool(block.transactions) for block in chain.blocks[:BLOCKS])
    assert traced < BLOCKS, "empty blocks are not traced"
    assert {method: count for method, count in calls.items() if method != "eth_chainId"} == {
        "eth_getBlockByNumber": BLOCKS,
        "eth_getBlockReceipts": BLOCKS,
        "debug_traceBlockByNumber": traced,
    }


@pytest.mark.parametrize(("name", "expected"), [("blocks", 1), ("transactions", 2), ("logs", 2)])
def test_one_stream_alone_costs_only_its_own(chain, name, expected):
    with counting(server.application(chain)) as (node, calls), extractor(Refusing()) as native:
        list(native.start(request(name, [node], BlockRange(0, BLOCKS), CHAIN_ID, "native")))
    assert sum(count for method, count in calls.items() if method != "eth_chainId") == expected * BLOCKS


@pytest.mark.parametrize("name", NATIVE_DATASETS)
def test_rows_come_from_evidence_where_cryo_fails(chain, name):
    failing = Refusing(ExtractionFailed("the engine cannot read an answer"))
    noted = []
    with (
        counting(server.application(chain)) as (node, _),
        extractor(failing, piece_blocks=5, note_unreliable=lambda *noting: noted.append(noting[1])) as made,
    ):
        whole = request(name, [node], BlockRange(0, BLOCKS), CHAIN_ID, "cryo")
        whole.options["inner_request_blocks"] = 1
        pieces = list(made.start(whole))
    assert {piece.rows_from for piece in pieces} == {"native"}
    assert sum(piece.table.num_rows for piece in pieces) == chain.rows(name, 0, BLOCKS)
    under_way = 1  # pieces that began before Cryo was given up
    assert FAILURES <= failing.calls <= FAILURES + under_way
    assert set(noted) == ({"eth_getLogs"} if name == "logs" else set())


@pytest.mark.parametrize("error", [NoAnswer("rpc endpoint node#1 does not answer"), Unavailable("it is busy")])
def test_a_node_that_is_silent_is_asked_again_and_one_that_fails_is_not(chain, error):
    failing = Refusing(error)
    with counting(server.application(chain)) as (node, _), extractor(failing) as made:
        pieces = made.start(request("blocks", [node], BlockRange(0, 3), CHAIN_ID, "cryo"))
        if isinstance(error, NoAnswer):
            with pytest.raises(NoAnswer):
                list(pieces)
        else:
            assert [piece.rows_from for piece in pieces] == ["native"]


def test_without_a_proof_nothing_replaces_cryo(chain):
    failing = Refusing(ExtractionFailed("the engine cannot read an answer"))
    with counting(server.application(chain)) as (node, calls), extractor(failing) as made:
        structural = replace(
            request("logs", [node], BlockRange(0, 3), CHAIN_ID, "cryo"), evidence=None, verify="structural"
        )
        with pytest.raises(ExtractionFailed, match="cannot read"):
            list(made.start(structural))
    assert calls.keys() <= {"eth_chainId", "eth_getBlockByNumber"}, "headers, for the times of blocks"


@pytest.mark.parametrize("fault", ["truncate_tail", "duplicate_rows", "null_hashes", "flip_byte", "empty_list"])
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", ["logs", "erc20_transfers"])
def test_logs_that_proven_receipts_contradict_are_no_lie(engine, chain, fault, alone, name):
    lies, noted = [], []
    cache = EvidenceCache()
    if not alone:
        cache.expect(CHAIN_ID, "transactions")
    with (
        counting(server.application(chain)) as (node, calls),
        chaos_rpc(node, faults=[fault], rate=1.0, seed=5, methods=("eth_getLogs",)) as faulty,
        extractor(
            engine,
            record_liar=lambda *lie: lies.append(lie),
            note_unreliable=lambda endpoint, method, _: noted.append((endpoint.name, method)),
            piece_blocks=30,
        ) as made,
    ):
        truth = list(made.start(request(name, [node], BlockRange(0, BLOCKS), CHAIN_ID, "cryo")))
        calls.clear()
        work = request(name, [faulty.url], BlockRange(0, BLOCKS), CHAIN_ID, "cryo", cache)
        pieces = list(made.start(work))
        asked = calls["eth_getLogs"]
        list(made.start(request(name, [faulty.url], BlockRange(0, BLOCKS), CHAIN_ID, "cryo", cache)))
    assert not lies
    assert set(noted) == {("node#1", "eth_getLogs")}
    assert calls["eth_getLogs"] == asked, "the second range does not ask for logs"
    assert {piece.proof.level for piece in pieces} == {"full"}
    assert [piece.table for piece in pieces] == [piece.table for piece in truth]
    assert "native" in {piece.rows_from for piece in pieces}


def test_another_process_may_have_noted_that_logs_are_unreliable(chain):
    noted = lambda endpoint, method: (endpoint.name, method) == ("node#1", "eth_getLogs")  # noqa: E731
    with counting(server.application(chain)) as (node, calls), extractor(Refusing(), is_unreliable=noted) as made:
        pieces = list(made.start(request("logs", [node], BlockRange(0, BLOCKS), CHAIN_ID, "cryo")))
    assert {piece.rows_from for piece in pieces} == {"native"}
    assert not calls["eth_getLogs"]


@pytest.mark.parametrize("source", ["cryo", "native"])
@pytest.mark.parametrize("method", ["eth_getBlockReceipts", "eth_getBlockByNumber"])
def test_a_receipt_or_block_that_contradicts_a_header_stays_a_lie(engine, chain, source, method):
    lies = []
    with (
        counting(server.application(chain)) as (node, _),
        chaos_rpc(node, faults=["flip_digit"], rate=1.0, seed=5, methods=(method,)) as faulty,
        extractor(engine, record_liar=lambda endpoint, _: lies.append(endpoint.name)) as made,
    ):
        span = BlockRange(12, 18)
        pieces = list(made.start(request("logs", [faulty.url, node], span, CHAIN_ID, source)))
    assert set(lies) == {"node#1"}
    assert sum(piece.table.num_rows for piece in pieces) == chain.rows("logs", span.start, span.end)


@pytest.mark.parametrize("name", NATIVE_DATASETS)
def test_a_quorum_compares_native_rows(chain, name):
    with counting(server.application(chain)) as (node, calls), extractor(Refusing()) as native:
        span = BlockRange(20, 40)
        urls = [node, f"{node}?2"]
        pieces = list(native.start(request(name, urls, span, CHAIN_ID, "native", quorum=2)))
    assert {piece.endpoints for piece in pieces} == {("node#1", "node#2")}
    assert calls["eth_getBlockByNumber"] == 2 * len(span)


@pytest.mark.parametrize("fault", ["flip_digit", "truncate_tail"])
def test_a_quorum_finds_a_lie_in_call_frames(chain, fault):
    with (
        counting(server.application(chain)) as (node, _),
        chaos_rpc(node, faults=[fault], rate=1.0, seed=5, methods=("debug_traceBlockByNumber",)) as faulty,
        extractor(Refusing()) as native,
    ):
        work = request("geth_calls", [node, faulty.url], BlockRange(20, 24), CHAIN_ID, "native", quorum=2)
        with pytest.raises((VerificationFailed, Unavailable)):
            list(native.start(work))


def test_a_node_without_traces_is_one_clear_error(chain):
    with (
        counting(server.application(chain)) as (node, _),
        chaos_rpc(node, faults=["error_32601"], rate=1.0, methods=("debug_traceBlockByNumber",)) as faulty,
        extractor(Refusing()) as native,
        pytest.raises(EndpointLacks, match="does not support debug_traceBlockByNumber: use a node that does"),
    ):
        list(native.start(request("geth_calls", [faulty.url], BlockRange(20, 24), CHAIN_ID, "native")))


JOB = """
kind: chain_sync
name: sources
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 0, to_block: 100}}
defaults: {{rpc_pool: dev, chunk_size: 100, engine: {engine}}}
streams:
{streams}
"""


def committed(runtime, source):
    """Apply the job with this engine, commit each stream's range again, and return the manifests by key."""
    text = "\n".join(f"  {name}: {{cryo_dataset_name: {name}}}" for name in NATIVE_DATASETS)
    runtime.jobs.apply(parse(JOB.format(chain=CHAIN_ID, engine=source, streams=text)), Bounds(0, 100))
    found = {}
    for stream in runtime.jobs.streams():
        published = commit(runtime, stream, 0, refresh=True)
        found[stream.dataset_key] = decode(runtime.store.get(published.manifest_key)[0])
    return found


@pytest.mark.parametrize("order", [("cryo", "native"), ("native", "cryo")])
def test_the_engine_of_an_applied_stream_may_change_and_its_rows_do_not(postgres_url, s3, chain, order):
    with counting(server.application(chain)) as (node, _), running(postgres_url, s3, dev=node) as runtime:
        first, again = (committed(runtime, source) for source in order)
    assert first == again, "equal rows are no new version"
    for manifest in first.values():
        assert manifest.engine["name"] == order[0]
        assert manifest.verification["rows_from"] == {order[0]: 100}
