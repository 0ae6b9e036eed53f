"""Places of queries: how many run, who is next, and who is refused."""

import asyncio
import time
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from trace_dagster.errors import Cancelled, TooMany
from trace_dagster.registry.tokens import Caller
from trace_dagster.service.places import Places, Waiter


def caller(**limits):
    return Caller(uuid4(), "token", "test", **limits)


class Crowd:
    """Queries of some tokens; each one notes when it gets its place and holds it until it is let go."""

    def __init__(self, places):
        self.places = places
        self.order = []
        self.ends = {}
        self.tasks = {}
        self.waiters = {}

    async def add(self, name, who):
        self.ends[name] = asyncio.Event()
        self.waiters[name] = Waiter(who.token_id)
        self.tasks[name] = asyncio.create_task(self._run(name, who))
        await asyncio.sleep(0)

    async def _run(self, name, who):
        async with self.places.place(who, self.waiters[name]):
            self.order.append(name)
            await self.ends[name].wait()

    async def end(self, *names):
        for name in names:
            self.ends[name].set()
            await settled()

    async def error(self, name):
        with pytest.raises((TooMany, Cancelled, asyncio.CancelledError)) as caught:
            await self.tasks[name]
        return caught.value


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def crowd(*limits, **named):
    found = Crowd(Places(*limits, **named))
    yield found
    for event in found.ends.values():
        event.set()
    await asyncio.gather(*found.tasks.values(), return_exceptions=True)
    assert (found.places.running, found.places.waiting) == (0, 0)
    assert not found.places._held


def run(test):
    """Make a test of a coroutine."""

    def inner(*arguments):
        asyncio.run(asyncio.wait_for(test(*arguments), 20))

    inner.__name__ = test.__name__
    return inner


@run
async def test_so_many_run_and_so_many_wait_and_the_next_is_refused():
    async with crowd(2, 1) as found:
        for name in "abcd":
            await found.add(name, caller())
        await settled()
        assert found.order == ["a", "b"]
        assert (found.places.running, found.places.waiting) == (2, 1)
        assert 1 <= (await found.error("d")).facts["retry_after_seconds"] <= 30
        await found.end("b")
        assert found.order == ["a", "b", "c"]


@run
async def test_tokens_have_their_turns_one_after_another():
    greedy, modest = caller(), caller()
    async with crowd(1, 40) as found:
        await found.add("first", greedy)
        for number in range(30):
            await found.add(f"g{number}", greedy)
        for number in range(3):
            await found.add(f"m{number}", modest)
        assert [found.places.position(found.waiters[name]) for name in ("g0", "m0", "g1", "m1", "g29")] == [
            1,
            2,
            3,
            4,
            33,
        ]
        assert found.places.position(found.waiters["first"]) is None
        await found.end("first", "g0", "m0", "g1", "m1", "g2", "m2", "g3")
        assert found.order == ["first", "g0", "m0", "g1", "m1", "g2", "m2", "g3", "g4"]


@run
async def test_no_token_fills_the_queue():
    greedy = caller()
    async with crowd(1, 4) as found:
        for number in range(5):
            await found.add(f"g{number}", greedy)
        await found.add("g5", greedy)
        assert isinstance(await found.error("g5"), TooMany)
        await found.add("modest", caller())
        assert isinstance(await found.error("g4"), TooMany)
        await found.end("g0", "g1")
        assert found.order == ["g0", "g1", "modest"]


@run
async def test_who_stops_waiting_leaves_its_place_in_the_queue():
    async with crowd(1, 2) as found:
        for name in "abc":
            await found.add(name, caller())
        found.waiters["b"].end(Cancelled("left"))
        assert isinstance(await found.error("b"), Cancelled)
        found.tasks["c"].cancel()
        await settled()
        assert found.places.waiting == 0
        await found.add("d", caller())
        await found.end("a")
        assert found.order == ["a", "d"]


@run
async def test_a_place_that_comes_when_the_wait_is_cancelled_goes_to_the_next():
    async with crowd(1, 2) as found:
        for name in "abc":
            await found.add(name, caller())
        found.ends["a"].set()
        await asyncio.sleep(0)  # a ends its block now: b has the place, but did not run yet
        found.tasks["b"].cancel()
        await settled()
        assert found.order in (["a", "c"], ["a", "b", "c"])
        assert found.places.running == 1


@run
async def test_a_wait_ends_after_its_time():
    async with crowd(1, 2, wait_seconds=0.05) as found:
        for name in "ab":
            await found.add(name, caller())
        assert "could not begin: try again" in str(await found.error("b"))


@run
async def test_a_token_has_its_own_limits():
    few, often = caller(max_queries=2), caller(queries_per_minute=2)
    async with crowd(10, 10) as found:
        for name in "abc":
            await found.add(name, few)
        assert "2 queries of this token run or wait" in str(await found.error("c"))
        await found.end("a")
        await found.add("d", few)
        for name in "xyz":
            await found.add(name, often)
            await found.end(name)
        error = await found.error("z")
        assert "2 queries of this token began in the last minute" in str(error)
        assert 1 <= error.facts["retry_after_seconds"] <= 60
        assert sorted(found.order) == ["a", "b", "d", "x", "y"]
        assert list(found.places._begun) == [often.token_id]


@run
async def test_a_place_that_comes_at_the_end_of_the_wait_is_not_lost():
    async with crowd(1, 1, wait_seconds=0.02) as found:
        await found.add("a", caller())
        await found.add("b", caller())
        found.ends["a"].set()
        time.sleep(0.05)  # a gives its place to b in the same turn of the loop in which b's time is over
        await settled()
        assert found.order == ["a", "b"]
