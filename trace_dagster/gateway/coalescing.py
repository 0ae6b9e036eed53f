"""One fetch for all callers of the same call: joined while in flight, cached afterwards, derived from wider answers."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from trace_dagster.gateway.cache import AnswerCache
from trace_dagster.gateway.cacheable import (
    BLOCK,
    CHAIN_ID,
    RECEIPTS,
    CacheableCall,
    cacheable_call,
    derive,
    is_cacheable_result,
)
from trace_dagster.gateway.call_queue import QueuedCall
from trace_dagster.gateway.endpoint_client import EndpointClient
from trace_dagster.gateway.jsonrpc import Answer, lacks_method

WANTED = {"blocks": BLOCK, "receipts": RECEIPTS}
"""Data that callers may declare as fetched anyway, and the method that fetches it."""


class Coalescer:
    """Shares fetches between the callers of one endpoint."""

    def __init__(self, client: EndpointClient, kept: AnswerCache) -> None:
        self.client = client
        self._kept = kept
        self._under_way: dict[tuple[int, CacheableCall], QueuedCall] = {}
        self._lacks: set[str] = set()
        """Methods that the endpoint does not have; no answer is derived from theirs."""

    async def answer(self, method: str, params: msgspec.Raw, wanted: frozenset[str], attempt: int) -> Answer:
        """Return the answer to a call.

        ``wanted`` names data that the caller fetches of every block anyway. A call for a part of it is derived from
        the larger answer. If ``attempt`` is 1 or more, the cache is bypassed: it is neither read nor updated.
        """
        counts = self.client.counters
        counts.calls_asked += 1
        question = cacheable_call(method, params)
        if question is None:
            return await self._wait_for(self.client.ask(method, bytes(params)))
        if (found := self._cached(question, attempt)) is not None:
            return found
        wider = self._wider_call(question, wanted, attempt)
        if wider is not None:
            whole = await self._fetch(wider, attempt)
            if whole.is_ours:
                return whole
            if lacks_method(whole.error):
                self._lacks.add(wider.method)
            derived = None if whole.result is None else derive(question, whole.result)
            if derived is not None:
                counts.calls_derived += 1
                return self.client.reserved(Answer(derived))
        return await self._fetch(question, attempt)

    def _wider_call(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> CacheableCall | None:
        """Return the wider call to derive the answer from if that costs no additional fetch, else None."""
        wider = question.wider
        if wider is None or wider.method in self._lacks or (attempt, question) in self._under_way:
            return None
        is_there = (attempt, wider) in self._under_way or (attempt == 0 and self._kept.has(self._key(wider)))
        return wider if is_there or wider.method in wanted else None

    async def _fetch(self, question: CacheableCall, attempt: int) -> Answer:
        known = self._cached(question, attempt)
        if known is not None:
            return known
        key = (attempt, question)
        call = self._under_way.get(key)
        if call is None:
            is_numbered = question.method != CHAIN_ID
            call = self.client.ask(question.method, question.params, is_numbered=is_numbered)
            self._under_way[key] = call
            call.answer.add_done_callback(partial(self._arrived, key))
        else:
            self.client.counters.calls_joined += 1
        return await self._wait_for(call)

    async def _wait_for(self, call: QueuedCall) -> Answer:
        """Wait for the answer; when the last caller is cancelled, cancel the call, so that it is not sent any more."""
        call.waiters += 1
        try:
            return await asyncio.shield(call.answer)
        finally:
            call.waiters -= 1
            if not call.waiters:
                call.answer.cancel()  # no effect if the answer has arrived

    def _cached(self, question: CacheableCall, attempt: int) -> Answer | None:
        result = self._kept.get(self._key(question)) if attempt == 0 else None
        if result is None:
            return None
        self.client.counters.calls_kept += 1
        return Answer(result)

    def _arrived(self, key: tuple[int, CacheableCall], answer: asyncio.Future[Answer]) -> None:
        del self._under_way[key]
        attempt, question = key
        result = None if answer.cancelled() else answer.result().result
        if attempt == 0 and result is not None and is_cacheable_result(result):
            self._kept.put(self._key(question), result)

    def _key(self, question: CacheableCall) -> tuple[str, CacheableCall]:
        return self.client.fingerprint, question
