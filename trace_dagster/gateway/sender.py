"""Sends batches of calls to one endpoint, each in one HTTP request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from trace_dagster.gateway.byte_budget import AnswerBudgets
from trace_dagster.gateway.call_queue import QueuedCall, Rank
from trace_dagster.gateway.connections import Connections, RequestFailed
from trace_dagster.gateway.counters import CallCounters
from trace_dagster.gateway.jsonrpc import request
from trace_dagster.gateway.outcome import Outcome, of_failure, of_reply
from trace_dagster.gateway.rate_limiter import Clock
from trace_dagster.rpc.http import REDIRECTS, redirected
from trace_dagster.rpc.pools import Endpoint

TIP_SECONDS = 4.0
"""Longest time for a call about the newest blocks, in seconds: then its caller asks another endpoint, or again."""


class HttpSending:
    """One HTTP request in flight, and its hedge."""

    __slots__ = ("calls", "ids", "is_hedge", "partner", "task")

    def __init__(self, calls: Sequence[QueuedCall], ids: Sequence[int], partner: HttpSending | None) -> None:
        self.calls = calls
        self.ids = ids
        """JSON-RPC ids of the calls, in order."""
        self.partner = partner
        """The request with the same calls: the hedge, or the request that it hedges."""
        self.is_hedge = partner is not None
        self.task: asyncio.Task[None] | None = None


class Sender:
    """Encodes calls, posts them, and reads the outcome."""

    def __init__(self, endpoint: Endpoint, counters: CallCounters, clock: Clock, budgets: AnswerBudgets) -> None:
        self._endpoint = endpoint
        self._connections = Connections(endpoint.url, budgets.received, endpoint.name)
        self._tip_connections = Connections(endpoint.url, budgets.tip_received, endpoint.name)
        self._counters = counters
        self._clock = clock
        self._ids = count(1)
        self.under_way: set[HttpSending] = set()

    def open(self, calls: Sequence[QueuedCall], hedged: HttpSending | None) -> HttpSending:
        """Return the request for a batch and count it as in flight; ``hedged`` is the request that it repeats."""
        sending = HttpSending(calls, [next(self._ids) for _ in calls], hedged)
        if hedged is not None:
            hedged.partner = sending
        now = self._clock()
        for call in calls:
            call.first_sent = call.first_sent or now
            call.under_way += 1
        self._counters.calls_sent += len(calls)
        self._counters.requests_sent += 1
        self.under_way.add(sending)
        return sending

    async def exchange(self, sending: HttpSending) -> Outcome:
        """Post the batch and return what the response means for each call."""
        encoded = [
            request(identity, call.method, call.params)
            for identity, call in zip(sending.ids, sending.calls, strict=True)
        ]
        body = encoded[0] if len(encoded) == 1 else b"[" + b",".join(encoded) + b"]"
        try:
            if sending.calls[0].rank is Rank.NEWEST:
                reply = await self._tip_connections.post(body, seconds=TIP_SECONDS)
            else:
                reply = await self._connections.post(body)
        except RequestFailed as failure:
            return of_failure(failure)
        self._counters.bytes_in += len(reply.body)
        if reply.status in REDIRECTS:
            reason = f"it {redirected(self._endpoint, reply.location)} (HTTP {reply.status})"
            return Outcome(reason=reason, is_final=True)
        return of_reply(reply, sending.ids, {call.method for call in sending.calls})

    def ended(self, sending: HttpSending) -> None:
        """Count a request as no longer in flight."""
        self.under_way.discard(sending)
        for call in sending.calls:
            call.under_way -= 1

    async def close(self) -> None:
        """Cancel the requests in flight and close the connections."""
        tasks = [sending.task for sending in self.under_way if sending.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._connections.close()
        self._tip_connections.close()
