"""Evidence that streams share: calls counted at the node, over real Postgres, S3 and Cryo."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.test_proofs import FOUR, SEED, apply, commit
from tests.support.nodes import counting, running
from trace_dagster.blocks import BlockRange
from trace_dagster.chaos_rpc.proxy import chaos_rpc
from trace_dagster.devchain import server
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import VerificationFailed
from trace_dagster.evidence.cache import EvidenceCache
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.rpc.latency import LogSpans, is_near, latency_seconds
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.check import check_evidence
from trace_dagster.verify.fast_path import await_compiled

pytestmark = pytest.mark.integration
BLOCKS = 200


@pytest.fixture(scope="module")
def chain():
    return DevChain(SEED, BLOCKS + 20)


def bring_in(runtime, streams, starts=(0, 100)):
    """Commit all ranges of all streams concurrently, block by block, as a run starts them."""
    work = [(streams[key], start) for start in starts for key in FOUR]
    with ThreadPoolExecutor(len(work)) as threads:
        return list(threads.map(lambda each: commit(runtime, *each), work))


def test_four_streams_fetch_each_blocks_evidence_once(postgres_url, s3, chain):
    with counting(server.application(chain)) as (node, calls), running(postgres_url, s3, dev=node) as runtime:
        streams = apply(runtime, end=BLOCKS)
        for stream in streams.values():
            runtime.evidence_cache.expect(stream.chain_id, stream.dataset.name)
        published = bring_in(runtime, streams)
        assert {each.verification["level"] for each in published} == {"full", "crosschecked"}
        cryo = {"eth_getBlockByNumber": 3 * BLOCKS, "eth_getBlockReceipts": 0}  # blocks, transactions, geth_calls
        evidence = {method: calls[method] - asked for method, asked in cryo.items()}
        # the pool reads its head, and each checked commit reads a block; without sharing it is 4 x and 3 x
        assert BLOCKS <= evidence["eth_getBlockByNumber"] <= BLOCKS + 20
        assert evidence["eth_getBlockReceipts"] == BLOCKS
        assert not runtime.evidence_cache.batches(), "all four are through with all of it"


def test_the_rows_are_those_that_streams_alone_bring(postgres_url, s3, chain):
    with counting(server.application(chain)) as (node, _), running(postgres_url, s3, dev=node) as runtime:
        together = {each.manifest_key.split("/")[2]: each for each in bring_in(runtime, apply(runtime), (0,))}
    digests = {}
    for key in FOUR:
        with counting(server.application(chain)) as (node, _), running(postgres_url, s3, dev=node) as runtime:
            stream = apply(runtime)[key]
            alone = commit(runtime, stream, 0, refresh=True)
            digests[str(stream.dataset_uuid)] = alone.content_digest
    assert digests == {uuid: each.content_digest for uuid, each in together.items()}


def test_receipts_are_fetched_once_and_tell_what_cryo_would(postgres_url, s3, chain):
    """Cryo fetches receipts if no proof does; otherwise they come from the evidence.

    Under a quorum every endpoint fetches them. The rows are the same.
    """
    expected = {("structural", 1): 100, ("full", 1): 100, ("full", 2): 300}
    digests = set()
    for (verify, quorum), receipts in expected.items():
        with counting(server.application(chain)) as (node, calls):
            pool = ",".join(f"{node}?{number}" for number in range(quorum))
            with running(postgres_url, s3, quorum, dev=pool) as runtime:
                stream = apply(runtime, streams=("transactions",), verify=verify)["transactions"]
                digests.add(commit(runtime, stream, 0, refresh=True).content_digest)
            assert calls["eth_getBlockReceipts"] == receipts, (verify, quorum)
    assert len(digests) == 1


def test_evidence_that_contradicts_rows_is_asked_for_anew(postgres_url, s3, chain):
    """The node lies in half of its block receipts.

    After a contradiction no earlier answer of it is used for the next try.
    """
    with (
        counting(server.application(chain)) as (node, _),
        chaos_rpc(node, faults=["flip_digit"], rate=0.05, seed=3) as liar,
        running(postgres_url, s3, dev=f"{liar.url},{node}") as runtime,
    ):
        published = bring_in(runtime, apply(runtime, end=BLOCKS))
        rows = {key: sum(each.rows for each in published[place::4]) for place, key in enumerate(FOUR)}
        assert rows == {key: chain.rows(key, 0, BLOCKS) for key in FOUR}


@pytest.mark.parametrize(("allowed", "least", "most"), [(1000, 2, 4), (50, 4, 24), (5, 200, 230)])
def test_logs_are_asked_for_in_spans_the_node_gives(postgres_url, s3, chain, monkeypatch, allowed, least, most):
    monkeypatch.setattr(server, "MAX_LOG_BLOCKS", allowed)
    with counting(server.application(chain)) as (node, calls), running(postgres_url, s3, dev=node) as runtime:
        stream = apply(runtime, streams=("logs",), verify="structural")["logs"]
        found = [commit(runtime, stream, start) for start in (0, 100)]
        assert sum(each.rows for each in found) == chain.rows("logs", 0, BLOCKS)
        assert least <= calls["eth_getLogs"] <= most


def test_a_span_is_narrowed_by_tens_down_to_one_block():
    spans, endpoint = LogSpans(), Endpoint("dev", 1, "http://a.example")
    assert spans.of(endpoint, 100) == 100
    for narrower in (10, 1, 1):
        spans.refused(endpoint, spans.of(endpoint, 100))
        assert spans.of(endpoint, 100) == narrower
    assert spans.of(Endpoint("dev", 2, "http://b.example"), 100) == 100


def test_a_node_on_this_machine_is_near_and_one_behind_a_slow_line_is_not(chain):
    with counting(server.application(chain)) as (node, _):
        assert latency_seconds(Endpoint("dev", 1, node)) < 0.5
        with chaos_rpc(node, faults=["delay"], rate=1.0, delay_seconds=0.05) as slow:
            assert not is_near(Endpoint("slow", 1, slow.url))


def test_a_stream_that_joins_later_is_not_given_less_than_it_wants(chain):
    """Two streams that need no transactions have fetched the evidence of these blocks already."""
    shared, piece = EvidenceCache(), BlockRange(0, 50)
    with counting(server.application(chain)) as (node, _):
        endpoint = Endpoint("dev", 1, node)
        early = [EvidenceCollector(dataset, 20143, None, shared) for dataset in ("blocks", "logs")]
        assert all(each.of(piece).gather(endpoint).transactions is None for each in early)
        late = EvidenceCollector("transactions", 20143, None, shared).of(piece).gather(endpoint)
        assert late.transactions is not None
        assert late.receipts is not None


class Committed:
    """A source of committed rows that hold the given parts."""

    def __init__(self, parts: EvidenceParts) -> None:
        self._parts = parts

    def parts(self, *_):
        return self._parts


def test_rows_stand_for_evidence_only_where_all_of_it_came_with_them(chain):
    """If receipts come from committed rows and transactions from a node, the proof still checks that they belong
    together.
    """
    shared, piece = EvidenceCache(), BlockRange(0, 50)
    await_compiled()
    with counting(server.application(chain)) as (node, _):
        endpoint = Endpoint("dev", 1, node)
        for dataset in ("transactions", "logs"):
            shared.expect(20143, dataset)
        whole = EvidenceCollector("geth_calls", 20143, None, shared).of(piece).gather(endpoint)
        assert whole.rows is not None
        receipts = list(whole.receipts)
        altered = Committed(EvidenceParts(receipts=[*receipts[:-1], receipts[-1][1:]]))
        mixed = EvidenceCollector("geth_calls", 20143, altered, shared).of(piece).gather(endpoint)
        assert (mixed.rows, mixed.source["receipts"]) == (None, "committed rows")
        with pytest.raises(VerificationFailed, match="not one receipt per transaction"):
            check_evidence(mixed, piece)


def test_blocks_past_a_range_are_not_asked_for(postgres_url, s3, chain):
    """Shared batches are whole cells of the grid, but end at the range: later blocks may not be final."""
    with running(postgres_url, s3, dev="http://127.0.0.1:9") as runtime:
        runtime.evidence_cache.expect(20143, "blocks")
        stream = apply(runtime)["logs"]
        piece = BlockRange(40, 60)
        cached = runtime.evidence(stream, BlockRange(30, 70)).cached(piece, Endpoint("dev", 1, "x"))
        batches = cached._batches(piece)
        assert [(each.start, each.end) for each in batches] == [(30, 50), (50, 70)]
