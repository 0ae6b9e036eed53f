"""A node that answers incorrectly: every committed value that is listed as proven is correct.

TRACE_FAULTS_FULL=1 (`make faults`) runs the whole matrix of faults, datasets, engines and rates, and prints a table.
"""

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.test_engine import CLI
from tests.support.lies import DATASETS, STALL_SECONDS, Cell, Lab, honest_node, summary
from trace_dagster.chaos_rpc.faults import FAULTS
from trace_dagster.engine.binary import CryoBinary
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.extraction import request
from trace_dagster.verify.check import Proof

FULL = bool(os.environ.get("TRACE_FAULTS_FULL"))
AT_ONCE = 10
TIMEOUT_SECONDS = 600 if FULL else 120
pytestmark = [pytest.mark.faults, pytest.mark.timeout(TIMEOUT_SECONDS)]

ANSWERS = [fault.name for fault in FAULTS.values() if fault.kind == "answer"]
OTHERS = [fault.name for fault in FAULTS.values() if fault.kind != "answer"]
OF_ROWS = ("empty_list", "truncate_head", "truncate_middle", "truncate_tail", "duplicate_rows", "reorder_rows")
OF_BLOCKS = ("neighbour_rows", "neighbour_rows_relabelled", "stale_fork", "flip_byte", "flip_digit")
ON_RECORD = {
    **{name: set(DATASETS) - {"blocks"} for name in OF_ROWS},
    **{name: set(DATASETS) for name in OF_BLOCKS},
}
"""Faults after which the endpoint must be recorded. Others look like errors, or do not change any row."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Share engines between cells, except for stalls, because a stalled worker is killed with all its calls."""
    folder = tmp_path_factory.mktemp("cryo")
    program = folder / "cryo"
    program.write_text(CLI.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    engines = {
        ("embedded", False): EmbeddedCryo(),
        ("embedded", True): EmbeddedCryo(workers=1, stall_seconds=STALL_SECONDS["embedded"]),
        ("patient", True): EmbeddedCryo(workers=1, stall_seconds=STALL_SECONDS["patient"]),
        ("binary", False): CryoBinary(program, folder / "staging"),
        ("binary", True): CryoBinary(program, folder / "stalling", stall_seconds=STALL_SECONDS["binary"]),
    }
    with honest_node() as node:
        yield Lab(node, lambda cell: engines[cell.engine, cell.fault == "stall"], engines["embedded", False])
    for engine in engines.values():
        engine.close()


@pytest.fixture(scope="module")
def outcomes():
    """Collect the matrix's outcomes; their table is printed at the end."""
    found = []
    yield found
    if FULL:
        print(f"\n{summary(found)}")


def cells(fault):
    """Return the matrix of one fault; without TRACE_FAULTS_FULL few blocks, one engine, and the most effective
    rates.
    """
    for name in DATASETS:
        if not FULL:
            yield Cell(fault, name, 1.0, blocks=1)
            yield Cell(fault, name, 0.1, blocks=5, wide=True)
            continue
        for rate in (0.01, 0.1, 1.0):
            yield Cell(fault, name, rate, blocks=40)
        yield Cell(fault, name, 0.1, blocks=40, wide=True)
        for rate, blocks in ((0.01, 40), (0.1, 8), (1.0, 2)):
            yield Cell(fault, name, rate, "binary", blocks)


def at_once(run, work):
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(run, work))


@pytest.mark.parametrize("fault", FAULTS)
def test_no_lie_is_committed(lab, outcomes, fault):
    found = at_once(lab.run, cells(fault))
    outcomes += found
    assert [(outcome.cell, outcome.false) for outcome in found if outcome.false] == []
    told = [outcome for outcome in found if outcome.injected]
    assert told
    if fault in ON_RECORD:
        assert any(outcome.refused is None for outcome in told), "rows come out in spite of it"


@pytest.mark.parametrize(
    ("fault", "name", "method"),
    [
        ("truncate_tail", "logs", "eth_getLogs"),
        ("flip_byte", "erc20_transfers", "eth_getLogs"),
        ("neighbour_rows", "geth_calls", "debug_traceBlockByNumber"),
    ],
)
def test_these_tests_would_notice(lab, monkeypatch, fault, name, method):
    """Check that without verification the same incorrect answers are committed, and counted as false."""
    monkeypatch.setattr(
        request,
        "check",
        lambda dataset, table, piece, *_: Proof("full", (), (), piece.start, len(piece), None, None),
    )
    outcome = lab.run(Cell(fault, name, blocks=4, methods=(method,)))
    assert (outcome.refused, bool(outcome.false)) == (None, True)


