"""One fetch for all callers of the same call: joined while in flight, cached afterwards, derived from wider answers."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import msgspec

from trace_dagster.gateway.cache import AnswerCache
from trace_dagster.gateway.cacheable import (
    BLOCK,
    CHAIN_ID,
    LOGS,
    RECEIPTS,
    CacheableCall,
    block_of,
    cacheable_call,
    derive,
    is_cacheable_result,
    single_blocks,
)
from trace_dagster.gateway.call_queue import QueuedCall
from trace_dagster.gateway.endpoint_client import EndpointClient
from trace_dagster.gateway.jsonrpc import Answer, lacks_method
from trace_dagster.gateway.rate_limiter import Clock
from trace_dagster.gateway.receipt_logs import joined
from trace_dagster.gateway.shared_tasks import SharedTasks
from trace_dagster.gateway.transaction_receipts import RECEIPT, receipts_of
from trace_dagster.rpc.endpoint_memory import EndpointMemory
from trace_dagster.rpc.http import MAX_ANSWER_BYTES
from trace_dagster.rpc.transaction_hashes import transaction_hashes

WANTED = {"blocks": BLOCK, "receipts": RECEIPTS}
"""Data that callers may declare as fetched anyway, and the method that fetches it."""


class Coalescer:
    """Shares fetches between the callers of one endpoint."""

    def __init__(self, client: EndpointClient, kept: AnswerCache, clock: Clock = time.monotonic) -> None:
        self.client = client
        self._kept = kept
        self._under_way: dict[tuple[int, CacheableCall], QueuedCall] = {}
        self._joined = SharedTasks()
        self._memory = EndpointMemory(clock)
        """Methods that the endpoint does not offer."""

    async def answer(self, method: str, params: msgspec.Raw, wanted: frozenset[str], attempt: int) -> Answer:
        """Return the answer to a call.

        ``wanted`` names data that the caller fetches of every block anyway. A call for a part of it is derived from
        the larger answer. If ``attempt`` is 1 or more, the cache is bypassed: it is neither read nor updated.
        """
        self.client.counters.calls_asked += 1
        question = cacheable_call(method, params)
        if question is None:
            return await self._wait_for(self.client.ask(method, bytes(params)))
        return await self._answer(question, wanted, attempt)

    async def _answer(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> Answer:
        if (found := self._cached(question, attempt)) is not None:
            return found
        found = await self._of_wider(question, wanted, attempt) or await self._of_blocks(question, wanted, attempt)
        if found is None:
            return await self._fetch(question, wanted, attempt)
        if found.result is not None:
            self.client.counters.calls_derived += 1
        return self.client.reserved(found)

    async def _of_wider(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> Answer | None:
        """Return the answer that the wider call's answer holds, or the gateway's error for that call.

        Returns None if the wider call would cost an additional fetch, or if its answer does not hold this one's.
        """
        wider = self._wider_call(question, wanted, attempt)
        if wider is None:
            return None
        whole = await self._fetch(wider, wanted, attempt)
        if whole.result is None:
            return whole if whole.is_ours and not whole.is_too_large else None
        derived = await self._derived(question, whole.result, wanted, attempt)
        return None if derived is None else Answer(derived)

    async def _of_blocks(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> Answer | None:
        """Return the logs of several blocks out of their receipts, if the caller fetches those anyway, else None."""
        blocks = single_blocks(question) if question.method == LOGS and RECEIPTS in wanted else []
        if len(blocks) < 2:
            return None
        found = await asyncio.gather(*(self._of_wider(each, wanted, attempt) for each in blocks))
        errors = [each for each in found if each is not None and each.result is None]
        if errors:
            return errors[0]
        logs = [each.result for each in found if each is not None and each.result is not None]
        if len(logs) < len(blocks) or sum(map(len, logs)) > MAX_ANSWER_BYTES:
            return None
        return Answer(joined(logs))

    async def _derived(
        self, question: CacheableCall, whole: bytes, wanted: frozenset[str], attempt: int
    ) -> bytes | None:
        """Return the answer to a call out of the answer to its wider call, None if that does not hold it."""
        if question.method == LOGS and whole == b"null":
            return b"[]" if await self._is_empty(question.wider, wanted, attempt) else None
        return derive(question, whole)

    def _wider_call(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> CacheableCall | None:
        """Return the wider call to derive the answer from if that costs no additional fetch, else None."""
        wider = question.wider
        if wider is None or self._is_out_of_reach(wider.method) or (attempt, question) in self._under_way:
            return None
        is_there = (attempt, wider) in self._under_way or (attempt == 0 and self._kept.has(self._key(wider)))
        return wider if is_there or wider.method in wanted else None

    def _is_out_of_reach(self, method: str) -> bool:
        """Return whether the endpoint offers neither a method nor another one that gives the same data."""
        is_joined = method == RECEIPTS and not self._lacks(RECEIPT)
        return self._lacks(method) and not is_joined

    async def _fetch(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> Answer:
        if question.method == RECEIPTS:
            return await self._fetch_receipts(question, wanted, attempt)
        return await self._fetch_as_it_is(question, attempt)

    async def _fetch_receipts(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> Answer:
        """Return a block's receipts; those of an empty block may be ``null``, and other blocks' may be fetched by
        transaction.
        """
        if self._is_known_to_be_empty(question, attempt):
            self.client.counters.calls_derived += 1
            return Answer(b"[]")
        if not self._lacks(RECEIPTS):
            answer = await self._fetch_as_it_is(question, attempt)
            if answer.result == b"null" and not await self._is_empty(question, wanted, attempt):
                answer = await self._fetch_as_it_is(question, attempt, is_numbered=True)
            if not self._notes_lack(RECEIPTS, answer):
                return answer
            if self._lacks(RECEIPT):
                return answer
        found = self._cached(question, attempt)
        if found is not None:
            return found
        return await self._joined.result(
            (attempt, question), lambda: self._receipts_by_transaction(question, wanted, attempt)
        )

    async def _receipts_by_transaction(self, question: CacheableCall, wanted: frozenset[str], attempt: int) -> Answer:
        block = await self._answer(block_of(question), wanted, attempt)
        if block.result is None:
            return block
        answer = await receipts_of(self.client, block.result, self._ask_numbered)
        self._notes_lack(RECEIPT, answer)
        if attempt == 0 and answer.result is not None and is_cacheable_result(answer.result):
            self._kept.put(self._key(question), answer.result)
        return answer

    async def _ask_numbered(self, method: str, params: bytes) -> Answer:
        return await self._wait_for(self.client.ask(method, params, is_numbered=True))

    async def _is_empty(self, question: CacheableCall | None, wanted: frozenset[str], attempt: int) -> bool:
        """Return whether a block has no transactions, so that ``null`` is what its receipts and logs are."""
        if question is None:
            return False
        block = await self._answer(block_of(question), wanted, attempt)
        return block.result is not None and transaction_hashes(block.result) == []

    def _is_known_to_be_empty(self, question: CacheableCall, attempt: int) -> bool:
        """Return whether a cached block has no transactions, and therefore no receipts to ask for."""
        if attempt:
            return False
        keys = [self._key(block_of(question, full=full)) for full in (True, False)]
        block = next((found for key in keys if (found := self._kept.get(key)) is not None), None)
        return block is not None and transaction_hashes(block) == []

    def _lacks(self, method: str) -> bool:
        return self._memory.is_lacked(self.client.fingerprint, method)

    def _notes_lack(self, method: str, answer: Answer) -> bool:
        """Return whether an answer says that the endpoint does not offer a method, and remember it."""
        is_lacked = not answer.is_ours and lacks_method(answer.error)
        if is_lacked:
            self._memory.note_lacked(self.client.fingerprint, method)
        return is_lacked

    async def _fetch_as_it_is(
        self, question: CacheableCall, attempt: int, *, is_numbered: bool | None = None
    ) -> Answer:
        """Send a call, or wait for the same call of another caller.

        ``is_numbered`` sends it again if it is answered with ``null``, because a replica may be behind.
        """
        known = self._cached(question, attempt)
        if known is not None:
            return known
        key = (attempt, question)
        call = self._under_way.get(key)
        if call is None:
            if is_numbered is None:
                is_numbered = question.method not in {CHAIN_ID, RECEIPTS}
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
