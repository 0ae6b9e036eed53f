"""The rate limiter: never above the limit, at most slightly below it, slower after refusals, back to the limit
afterwards.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_dagster.gateway.batches import TARGET_BYTES, AnswerSizes, BatchSize
from trace_dagster.gateway.breaker import FAILURES, OPEN_SECONDS, Breaker
from trace_dagster.gateway.counters import Medians
from trace_dagster.gateway.rate_limiter import PAUSE_SECONDS, RateLimiter


class Clock:
    """A clock that only the test advances."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def most_within(seconds, sent):
    """The largest number of calls in any rolling period of this length."""
    most = first = inside = 0
    for at, calls in sent:
        inside += calls
        while sent[first][0] <= at - seconds:
            inside -= sent[first][1]
            first += 1
        most = max(most, inside)
    return most


def saturate(pace, clock, seconds, sent=None, late=0.0):
    """Request more calls than the limiter grants, as an endpoint's queue does. Each wait ends ``late`` seconds late."""
    sent = [] if sent is None else sent
    ends = clock.now + seconds
    while clock.now < ends:
        wait = pace.seconds_until(pace.worth_waiting_for(50))
        if wait > 0:
            clock.now += max(wait, 0.001) + late
        elif granted := pace.grant(50):
            sent.append((clock.now, granted))
        else:
            clock.now += 0.002
    return sent


@pytest.mark.parametrize("limit", [1, 5, 25, 100, 1000])
def test_a_limit_is_used_and_never_exceeded(limit):
    clock = Clock()
    sent = saturate(RateLimiter(limit, clock), clock, 60, late=0.001)
    assert most_within(1.0, sent) <= limit
    assert sum(calls for _, calls in sent) >= 0.95 * limit * 60


def test_calls_are_spread_over_the_second():
    clock = Clock()
    sent = saturate(RateLimiter(25, clock), clock, 10)
    assert max(calls for _, calls in sent) <= 5


@given(
    limit=st.integers(1, 60),
    steps=st.lists(st.tuples(st.floats(0, 0.7), st.integers(1, 80), st.booleans()), max_size=150),
)
@settings(max_examples=150, deadline=None)
def test_never_more_than_the_limit_whatever_is_asked_and_refused(limit, steps):
    clock = Clock()
    pace = RateLimiter(limit, clock)
    sent = []
    for pause, wanted, is_refused in steps:
        clock.now += pause
        granted = pace.grant(wanted)
        assert 0 <= granted <= wanted
        if granted:
            sent.append((clock.now, granted))
            if is_refused:
                pace.refused()
    if sent:
        assert most_within(1.0, sent) <= limit


@given(limit=st.integers(1, 60), idle=st.floats(0, 30), calls=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_what_is_waited_for_is_granted(limit, idle, calls):
    clock = Clock()
    pace = RateLimiter(limit, clock)
    saturate(pace, clock, 3)
    clock.now += idle
    wanted = pace.worth_waiting_for(calls)
    clock.now += pace.seconds_until(wanted) + 1e-6
    assert pace.grant(wanted) == wanted


def test_a_refusal_slows_down_and_the_limit_is_regained():
    clock = Clock()
    pace = RateLimiter(25, clock)
    saturate(pace, clock, 3)
    for _ in range(20):  # counts as one congestion, regardless of how many calls it hit
        pace.refused()
    assert pace.rate == pytest.approx(0.7 * 25, rel=0.05)
    assert pace.grant(1) == 0
    clock.now += PAUSE_SECONDS
    rates = []
    for _ in range(15):
        saturate(pace, clock, 1)
        rates.append(pace.rate)
    assert rates == sorted(rates)
    assert rates[-1] == 25
    assert sum(calls for _, calls in saturate(pace, clock, 20)) >= 0.95 * 25 * 20


def test_what_the_endpoint_asks_for_is_waited():
    clock = Clock()
    pace = RateLimiter(None, clock)
    pace.grant(10)
    pace.refused(retry_after=7)
    assert pace.seconds_until(1) >= 7
    clock.now += 6.9
    assert pace.grant(1) == 0
    clock.now += 0.2
    assert pace.grant(1) == 1


def test_without_a_limit_refusals_find_one():
    """Simulate a provider that allows 40 calls a second and does not announce its limit."""
    clock = Clock()
    pace = RateLimiter(None, clock)
    assert pace.grant(30) == 30
    taken, refusals, served = [], 0, 0
    ends = clock.now + 60
    while clock.now < ends:
        granted = pace.grant(20)
        recent = sum(calls for at, calls in taken if at > clock.now - 1)
        if granted and recent + granted > 40:
            refusals += granted
            pace.refused()
        elif granted:
            taken.append((clock.now, granted))
            served += granted
        clock.now += 0.01
    assert refusals < 0.1 * served
    assert served > 0.5 * 40 * 60


def test_a_share_of_the_limit_takes_effect_at_once():
    clock = Clock()
    pace = RateLimiter(30, clock)
    saturate(pace, clock, 2)
    pace.limit = 10
    clock.now += 1.1
    assert most_within(1.0, saturate(pace, clock, 10)) <= 10


def test_a_batch_that_is_refused_is_remembered_and_tried_again_later():
    clock = Clock()
    batches = BatchSize(50, clock)
    assert batches.size == 50
    batches.refused(25)
    batches.refused(25)  # two calls run at the same time
    assert batches.size == 25
    batches.refused(1)
    assert batches.size == 1
    clock.now += 59
    assert batches.size == 1
    clock.now += 1
    assert batches.size == 2
    assert batches.size == 2
    for _ in range(6):
        clock.now += 60
        assert batches.size <= 50
    assert batches.size == 50


def test_large_answers_make_small_batches():
    sizes = AnswerSizes()
    assert sizes.calls_within_target("eth_chainId") >= 1000
    assert 8 <= sizes.calls_within_target("debug_traceBlockByNumber") <= 64
    sizes.learn("debug_traceBlockByNumber", TARGET_BYTES)
    assert sizes.calls_within_target("debug_traceBlockByNumber") == 1
    for _ in range(40):
        sizes.learn("debug_traceBlockByNumber", 100_000)
    assert sizes.calls_within_target("debug_traceBlockByNumber") > 40


def test_a_breaker_opens_after_failures_in_a_row_and_probes_one_at_a_time():
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES - 1):
        breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.admits()
    for _ in range(FAILURES):
        breaker.failed()
    assert not breaker.admits()
    clock.now += OPEN_SECONDS
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.failed()
    assert not breaker.admits()
    clock.now += OPEN_SECONDS
    assert breaker.admits()
    breaker.succeeded()
    assert all(breaker.admits() for _ in range(3))


@given(st.lists(st.floats(0, 60, allow_nan=False), min_size=8, max_size=100))
@settings(max_examples=50, deadline=None)
def test_medians_are_of_the_last_requests(seconds):
    medians = Medians()
    for each in seconds:
        medians.add("eth_getLogs", each)
    last = sorted(seconds[-32:])
    assert medians.of("eth_getLogs") == last[len(last) // 2]
    assert medians.of("eth_call") is None
