"""Single flight: threads that need the same result at the same time share one call."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trace_dagster.evidence.single_flight import SingleFlight


def doubled(calls):
    def work(keys):
        calls.append(list(keys))
        for key in keys:
            yield 2 * key, 1

    return work


def test_each_key_is_worked_on_once_and_answers_come_in_order():
    once, calls = SingleFlight(100), []
    assert once.get([3, 1], doubled(calls), 1) == [6, 2]
    assert once.get([1, 2, 3], doubled(calls), 1) == [2, 4, 6]
    assert calls == [[3, 1], [2]]


def test_many_threads_make_one_call():
    once, calls, begun, go = SingleFlight(100), [], threading.Event(), threading.Event()

    def slow(keys):
        begun.set()
        go.wait(5)
        return doubled(calls)(keys)

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(once.get, [1, 2], slow, 5) for _ in range(8)]
        assert begun.wait(5)
        go.set()
        assert [each.result() for each in asked] == [[2, 4]] * 8
    assert calls == [[1, 2]]


def test_a_failure_is_told_to_all_who_wait_and_kept_for_nobody():
    once, calls = SingleFlight(100), []

    def half(keys):
        yield 2 * keys[0], 1
        raise ValueError("the node does not answer")

    with pytest.raises(ValueError, match="does not answer"):
        once.get([1, 2], half, 1)
    assert once.get([1, 2], doubled(calls), 1) == [2, 4]
    assert calls == [[2]], "what was done before the failure is kept"


def test_a_failure_reaches_those_who_waited_for_it():
    once, begun, go = SingleFlight(100), threading.Event(), threading.Event()

    def failing(keys):
        begun.set()
        go.wait(5)
        raise ValueError

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(once.get, [1], failing, 5)
        assert begun.wait(5)
        second = threads.submit(once.get, [1], failing, 5)
        while not once.keys():
            pass
        go.set()
        assert isinstance(first.exception(), ValueError)
        assert isinstance(second.exception(), ValueError)


def test_the_least_recently_asked_for_go_first():
    once, calls = SingleFlight(3), []
    for key in (1, 2, 3, 1, 4):
        once.get([key], doubled(calls), 1)
    once.get([1, 3, 4], doubled(calls), 1)
    assert calls == [[1], [2], [3], [4]]
    once.get([2], doubled(calls), 1)
    assert calls[-1] == [2]


def test_what_is_larger_than_the_room_is_kept_until_the_next_comes():
    once, calls = SingleFlight(0), []
    once.get([1], doubled(calls), 1)
    once.get([1], doubled(calls), 1)
    once.get([2], doubled(calls), 1)
    once.get([1], doubled(calls), 1)
    assert calls == [[1], [2], [1]]


def test_forgotten_work_is_done_anew_and_what_was_under_way_is_not_kept():
    once, calls, begun, go = SingleFlight(100), [], threading.Event(), threading.Event()

    def slow(keys):
        begun.set()
        go.wait(5)
        return doubled(calls)(keys)

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(once.get, [1], slow, 5)
        assert begun.wait(5)
        once.forget([1])
        go.set()
        assert asked.result() == [2]
    assert once.get([1], doubled(calls), 1) == [2]
    assert calls == [[1], [1]]


def test_waiting_ends():
    once, go = SingleFlight(100), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(once.get, [1], lambda keys: [(go.wait(5), 1)], 5)
        while not once.keys():
            pass
        with pytest.raises(TimeoutError):
            once.get([1], doubled([]), 0.01)
        go.set()


def test_heavy_values_are_kept_to_a_number_and_a_most():
    def heavy(keys):
        for key in keys:
            yield key, 10

    def kept(once):
        once.get(list(range(9)), heavy, 1)
        return [key for key, _ in once.found(range(9))]

    assert kept(SingleFlight(15)) == [8]
    assert kept(SingleFlight(15, least=4, most=100)) == [5, 6, 7, 8]
    assert kept(SingleFlight(15, least=4, most=25)) == [7, 8]
    assert kept(SingleFlight(1000, least=4, most=1000)) == list(range(9))
