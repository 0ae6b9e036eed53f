"""The priority semaphore admits a limited number of threads, lowest block first."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_dagster.extraction.priority_semaphore import PrioritySemaphore


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_lowest_block_is_next_and_the_first_to_come_among_equals(blocks):
    semaphore, order = PrioritySemaphore(1), []

    def one(number):
        with semaphore.holding(blocks[number]):
            order.append(number)

    with ThreadPoolExecutor(len(blocks)) as threads, semaphore.holding(0):
        for number in range(len(blocks)):
            threads.submit(one, number)
            while semaphore.waiting <= number:
                time.sleep(0.0005)
        assert order == []
    assert order == sorted(range(len(blocks)), key=lambda number: (blocks[number], number))


def test_as_many_as_there_are_places_are_inside_and_no_more():
    semaphore, full, lock = PrioritySemaphore(3), threading.Barrier(3), threading.Lock()
    inside, most = 0, 0

    def one(number):
        nonlocal inside, most
        with semaphore.holding(number):
            with lock:
                inside += 1
                most = max(most, inside)
            full.wait(10)  # the barrier breaks unless three threads are inside at the same time
            with lock:
                inside -= 1

    with ThreadPoolExecutor(12) as threads:
        for done in [threads.submit(one, number) for number in range(12)]:
            done.result()
    assert (most, inside) == (3, 0)


def test_a_place_is_given_back_by_who_fails():
    semaphore = PrioritySemaphore(1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), semaphore.holding(1):
            raise ZeroDivisionError
