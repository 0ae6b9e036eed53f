"""Where Cryo is not asked for a while, because its answers were of no use there."""

from trace_dagster.extraction.engine_memory import AVOIDED_SECONDS, FAILURES, EngineMemory
from trace_dagster.rpc.pools import Endpoint

NODE, OTHER = Endpoint("pool", 1, "http://one.invalid"), Endpoint("pool", 2, "http://two.invalid")


def test_failures_in_a_row_count_by_chain_dataset_and_endpoint():
    memory = EngineMemory(lambda: 0.0)
    assert [memory.failed(1, "blocks", NODE) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert memory.is_avoided(1, "blocks", NODE)
    others = [(1, "logs", NODE), (2, "blocks", NODE), (1, "blocks", OTHER)]
    assert [memory.is_avoided(*place) for place in others] == [False, False, False]


def test_rows_of_cryo_forget_the_failures_before():
    memory = EngineMemory(lambda: 0.0)
    for _ in range(5 * FAILURES):
        assert not memory.failed(1, "blocks", NODE)
        memory.succeeded(1, "blocks", NODE)


def test_after_an_hour_cryo_is_asked_again():
    now = 100.0
    memory = EngineMemory(lambda: now)
    memory.avoid(1, "logs", NODE)
    now += AVOIDED_SECONDS - 1
    assert memory.is_avoided(1, "logs", NODE)
    now += 2
    assert not memory.is_avoided(1, "logs", NODE)
