"""When heads are polled, and when a subscription is doubted: few calls, and late by little."""

import random

import pytest

from tests.unit.test_gateway_budget import Clock
from trace_dagster.follow.heads import LEAST_POLL_SECONDS, PollTimes
from trace_dagster.gateway.subscriptions import CHECK_SECONDS, SILENT_BLOCKS, Silence
from trace_dagster.rpc.heads import Head, UnreadHeads, head_json, head_of


def polled(block_seconds, known, *, jitter=0.1, blocks=200, least=LEAST_POLL_SECONDS):
    """Poll a chain that grows with jitter; return the calls per block, and the seconds until each block was seen."""
    clock, rng = Clock(), random.Random(1)
    times = PollTimes(lambda: known, least, clock)
    ends, delays, calls, number = clock.now + block_seconds, [], 0, 0
    born = {0: clock.now}
    seen = 0
    while number < blocks:
        clock.now += max(times.seconds_left, 0.001)
        while ends <= clock.now:
            number += 1
            born[number] = ends
            ends += block_seconds * rng.uniform(1 - jitter, 1 + jitter)
        calls += 1
        times.polled(number)
        delays += [clock.now - born[each] for each in range(seen + 1, number + 1)]
        seen = number
    return calls / blocks, sorted(delays)


@pytest.mark.parametrize(
    ("block_seconds", "most_calls", "median", "most"),
    [(12.0, 9, 0.5, 3.0), (2.0, 14, 0.1, 0.5), (0.3, 4, 0.1, 0.11), (0.05, 1, 0.1, 0.11)],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_polls_are_few_and_a_block_is_seen_soon(block_seconds, most_calls, median, most, is_known):
    calls, delays = polled(block_seconds, block_seconds if is_known else None)
    assert calls <= most_calls
    assert delays[len(delays) // 2] <= median
    assert delays[int(len(delays) * 0.95)] <= most


def test_a_rate_limit_spreads_the_polls():
    calls, _ = polled(0.3, 0.3, least=0.8)
    assert calls <= 0.3 / 0.8 * 1.05


def test_a_head_that_stays_is_stuck_until_another_endpoint_is_tried():
    clock = Clock()
    times = PollTimes(lambda: 4.0, 0.1, clock)
    times.polled(7)
    clock.now += 19
    assert not times.is_stuck
    clock.now += 2
    assert times.is_stuck
    times.unstuck()
    assert not times.is_stuck
    clock.now += 21
    times.polled(8)
    assert not times.is_stuck


def test_a_subscription_is_doubted_after_some_block_times_and_less_often_while_the_chain_stands_still():
    clock = Clock()
    silence = Silence(clock)
    for number in range(100):
        clock.now += 0.3
        silence.pushed(number)
        if not silence.seconds_left:
            silence.called(is_newer=False)
            silence.pushed(number)
    waits = []
    for _ in range(8):
        clock.now += silence.seconds_left
        silence.called(is_newer=False)
        waits.append(silence.seconds_left)
    assert waits[0] == pytest.approx(2 * SILENT_BLOCKS * 0.3, rel=0.2)
    assert waits == sorted(waits)
    assert waits[-1] == 30.0
    silence.called(is_newer=True)
    assert silence.seconds_left < 2


def test_a_subscription_that_pushes_is_checked_from_time_to_time():
    clock = Clock()
    silence = Silence(clock)
    checks = []
    for number in range(400):
        clock.now += 0.1
        silence.pushed(number)
        if not silence.seconds_left:
            silence.called(is_newer=True)
            checks.append(clock.now)
    assert len(checks) == pytest.approx(40 / CHECK_SECONDS, abs=1)


GOOD = {"number": "0x10", "hash": "0x" + "Ab" * 32, "parentHash": "0x" + "01" * 32}


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], "0x10", {}),
        *({**GOOD, name: value} for name in GOOD for value in (None, 16, "", "0x", "0xzz", [GOOD[name]])),
        *({**GOOD, "hash": GOOD["hash"] + "00"}, {**GOOD, "number": "0x" + "f" * 16}, {**GOOD, "number": "16"}),
    ],
)
def test_what_is_no_head(value):
    assert head_of(value) is None


def test_a_head_is_read_as_it_is_written():
    head = Head(16, b"\xab" * 32, b"\x01" * 32, 3)
    assert head_of(GOOD, 3) == head
    assert head_of(head_json(head), 3) == head


def head(number, position=1, branch=0):
    return Head(number, bytes([number, branch]) * 16, bytes(32), position)


@pytest.mark.parametrize(
    ("shown", "left"),
    [
        ([], []),
        ([head(1), head(2), head(3)], [head(3)]),
        ([head(1), head(3), head(2)], [head(3), head(2)]),
        ([head(3), head(2), head(3, branch=1)], [head(3, branch=1)]),
        ([head(3), head(1, 2), head(4), head(2, 2)], [head(4), head(2, 2)]),
    ],
)
def test_a_reader_that_is_late_gets_the_highest_and_the_last_of_each_endpoint(shown, left):
    unread = UnreadHeads()
    for each in shown:
        unread.add(each)
    assert bool(unread) is bool(left)
    assert unread.take() == left
    assert unread.take() == []
