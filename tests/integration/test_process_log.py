"""The process log of one range's life: one line per change of state, with the facts that name the range."""

from __future__ import annotations

import pytest

from tests.support.cycle import Cycle
from tests.support.registry import apply, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import Unavailable
from trace_dagster.messages.logs import facts_of

pytestmark = pytest.mark.integration
FIRST = BlockRange(0, 100)
BLOCKS = "blocks: {cryo_dataset_name: blocks}"


@pytest.fixture
def lines(caplog):
    """Return (component, event, facts) of each log line of these components since the test began."""
    caplog.set_level("INFO", "trace_dagster")

    def read(*components):
        found = [
            (each.name.removeprefix("trace_dagster."), each.getMessage(), facts_of(each)) for each in caplog.records
        ]
        return [line for line in found if line[0] in components]

    return read


def test_a_range_from_plan_to_commit(database, store, lines):
    apply(database, job_text(streams=BLOCKS, to_block=100))
    cycle = Cycle(database, store)
    try:
        cycle.turn()
    finally:
        cycle.close()
    found = lines("planning", "ingest")
    assert [(component, event) for component, event, _ in found] == [
        ("planning", "planned"),
        ("planning", "batch_cut"),
        ("ingest", "claimed"),
        ("ingest", "committed"),
    ]
    planned, cut, claimed, committed = (facts for _, _, facts in found)
    assert (planned["job"], planned["dataset_key"], planned["ranges"]) == ("job", "blocks", 1)
    assert (cut["ranges"], cut["dataset_keys"], cut["first"]) == (1, "blocks", FIRST.key)
    assert (claimed["block_range"], claimed["attempt"], claimed["run_id"]) == (FIRST, 1, "run")
    assert (committed["block_range"], committed["attempt"], committed["rows"]) == (FIRST, 1, 100)
    assert committed["bytes"] > 0
    assert committed["seconds"] >= 0


def test_a_failed_attempt_names_its_reason_and_what_comes_next(database, store, lines):
    stream = apply(database, job_text(streams=BLOCKS, to_block=100))["blocks"]
    with ingesting(database, store, max_attempts=2) as ingest:

        def no_pool(spec):
            raise Unavailable("the pool does not answer")

        ingest._pool = no_pool
        for _ in range(2):
            with pytest.raises(Unavailable):
                ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0))
    failed = [facts for _, event, facts in lines("ingest") if event == "failed"]
    assert [(each["attempt"], str(each["reason"]), each["will_retry"]) for each in failed] == [
        (1, "the pool does not answer", True),
        (2, "the pool does not answer", False),
    ]


def test_a_stream_that_waits_is_logged_when_it_starts_to(database, store, lines):
    apply(database, job_text(streams=BLOCKS, to_block=2000))
    cycle = Cycle(database, store, head=150)
    try:
        for _ in range(3):
            cycle.planner.plan()
            cycle.heads.observe(cycle.jobs.streams())
    finally:
        cycle.close()
    blocked = [facts for _, event, facts in lines("planning") if event == "stream_blocked"]
    assert len(blocked) == 1
    assert "has not shown its head yet" in blocked[0]["reason"]