@pytest.mark.parametrize("fault", ANSWERS)
def test_beside_an_honest_node_a_liar_costs_nothing_and_is_on_record(lab, fault):
    found = at_once(lambda name: lab.run(Cell(fault, name, blocks=3), "LH"), DATASETS)
    assert [
        (outcome.cell, outcome.refused, outcome.false) for outcome in found if outcome.refused or outcome.false
    ] == []
    assert {name for outcome in found for name in outcome.lies} <= {"pool#1"}
    assert {outcome.cell.dataset for outcome in found if outcome.lies} >= ON_RECORD.get(fault, set())


def test_beside_an_honest_node_one_that_fails_costs_nothing(lab):
    told = [Cell(fault, "transactions", blocks=4) for fault in OTHERS if fault != "stall"]
    told.append(Cell("stall", "transactions", engine="patient", blocks=4))  # another worker needs time to start
    found = at_once(lambda cell: lab.run(cell, "LH"), told)
    assert [
        (outcome.cell, outcome.refused, outcome.false) for outcome in found if outcome.refused or outcome.false
    ] == []
    assert not any(outcome.lies for outcome in found)


@pytest.mark.parametrize("fault", ["truncate_tail", "flip_digit", "http_500"])
def test_a_binary_moves_on_to_the_honest_node_too(lab, fault):
    outcome = lab.run(Cell(fault, "transactions", engine="binary", blocks=4), "LH")
    assert (outcome.refused, outcome.false, outcome.calls) == (None, None, 2)


@pytest.mark.parametrize("places", ["HHL", "HLH", "LHH"])
def test_a_quorum_of_two_outvotes_one_liar(lab, places):
    faults = OF_ROWS + OF_BLOCKS if FULL else ("truncate_tail", "reorder_rows", "stale_fork", "flip_digit")
    work = [Cell(fault, name, blocks=3) for fault in faults for name in ("logs", "geth_calls")]
    for outcome in at_once(lambda cell: lab.run(cell, places, 2), work):
        assert (outcome.refused, outcome.false, outcome.unproven) == (None, None, False), outcome


@pytest.mark.parametrize("fault", ["http_500", "reset"])
def test_a_quorum_that_is_not_there_is_nobodys_lie(lab, fault):
    outcome = lab.run(Cell(fault, "logs", blocks=2), "HL", 2)
    assert (outcome.refused in {"Unavailable", "NoAnswer"}, outcome.lies.total()) == (True, 0)


UNCOVERED = ("debug_traceBlockByNumber",)
"""The method with incorrect answers: call frames, most of which no commitment covers."""


@pytest.mark.parametrize("fault", ["flip_digit", "flip_byte"])
@pytest.mark.parametrize("places", ["LH", "HL"])
def test_what_no_proof_covers_is_not_committed_without_a_quorum(lab, fault, places):
    outcome = lab.run(Cell(fault, "geth_calls", blocks=4, methods=UNCOVERED), places, 2)
    assert outcome.injected
    assert (outcome.false, outcome.unproven) == (None, False)
    if fault == "flip_digit":  # the changed byte may be in no row: then both give the same rows
        assert outcome.refused == "NoQuorum"


@pytest.mark.parametrize("fault", ["flip_digit", "flip_byte"])
@pytest.mark.parametrize("places", ["LHH", "HLH"])
def test_what_no_proof_covers_is_true_with_a_quorum(lab, fault, places):
    outcome = lab.run(Cell(fault, "geth_calls", blocks=4, methods=UNCOVERED), places, 2)
    assert (outcome.refused, outcome.false, outcome.unproven) == (None, None, False)


def test_one_endpoint_alone_may_lie_where_the_proof_says_so(lab):
    """Show that one endpoint alone can return incorrect values where the proof lists them as open: the use of
    quorums.
    """
    outcome = lab.run(Cell("flip_digit", "geth_calls", blocks=4, methods=UNCOVERED))
    assert (outcome.refused, outcome.false, outcome.unproven) == (None, None, True)
