"""Who is on record after nodes contradict the chain's commitments, near and through the gateway."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from tests.support.gateways import gateway, watched
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import DEVCHAIN_ID, chain_of
from trace_dagster.devchain.chain import DevChain
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.errors import UnknownFormat, VerificationFailed
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.extraction import extractor
from trace_dagster.extraction.blame import WAY_OUT
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.rpc.pools import RpcPool

pytestmark = pytest.mark.integration

RANGE = BlockRange(1, 13)
PIECE_BLOCKS = 4


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, 50)


@pytest.fixture(params=["near", "gateway"])
def way(request):
    return request.param


class Otherwise:
    """A node's methods that show some blocks in a form of its own: another state root, which gives another hash."""

    def __init__(self, methods, numbers):
        self._methods = methods
        self._numbers = numbers

    def answer(self, call):
        """Return the answer to a call, as bytes."""
        answer = json.loads(self._methods.answer(call))
        block = answer.get("result")
        is_block = call["method"] == "eth_getBlockByNumber" and isinstance(block, dict)
        if is_block and int(block["number"], 16) in self._numbers:
            block["stateRoot"] = "0x" + "5a" * 32
        return json.dumps(answer).encode()


def otherwise(node, numbers=frozenset(range(50))):
    """Have a node show these blocks in a form of its own."""
    node.methods = Otherwise(node.methods, numbers)


def honest(node):
    """Leave a node as it is."""


@contextmanager
def pool_of(chain, way, *manners):
    with ExitStack() as stack:
        nodes = [stack.enter_context(watched(chain)) for _ in manners]
        for node, manner in zip(nodes, manners, strict=True):
            manner(node)
        urls = tuple(node.url for node in nodes)
        doors = ()
        if way == "gateway":
            door = stack.enter_context(gateway(TRACE_RPC_POOL_DEV_URL=",".join(urls)))
            doors = tuple(f"{door.url}/dev/{n}" for n in range(1, len(urls) + 1))
        yield RpcPool("dev", urls, gateway_urls=doors)


def extracted(engine, pool, lies):
    known = dataset("blocks")
    evidence = EvidenceCollector("blocks", DEVCHAIN_ID, None)
    options = {"timeout_seconds": 60}
    request = RangeRequest(known, RANGE, DEVCHAIN_ID, known.stored_columns(), "full", pool, evidence, options)
    extracting = Extractor(engine, record_liar=lambda each, why: lies.append(each.name), piece_blocks=PIECE_BLOCKS)
    return sum(piece.table.num_rows for piece in extracting.start(request))


@pytest.fixture
def unlisted(monkeypatch):
    """Take the devchain out of the table of chains for the extractor."""
    monkeypatch.setattr(extractor, "chain_of", lambda chain_id: replace(chain_of(chain_id), is_listed=False))


def test_a_chain_with_another_form_is_one_error_and_nobodys_lie(engine, chain, way, unlisted):
    lies = []
    with pool_of(chain, way, otherwise, otherwise) as pool, pytest.raises(UnknownFormat) as caught:
        extracted(engine, pool, lies)
    assert WAY_OUT in str(caught.value)
    assert "fail at every endpoint in the same way" in str(caught.value)
    assert lies == []


def test_the_same_answers_are_lies_on_a_chain_whose_forms_are_known(engine, chain, way):
    lies = []
    with pool_of(chain, way, otherwise) as pool, pytest.raises(VerificationFailed):
        extracted(engine, pool, lies)
    assert set(lies) == {"dev#1"}


def test_an_endpoint_that_fails_every_block_is_a_liar_if_another_passes(engine, chain, way, unlisted):
    lies = []
    with pool_of(chain, way, otherwise, honest) as pool:
        assert extracted(engine, pool, lies) == len(RANGE)
    assert set(lies) == {"dev#1"}


def test_a_block_that_no_endpoint_passes_blames_nobody_after_others_have_passed(engine, chain, unlisted):
    lies = []
    with (
        pool_of(chain, "near", lambda node: otherwise(node, {11}), lambda node: otherwise(node, {11})) as pool,
        pytest.raises(VerificationFailed),
    ):
        extracted(engine, pool, lies)
    assert lies == []
