"""One endpoint as everybody on this machine asks it: queue, budget, batches, retries, hedges.

A call waits in its lane until the budget lets it go, travels with others in one HTTP request, and comes back as the
node's answer or, when the tries are used up, as an error of the gateway's own. It is never given to another endpoint.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from itertools import count

from trace_dagster.gateway.batches import AnswerSizes, BatchSize, is_heavy
from trace_dagster.gateway.breaker import Breaker
from trace_dagster.gateway.connections import Connections, Fault
from trace_dagster.gateway.counters import Counts, Medians
from trace_dagster.gateway.jsonrpc import Answer, failed, request
from trace_dagster.gateway.outcome import Outcome, of_fault, of_reply
from trace_dagster.gateway.rate_limiter import Clock, Pace
from trace_dagster.rpc.pools import Endpoint, Limits

CONCURRENCY = 64
"""HTTP requests under way at once, where the pool says nothing."""

COLLECT_SECONDS = 0.002
"""How long a call waits for company while other requests are under way."""

RETRIES = 5
RETRY_SECONDS = 90.0
"""From when a call is sent first."""

NULL_RETRIES = 2
"""A block by number that one replica does not have yet is asked for again, before that is the answer."""

HEDGE_SHARE = 0.05
HEDGE_SECONDS = 0.5
HEDGE_MEDIANS = 4
_BACKOFF_SECONDS = 0.1
_MOST_BACKOFF_SECONDS = 5.0
_ALONE = 1
_ANY_COMPANY = 1 << 30


class Pending:
    """A call on its way; ``answer`` may be cancelled by whoever asked, when nobody waits for it any more."""

    __slots__ = (
        "answer",
        "askers",
        "first_sent",
        "is_numbered",
        "method",
        "most",
        "nulls",
        "params",
        "tries",
        "under_way",
    )

    def __init__(self, method: str, params: bytes, answer: asyncio.Future[Answer], *, is_numbered: bool) -> None:
        self.method = method
        self.params = params
        self.answer = answer
        self.is_numbered = is_numbered
        """About a block by number: null is suspect."""
        self.askers = 0
        self.most = _ANY_COMPANY
        """The largest batch it may travel in: smaller after each that failed."""
        self.tries = 0
        self.nulls = 0
        self.under_way = 0
        """HTTP requests that carry it now."""
        self.first_sent = 0.0


class _Sending:
    """One HTTP request under way, and the hedge of it."""

    __slots__ = ("calls", "is_hedge", "partner", "task")

    def __init__(self, calls: Sequence[Pending], partner: _Sending | None = None) -> None:
        self.calls = calls
        self.partner = partner
        self.is_hedge = partner is not None
        self.task: asyncio.Task[None] | None = None


class Upstream:
    """One endpoint. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, limits: Limits, clock: Clock) -> None:
        self.name = endpoint.name
        self.fingerprint = endpoint.fingerprint
        self.counts = Counts()
        self.asked_at = clock()
        self._limits = limits
        self._concurrency = limits.concurrency or CONCURRENCY
        self._clock = clock
        self._connections = Connections(endpoint.url)
        self.pace = Pace(limits.requests_per_second, clock)
        self._batch_size = BatchSize(limits.batch, clock)
        self._sizes = AnswerSizes()
        self._breaker = Breaker(clock)
        self._medians = Medians()
        self._lanes: dict[str, deque[Pending]] = {}
        self._sendings: set[_Sending] = set()
        self._ids = count(1)
        self._flush_handle: asyncio.Handle | None = None

    @property
    def under_way(self) -> int:
        """HTTP requests now."""
        return len(self._sendings)

    @property
    def queued(self) -> int:
        """Calls that wait for their turn."""
        return sum(map(len, self._lanes.values()))

    @property
    def is_down(self) -> bool:
        """Whether calls fail at once."""
        return self._breaker.is_open

    @property
    def batch_size(self) -> int:
        """Calls in one HTTP request at most, as far as the endpoint takes them."""
        return self._batch_size.size

    def share(self, gateways: int) -> None:
        """Take no more than the part of the limits that is left when so many gateways share them."""
        if self._limits.requests_per_second is not None:
            self.pace.limit = self._limits.requests_per_second / gateways
        if self._limits.concurrency is not None:
            self._concurrency = max(1, self._limits.concurrency // gateways)

    def ask(self, method: str, params: bytes, *, is_numbered: bool = False) -> Pending:
        """Queue a call. Its answer always comes: the node's, or an error that says why there is none."""
        call = Pending(method, params, asyncio.get_running_loop().create_future(), is_numbered=is_numbered)
        self.asked_at = self._clock()
        if self._breaker.admits():
            self._lane(method).append(call)
            self._flush_when_worthwhile()
        else:
            self._fail(call, "it failed too often in a row and is left alone for some seconds")
        return call

    async def close(self) -> None:
        """End what is under way; calls still waiting are cancelled."""
        tasks = [sending.task for sending in self._sendings if sending.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            for call in lane:
                call.answer.cancel()
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        self._connections.close()

    # -- when to send

    def _lane(self, method: str) -> deque[Pending]:
        """Heavy methods each have their own, so that their answers do not hold up others."""
        return self._lanes.setdefault(method if is_heavy(method) else "", deque())

    def _flush_when_worthwhile(self) -> None:
        if not self._sendings or self.queued >= self._batch_size.size:
            self._flush_soon()
        else:
            self._flush_in(COLLECT_SECONDS)

    def _flush_soon(self) -> None:
        """Once all that this turn of the loop brings is queued."""
        if isinstance(self._flush_handle, asyncio.TimerHandle):
            self._flush_handle.cancel()
            self._flush_handle = None
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _flush_in(self, seconds: float) -> None:
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        """Send what budget and concurrency have room for, a batch of each lane in turn."""
        self._flush_handle = None
        while len(self._sendings) < self._concurrency:
            lane = self._next_lane()
            if lane is None:
                return
            most = self._batch_of(lane)
            wait = self.pace.seconds_until(self.pace.worth_waiting_for(most))
            granted = 0 if wait > 0 else self.pace.grant(most)
            if not granted:
                self._flush_in(max(wait, COLLECT_SECONDS))
                return
            self._send([lane.popleft() for _ in range(granted)])

    def _next_lane(self) -> deque[Pending] | None:
        """The lane that waited longest since its last turn, without calls nobody waits for."""
        for name, lane in list(self._lanes.items()):
            while lane and lane[0].answer.done():
                lane.popleft()
            if lane:
                self._lanes[name] = self._lanes.pop(name)
                return lane
        return None

    def _batch_of(self, lane: deque[Pending]) -> int:
        """How many of the first calls of a lane may travel together."""
        most = min(self._batch_size.size, self._sizes.calls_within_target(lane[0].method), len(lane))
        taken = 0
        while taken < most:
            most = min(most, max(lane[taken].most, taken))
            taken += 1
        return most

    # -- sending, and what comes of it

    def _send(self, calls: Sequence[Pending], hedged: _Sending | None = None) -> None:
        sending = _Sending(calls, hedged)
        if hedged is not None:
            hedged.partner = sending
        now = self._clock()
        for call in calls:
            call.first_sent = call.first_sent or now
            call.under_way += 1
        self.counts.calls_sent += len(calls)
        self.counts.requests_sent += 1
        self._sendings.add(sending)
        sending.task = asyncio.get_running_loop().create_task(self._exchange(sending))

    async def _exchange(self, sending: _Sending) -> None:
        calls = sending.calls
        ids = [next(self._ids) for _ in calls]
        requests = [request(identity, call.method, call.params) for identity, call in zip(ids, calls, strict=True)]
        body = requests[0] if len(requests) == _ALONE else b"[" + b",".join(requests) + b"]"
        hedge = None if sending.is_hedge else self._hedge_later(sending)
        started = self._clock()
        outcome = Outcome(reason="it was asked twice, and answered the other time")
        try:
            reply = await self._connections.post(body)
            self.counts.bytes_in += len(reply.body)
            outcome = of_reply(reply, ids)
        except Fault as fault:
            outcome = of_fault(fault)
        finally:
            if hedge is not None:
                hedge.cancel()
            self._sendings.discard(sending)
            for call in calls:
                call.under_way -= 1
            self._flush_soon()
        self._learn(calls, outcome, self._clock() - started)
        self._settle(sending, ids, outcome)

    def _learn(self, calls: Sequence[Pending], outcome: Outcome, seconds: float) -> None:
        if outcome.refused:
            self.counts.refusals += len(outcome.refused)
            self.pace.refused(outcome.retry_after)
        if outcome.splits:
            self._batch_size.refused(len(calls))
        if outcome.answers:
            self._breaker.succeeded()
            self.counts.latency.add(seconds)
            for method in {call.method for call in calls}:
                self._medians.add(method, seconds)
        elif not outcome.refused and not outcome.splits:
            self.counts.faults += 1
            # one bad call spoils a whole batch: only what cannot be that says that the endpoint is down
            if outcome.is_silent or outcome.is_final or len(calls) == _ALONE:
                self._breaker.failed()
                if self._breaker.is_open:
                    self._fail_waiting(outcome.reason)

    def _settle(self, sending: _Sending, ids: Sequence[int], outcome: Outcome) -> None:
        answered = 0
        for identity, call in zip(ids, sending.calls, strict=True):
            if call.answer.done():
                continue
            answer = outcome.answers.get(identity)
            if answer is not None and self._is_suspect(call, answer):
                call.nulls += 1
            elif answer is not None:
                self._sizes.learn(call.method, len(answer.result or b""))
                call.answer.set_result(answer)
                answered += 1
            if not call.under_way and not call.answer.done():  # else its other request may still answer it
                self._again(call, outcome, len(sending.calls), is_refused=identity in outcome.refused)
        self.counts.hedges_won += answered if sending.is_hedge else 0
        partner = sending.partner
        if partner is not None and partner.task is not None and all(call.answer.done() for call in partner.calls):
            partner.task.cancel()

    def _is_suspect(self, call: Pending, answer: Answer) -> bool:
        may_ask_again = call.nulls < NULL_RETRIES and call.tries < RETRIES
        return call.is_numbered and answer.result == b"null" and may_ask_again

    def _again(self, call: Pending, outcome: Outcome, company: int, *, is_refused: bool) -> None:
        """Send a call once more, if that may help."""
        is_late = self._clock() - call.first_sent >= RETRY_SECONDS
        if is_late or outcome.is_final or self._breaker.is_open or call.tries >= RETRIES:
            self._fail(call, outcome.reason)
            return
        self.counts.retries += 1
        if is_refused:
            self._lane(call.method).appendleft(call)  # the pace knows when
        elif outcome.splits:
            call.most = max(_ALONE, company // 2)
            self._lane(call.method).appendleft(call)
        else:
            call.tries += 1
            call.most = max(_ALONE, company // 4)
            backoff = min(_BACKOFF_SECONDS * 2**call.tries, _MOST_BACKOFF_SECONDS)
            asyncio.get_running_loop().call_later(random.uniform(0.5, 1.0) * backoff, self._return, call)  # noqa: S311

    def _return(self, call: Pending) -> None:
        """A call's backoff is over."""
        if self._breaker.is_open:
            self._fail(call, "it failed too often in a row")
        elif not call.answer.done():
            self._lane(call.method).appendleft(call)
            self._flush_when_worthwhile()

    def _fail_waiting(self, reason: str) -> None:
        """The endpoint is down: whoever waits for it can turn to another one now."""
        for lane in self._lanes.values():
            for call in lane:
                self._fail(call, reason)
            lane.clear()

    def _fail(self, call: Pending, reason: str) -> None:
        if not call.answer.done():
            tries = f" after {call.tries + 1} tries" if call.tries else ""
            call.answer.set_result(failed(f"rpc endpoint {self.name} does not answer {call.method}{tries}: {reason}"))

    # -- asking twice

    def _hedge_later(self, sending: _Sending) -> asyncio.TimerHandle | None:
        """Ask a second time once this takes much longer than usual."""
        usual = [self._medians.of(method) for method in {call.method for call in sending.calls}]
        known = [median for median in usual if median is not None]
        if len(known) < len(usual):
            return None
        seconds = max(HEDGE_SECONDS, HEDGE_MEDIANS * max(known))
        return asyncio.get_running_loop().call_later(seconds, self._hedge, sending)

    def _hedge(self, sending: _Sending) -> None:
        calls = [call for call in sending.calls if not call.answer.done()]
        affordable = self.counts.hedges_sent + len(calls) <= HEDGE_SHARE * self.counts.calls_sent
        has_room = len(self._sendings) < self._concurrency and not self.pace.seconds_until(len(calls))
        if calls and affordable and has_room and self.pace.grant(len(calls)) == len(calls):
            self.counts.hedges_sent += len(calls)
            self._send(calls, sending)
