"""The gateway's budget of bytes: what fits, who waits, and when bytes come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.gateway.byte_budget import ByteBudget


def test_bytes_come_back_when_nothing_refers_to_them():
    budget = ByteBudget(100, 100)
    first = budget.reserve("a", 60)
    assert first
    assert budget.reserve("b", 50) is None
    also_first = first
    del first
    assert budget.used == 60
    del also_first
    assert budget.used == 0
    assert budget.reserve("b", 50)


def test_one_holder_leaves_room_for_others():
    budget = ByteBudget(100, 60)
    first = budget.reserve("a", 60)
    assert budget.reserve("a", 1) is None
    second = budget.reserve("b", 40)
    assert first
    assert second
    assert budget.used == 100


def test_a_reservation_grows_as_long_as_it_fits():
    budget = ByteBudget(100, 60)
    first = budget.reserve("a", 0)
    assert first
    assert first.grow_to(60)
    assert not first.grow_to(61)
    assert first.bytes == budget.used == 60


def test_who_waits_is_served_in_order_as_soon_as_it_fits():
    budget = ByteBudget(100, 100)
    held = budget.reserve("a", 90)
    assert held
    served = []
    waiting = [budget.wait(name, size, served.append) for name, size in (("b", 40), ("c", 70), ("d", 50))]
    waiting[2].cancel()
    del held
    assert [each.bytes for each in served] == [40]
    served.clear()
    assert [each.bytes for each in served] == [70]
    assert budget.used == 70


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.booleans()), max_size=60))
def test_no_order_of_events_exceeds_a_limit_or_loses_bytes(steps):
    budget = ByteBudget(100, 60)
    held = []
    for holder, size, is_release in steps:
        if is_release and held:
            held.pop(0)
        elif (reservation := budget.reserve(holder, size)) is not None:
            held.append(reservation)
            del reservation
        else:
            budget.wait(holder, size, held.append)
        assert budget.used == sum(each.bytes for each in held) <= 100
    while held:
        held.pop()
    assert budget.used == 0
