"""Which endpoints are recorded as liars, from tables of what they answered."""

from __future__ import annotations

import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import Chain
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import (
    EndpointLacks,
    ForkConflict,
    NoAnswer,
    NoQuorum,
    Unavailable,
    UnknownForm,
    UnknownFormat,
    VerificationFailed,
)
from trace_dagster.extraction.blame import WAY_OUT, Blame
from trace_dagster.rpc.pools import RpcPool

LISTED = Chain(10, "Listed")
UNLISTED = Chain(99, "chain 99", is_listed=False)
PIECE = BlockRange(100, 108)
ONE, TWO = RpcPool("p", ("http://a.invalid/", "http://b.invalid/")).endpoints
BOTH = (ONE, TWO)


def wrong(block=103, message="the header does not give its hash"):
    return VerificationFailed(message, block=block)


def unknown(kind=0x7E):
    return UnknownForm("a transaction of type 0x7e", part="transactions", kind=kind, block=103)


NO_LIES = [
    Unavailable("busy"),
    NoAnswer("silent"),
    EndpointLacks("no traces"),
    UnknownFormat("no column"),
    NoQuorum("they differ"),
    ForkConflict("two forks", block=1, committed=b"a", found=b"b", versions=()),
]


@pytest.fixture
def lies():
    return []


@pytest.fixture
def blame(lies):
    return Blame(lambda endpoint, reason: lies.append((endpoint.name, reason)))


def test_a_contradiction_on_a_listed_chain_is_a_lie_at_once_and_only_once(blame, lies):
    piece = blame.of(LISTED, "blocks", PIECE)
    named = piece.failed(ONE, wrong())
    assert named.facts["endpoint"] == "p#1"
    assert lies == [("p#1", str(named))]
    piece.passed()
    assert len(lies) == 1
    assert piece.verdict(named, [ONE]) is named


@pytest.mark.parametrize("chain", [LISTED, UNLISTED], ids=["listed", "unlisted"])
@pytest.mark.parametrize("error", NO_LIES, ids=lambda error: type(error).__name__)
def test_other_failures_are_never_lies(blame, lies, chain, error):
    piece = blame.of(chain, "blocks", PIECE)
    assert piece.failed(ONE, error) is error
    assert piece.verdict(error, [ONE]) is error
    piece.passed()
    assert lies == []


@pytest.mark.parametrize("chain", [LISTED, UNLISTED], ids=["listed", "unlisted"])
def test_an_unknown_form_is_a_lie_only_if_another_answer_passes_in_full(blame, lies, chain):
    piece = blame.of(chain, "blocks", PIECE)
    error = piece.failed(ONE, unknown())
    assert piece.verdict(error, [ONE]) is error
    assert lies == []
    piece.passed(is_lowered=True)
    assert lies == []
    piece = blame.of(chain, "blocks", PIECE)
    piece.failed(ONE, unknown())
    piece.failed(TWO, unknown())
    piece.passed()
    assert [name for name, _ in lies] == ["p#1", "p#2"]


@pytest.mark.parametrize(
    ("chain_id", "part", "kind", "block", "liars"),
    [
        (1, "receipts", None, 4_369_999, []),  # a node that makes up a status, as Reth does
        (1, "receipts", None, 4_370_000, ["p#1"]),
        (137, "transactions", 0x7F, 80_084_800, []),  # one without the raw bytes of state-sync transactions
        (137, "transactions", 0x7F, 80_084_799, ["p#1"]),
        (42220, "receipts", 0x7B, 31_056_500, []),  # one that leaves out baseFee
        (42220, "receipts", 0x7C, 31_056_500, ["p#1"]),
    ],
)
def test_what_honest_nodes_leave_out_is_no_lie_beside_one_that_shows_it(
    blame, lies, chain_id, part, kind, block, liars
):
    piece = blame.of(chain_of(chain_id), "transactions", BlockRange(block, block + 1))
    piece.failed(ONE, UnknownForm("left out", part=part, kind=kind, block=block))
    piece.passed()
    assert [name for name, _ in lies] == liars


def test_on_an_unlisted_chain_an_endpoint_lies_if_another_passes_even_if_it_fails_every_block(blame, lies):
    for start in range(100, 110):
        piece = blame.of(UNLISTED, "blocks", BlockRange(start, start + 1))
        piece.failed(ONE, wrong(start))
        assert len(lies) == start - 100
        piece.passed()
    assert {name for name, _ in lies} == {"p#1"}
    assert len(lies) == 10


def test_the_same_failure_at_every_endpoint_of_an_unlisted_chain_is_a_form(blame, lies):
    piece = blame.of(UNLISTED, "blocks", BlockRange(103, 104))
    for endpoint in (*BOTH, *BOTH):
        error = piece.failed(endpoint, wrong())
    found = piece.verdict(error, BOTH)
    assert isinstance(found, UnknownFormat)
    assert "blocks of chain 99 fail at every endpoint in the same way" in str(found)
    assert "the header does not give its hash" in str(found)
    assert WAY_OUT in str(found)
    assert found.facts == {"block": 103}
    assert lies == []


@pytest.mark.parametrize(
    "failures",
    [
        [(ONE, wrong())],
        [(ONE, wrong()), (TWO, Unavailable("busy"))],
        [(ONE, wrong()), (TWO, wrong(message="the receipts do not give their root"))],
        [(ONE, wrong()), (TWO, unknown())],
        [(ONE, Unavailable("busy")), (ONE, wrong()), (TWO, wrong())],
    ],
    ids=["one endpoint only", "another failed", "in another way", "one unknown form", "not every time"],
)
def test_anything_else_is_retried_and_recorded_for_nobody(blame, lies, failures):
    piece = blame.of(UNLISTED, "blocks", BlockRange(103, 104))
    for endpoint, error in failures:
        piece.failed(endpoint, error)
    last = wrong()
    assert piece.verdict(last, BOTH) is last
    assert lies == []


def test_once_a_block_has_passed_the_form_is_known_to_fit_that_dataset(blame):
    blame.of(UNLISTED, "blocks", PIECE).passed()

    def verdict(chain, dataset):
        piece = blame.of(chain, dataset, BlockRange(103, 104))
        error = piece.failed(ONE, wrong())
        return piece.verdict(error, [ONE])

    assert isinstance(verdict(UNLISTED, "blocks"), VerificationFailed)
    assert isinstance(verdict(UNLISTED, "logs"), UnknownFormat)
    assert isinstance(verdict(Chain(98, "chain 98", is_listed=False), "blocks"), UnknownFormat)
    blame.of(UNLISTED, "logs", PIECE).passed(is_lowered=True)
    assert isinstance(verdict(UNLISTED, "logs"), UnknownFormat), "a lowered piece proves no form"


def test_a_charge_goes_to_the_half_with_its_block(blame, lies):
    whole = blame.of(UNLISTED, "blocks", PIECE)
    whole.failed(ONE, wrong(103))
    whole.failed(TWO, wrong(106))
    whole.failed(TWO, VerificationFailed("without a block"))
    first, second = whole.half(BlockRange(100, 104)), whole.half(BlockRange(104, 108))
    first.passed()
    assert [name for name, _ in lies] == ["p#1"]
    second.passed()
    assert [name for name, _ in lies] == ["p#1", "p#2"]
    first.passed()
    assert len(lies) == 2
