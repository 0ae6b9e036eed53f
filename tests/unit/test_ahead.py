"""A generator that a thread runs ahead: order, bound, errors, and an end when nobody reads on."""

from __future__ import annotations

import threading

import pytest

from trace_dagster.compaction.ahead import ahead


def test_items_come_in_order():
    assert list(ahead((number for number in range(100)), 3)) == list(range(100))


def test_the_thread_is_never_further_ahead_than_its_bound():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    found = ahead(items(), 2)
    for number in range(20):
        assert next(found) == number
        assert len(made) <= number + 4  # read, in the queue, and one that waits for room


def test_an_error_is_raised_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    found = ahead(items(), 2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_the_thread_ends_with_its_reader():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    found = ahead(items(), 1)
    next(found)
    found.close()
    assert threading.active_count() == before
    assert closed.is_set()
