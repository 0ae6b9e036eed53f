"""One RPC endpoint: queues calls, applies the rate limit, batches them into HTTP requests, retries and hedges.

Every call gets an answer: the node's, or an error of the gateway when the tries are used up. The client never sends a
call to another endpoint: the caller decides that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

from trace_dagster.gateway.batches import AnswerSizes, BatchSize
from trace_dagster.gateway.breaker import OPEN_SECONDS, Breaker
from trace_dagster.gateway.byte_budget import AnswerBudgets
from trace_dagster.gateway.call_queue import CallQueue, FlushTimer, QueuedCall, Rank, batch_of
from trace_dagster.gateway.counters import CallCounters
from trace_dagster.gateway.hedging import Hedging
from trace_dagster.gateway.jsonrpc import Answer, failed
from trace_dagster.gateway.outcome import Outcome
from trace_dagster.gateway.rate_limiter import Clock, RateLimiter
from trace_dagster.gateway.sender import TIP_SECONDS, HttpSending, Sender
from trace_dagster.messages.logs import component_log
from trace_dagster.rpc.http import MAX_ANSWER_BYTES
from trace_dagster.rpc.pools import Endpoint, Limits
from trace_dagster.rpc.provider_errors import TOO_LARGE

CONCURRENCY = 64
"""Largest number of HTTP requests in flight, unless the pool sets its own limit."""

COLLECT_SECONDS = 0.002
"""Seconds that a call waits for others to share its request with, while requests are in flight."""

RETRIES = 5
RETRY_SECONDS = 90.0
"""Seconds after the first send of a call in which a retry may start."""

TIP_PROBE_SECONDS = 0.5
"""Seconds between the calls about the newest blocks that are sent to an endpoint while it counts as down."""

_TIP_RECENT_SECONDS = 60.0
"""Seconds after a call about the newest blocks in which HTTP requests are reserved for the next one."""

NULL_RETRIES = 2
"""Retries of a call about a block by number that was answered with null, because a replica may be behind."""

_BACKOFF_SECONDS = 0.1
_MOST_BACKOFF_SECONDS = 5.0
_log = component_log("gateway")


class EndpointClient:
    """The client of one endpoint. Belongs to one event loop."""

    def __init__(self, endpoint: Endpoint, limits: Limits, clock: Clock, budgets: AnswerBudgets | None = None) -> None:
        """``budgets`` are those of the gateway, which all its endpoints share."""
        budgets = budgets or AnswerBudgets()
        self.name = endpoint.name
        self.fingerprint = endpoint.fingerprint
        self.counters = CallCounters()
        self.asked_at = clock()
        """When the last call was queued, in seconds of ``clock``."""
        self.is_subscribed: bool | None = None
        """Whether the endpoint pushes its heads now; None if it is not asked to."""
        self.rate_limiter = RateLimiter(limits.requests_per_second, clock)
        self._limits = limits
        self._concurrency = limits.concurrency or CONCURRENCY
        self._clock = clock
        self._tip_asked_at = -_TIP_RECENT_SECONDS
        self._budgets = budgets
        self._sender = Sender(endpoint, self.counters, clock, budgets)
        self._queue = CallQueue()
        self._timer = FlushTimer(self._flush)
        self._hedging = Hedging(self.counters)
        self._batch_size = BatchSize(limits.batch, clock)
        self._sizes = AnswerSizes()
        self._breaker = Breaker(clock)
        self._is_refusing = False
        self._last_failure = ""
        """Why calls are not sent while the breaker is open: the failure of other calls, with their methods."""

    @property
    def under_way(self) -> int:
        """HTTP requests in flight."""
        return len(self._sender.under_way)

    @property
    def queued(self) -> int:
        """Calls that wait to be sent."""
        return len(self._queue)

    @property
    def is_down(self) -> bool:
        """True while the circuit breaker is open: calls fail immediately and are not sent."""
        return self._breaker.is_open

    @property
    def batch_size(self) -> int:
        """Most calls in one HTTP request, as far as the endpoint is known to accept them."""
        return self._batch_size.size

    def share_limits(self, gateways: int) -> None:
        """Use only this gateway's share of the endpoint's limits, which ``gateways`` gateways share."""
        if self._limits.requests_per_second is not None:
            self.rate_limiter.limit = self._limits.requests_per_second / gateways
        if self._limits.concurrency is not None:
            self._concurrency = max(1, self._limits.concurrency // gateways)

    def ask(self, method: str, params: bytes, *, is_numbered: bool = False, rank: Rank = Rank.OTHER) -> QueuedCall:
        """Queue a call; its ``answer`` is the node's, or an error that says why there is none.

        A call about the newest blocks probes an endpoint that is down more often than others.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        call = QueuedCall(method, params, future, is_numbered=is_numbered, rank=rank)
        is_newest = rank is Rank.NEWEST
        self.asked_at = self._clock()
        if is_newest:
            self._tip_asked_at = self.asked_at
        if self._breaker.admits(TIP_PROBE_SECONDS if is_newest else OPEN_SECONDS):
            self._queue.add(call)
            self._flush_when_worthwhile(call)
        else:
            self._leave_alone(call)
        return call

    def reserved(self, answer: Answer, rank: Rank = Rank.OTHER) -> Answer:
        """Return the answer with its bytes taken from the budget, or an error if the budget is used up."""
        budget = self._budgets.tip_passed_on if rank is Rank.NEWEST else self._budgets.passed_on
        reservation = budget.reserve(self.name, answer.size)
        if reservation is not None:
            return replace(answer, reservation=reservation)
        return failed(f"rpc endpoint {self.name}: its answers are too large to hold so many: ask for less at once")

    async def close(self) -> None:
        """Cancel every call, queued or under way."""
        await self._sender.close()
        for call in self._queue.drain():
            call.answer.cancel()
        self._timer.cancel()

    def _flush_when_worthwhile(self, call: QueuedCall) -> None:
        if call.rank is Rank.NEWEST or not self._sender.under_way or len(self._queue) >= self._batch_size.size:
            self._timer.soon()
        else:
            self._timer.within(COLLECT_SECONDS)

    def _flush(self) -> None:
        """Send as much as rate limit and concurrency allow: the tip's calls, then a batch of each lane in turn."""
        limiter = self.rate_limiter
        while (free := self._concurrency - len(self._sender.under_way)) > 0:
            lane = self._queue.next_lane(is_newest_only=free <= self._reserved_for_tip)
            if lane is None:
                return
            methods = {call.method for call in lane} if lane[0].rank is not Rank.OTHER else {lane[0].method}
            fitting = min(map(self._sizes.calls_within_target, methods))
            most = batch_of(lane, min(self._batch_size.size, fitting, len(lane)))
            wait = limiter.seconds_until(limiter.worth_waiting_for(most))
            granted = 0 if wait > 0 else limiter.grant(most)
            if not granted:
                self._timer.within(max(wait, COLLECT_SECONDS))
                return
            self._send([lane.popleft() for _ in range(granted)])

    @property
    def _reserved_for_tip(self) -> int:
        """HTTP requests that only calls about the newest blocks may use: none unless there were some lately."""
        if self._concurrency == 1 or self._clock() - self._tip_asked_at > _TIP_RECENT_SECONDS:
            return 0
        return 1 if self._concurrency < CONCURRENCY // 4 else 2

    def _send(self, calls: Sequence[QueuedCall], hedged: HttpSending | None = None) -> None:
        sending = self._sender.open(calls, hedged)
        sending.task = asyncio.get_running_loop().create_task(self._exchange(sending))

    async def _exchange(self, sending: HttpSending) -> None:
        hedge = None if sending.is_hedge else self._hedge_later(sending)
        started = self._clock()
        try:
            outcome = await self._sender.exchange(sending)
        finally:
            if hedge is not None:
                hedge.cancel()
            self._sender.ended(sending)
            self._timer.soon()
        self._learn(sending.calls, outcome, self._clock() - started)
        self._settle(sending, outcome)

    def _learn(self, calls: Sequence[QueuedCall], outcome: Outcome, seconds: float) -> None:
        """Adapt rate, batch size, hedging and breaker to the outcome of a request."""
        if outcome.refused:
            self.counters.refusals += len(outcome.refused)
            self.rate_limiter.refused(outcome.retry_after)
            self._note_refusing(outcome.reason)
        if outcome.splits:
            self._batch_size.refused(outcome.largest_batch)
        if outcome.is_too_large:
            for method in {call.method for call in calls}:
                self._sizes.learn(method, MAX_ANSWER_BYTES // len(calls))
        if outcome.answers:
            self._note_answering()
            self._breaker.succeeded()
            self.counters.latency.add(seconds)
            self._hedging.learn({call.method for call in calls}, seconds)
        elif not outcome.refused and not outcome.splits and not outcome.is_too_large:
            self.counters.faults += 1
            # one bad call spoils a whole batch: only a failure with another cause means that the endpoint is down
            if outcome.is_silent or outcome.is_final or len(calls) == 1:
                self._note_failure(outcome.reason, calls)

    def _note_refusing(self, reason: str) -> None:
        if not self._is_refusing:
            self._is_refusing = True
            _log.warning("rate_limited", endpoint=self.name, rate=self.rate_limiter.rate, reason=reason)

    def _note_answering(self) -> None:
        if self._breaker.is_open:
            _log.event("endpoint_recovered", endpoint=self.name)
        if self._is_refusing and self.rate_limiter.is_recovered:
            self._is_refusing = False
            _log.event("rate_limit_recovered", endpoint=self.name, rate=self.rate_limiter.rate)

    def _note_failure(self, reason: str, calls: Sequence[QueuedCall]) -> None:
        """Count a failure. If that opens the breaker, fail all queued calls, so that callers try another endpoint."""
        was_open = self._breaker.is_open
        self._breaker.failed()
        methods = ", ".join(sorted({call.method for call in calls}))
        self._last_failure = f"failed {methods} too often in a row and is left alone for some seconds: {reason}"
        if self._breaker.is_open:
            if not was_open:
                _log.warning("endpoint_down", endpoint=self.name, reason=reason)
            for call in self._queue.drain():
                self._leave_alone(call)

    def _settle(self, sending: HttpSending, outcome: Outcome) -> None:
        """Complete the calls of a request, or queue them again."""
        answered = 0
        for identity, call in zip(sending.ids, sending.calls, strict=True):
            if call.answer.done():
                continue
            answer = outcome.answers.get(identity)
            if answer is not None and self._is_suspect(call, answer):
                call.nulls += 1
            elif answer is not None:
                self._sizes.learn(call.method, len(answer.result or b""))
                call.answer.set_result(self.reserved(answer, call.rank))
                answered += 1
            if not call.under_way and not call.answer.done():  # else the hedge may still answer the call
                self._retry(call, outcome, identity, len(sending.calls))
        self.counters.hedges_won += answered if sending.is_hedge else 0
        partner = sending.partner
        if partner is not None and partner.task is not None and all(call.answer.done() for call in partner.calls):
            partner.task.cancel()

    def _is_suspect(self, call: QueuedCall, answer: Answer) -> bool:
        may_ask_again = call.nulls < NULL_RETRIES and call.tries < RETRIES and not self._is_late(call)
        return call.is_numbered and answer.result == b"null" and may_ask_again

    def _is_late(self, call: QueuedCall) -> bool:
        return self._clock() - call.first_sent >= (TIP_SECONDS if call.rank is Rank.NEWEST else RETRY_SECONDS)

    def _retry(self, call: QueuedCall, outcome: Outcome, identity: int, batch: int) -> None:
        """Queue a call again if a retry may help; ``batch`` is the number of calls it was sent with."""
        if outcome.is_too_large and batch == 1:
            self._fail(call, outcome.reason, TOO_LARGE)
            return
        if self._is_late(call) or outcome.is_final or self._breaker.is_open or call.tries >= RETRIES:
            self._fail(call, outcome.reason_of(identity))
            return
        self.counters.retries += 1
        call.reason = outcome.reason_of(identity)
        if identity in outcome.refused:
            self._queue.add_first(call)  # the rate limiter decides when
        elif outcome.splits or outcome.is_too_large:
            call.largest_batch = (
                min(outcome.largest_batch or batch, max(1, batch - 1)) if outcome.splits else batch // 2
            )
            self._queue.add_first(call)
        else:
            call.tries += 1
            call.largest_batch = max(1, batch // 4)
            backoff = min(_BACKOFF_SECONDS * 2**call.tries, _MOST_BACKOFF_SECONDS)
            delay = random.uniform(0.5, 1.0) * backoff  # noqa: S311
            asyncio.get_running_loop().call_later(delay, self._after_backoff, call)

    def _after_backoff(self, call: QueuedCall) -> None:
        if self._breaker.is_open:
            self._leave_alone(call)
        elif not call.answer.done():
            self._queue.add_first(call)
            self._flush_when_worthwhile(call)

    def _fail(self, call: QueuedCall, reason: str, kind: str = "") -> None:
        if not call.answer.done():
            tries = f" after {call.tries + 1} tries" if call.tries else ""
            text = f"rpc endpoint {self.name} does not answer {call.method}{tries}: {reason}"
            call.answer.set_result(failed(text, reason=kind))

    def _leave_alone(self, call: QueuedCall) -> None:
        """Fail a call that is not sent (again), because the endpoint counts as down."""
        if call.reason:
            self._fail(call, call.reason)
        elif not call.answer.done():
            call.answer.set_result(failed(f"rpc endpoint {self.name} {self._last_failure}"))

    def _hedge_later(self, sending: HttpSending) -> asyncio.TimerHandle | None:
        """Schedule a second request for the time when this one takes much longer than usual."""
        delay = self._hedging.delay({call.method for call in sending.calls})
        return None if delay is None else asyncio.get_running_loop().call_later(delay, self._hedge, sending)

    def _hedge(self, sending: HttpSending) -> None:
        calls = [call for call in sending.calls if not call.answer.done()]
        limiter = self.rate_limiter
        reserved = 0 if sending.calls[0].rank is Rank.NEWEST else self._reserved_for_tip
        has_room = len(self._sender.under_way) < self._concurrency - reserved and not limiter.seconds_until(len(calls))
        may_hedge = calls and self._hedging.is_affordable(len(calls)) and has_room
        if may_hedge and limiter.grant(len(calls)) == len(calls):
            self.counters.hedges_sent += len(calls)
            self._send(calls, sending)
