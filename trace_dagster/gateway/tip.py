"""Calls about the newest blocks: sent before all others, answered within seconds, not cached and not shared.

A caller that asks for many things at once does not ask for the newest block. Its calls come after those that do, before
all others, and may take as long as others.

What a node says of a block by number changes there with each reorganisation, so only the chain id is cached.
"""

from __future__ import annotations

import asyncio

import msgspec

from trace_dagster.gateway.cache import AnswerCache
from trace_dagster.gateway.cacheable import BLOCK, CHAIN_ID, CacheableCall, block_hash, cacheable_call, first_block
from trace_dagster.gateway.call_queue import Rank
from trace_dagster.gateway.endpoint_client import EndpointClient
from trace_dagster.gateway.jsonrpc import Answer, failed
from trace_dagster.gateway.sender import TIP_SECONDS

REORG_BLOCKS = 256
"""Blocks below a replaced one whose cached answers are dropped too: they may be of the same branch."""


class TipCalls:
    """The calls about the newest blocks of one endpoint."""

    def __init__(self, client: EndpointClient, kept: AnswerCache) -> None:
        self._client = client
        self._kept = kept

    async def answer(self, method: str, params: msgspec.Raw, rank: Rank = Rank.NEWEST) -> Answer:
        """Return the answer to a call; an error if one about the newest blocks has none within TIP_SECONDS."""
        counters = self._client.counters
        counters.calls_asked += 1
        counters.tip_calls += 1
        question = cacheable_call(method, params)
        if question is not None and question.method == CHAIN_ID:
            return await self._chain_id(question, rank)
        answer = await self._ask(method, bytes(params), rank)
        if question is not None and question.method == BLOCK and answer.result is not None:
            self._forget_replaced(question, answer.result)
        return answer

    async def _chain_id(self, question: CacheableCall, rank: Rank) -> Answer:
        key = (self._client.fingerprint, question)
        if (known := self._kept.get(key)) is not None:
            self._client.counters.calls_kept += 1
            return Answer(known)
        answer = await self._ask(question.method, question.params, rank)
        if answer.result is not None:
            self._kept.put(key, answer.result)
        return answer

    async def _ask(self, method: str, params: bytes, rank: Rank) -> Answer:
        call = self._client.ask(method, params, rank=rank)
        try:
            async with asyncio.timeout(TIP_SECONDS if rank is Rank.NEWEST else None):
                return await asyncio.shield(call.answer)
        except TimeoutError:
            reason = f": {call.reason}" if call.reason else ", or other calls are sent before it"
            return failed(f"rpc endpoint {self._client.name} does not answer {method} in {TIP_SECONDS:.0f} s{reason}")
        finally:
            call.answer.cancel()  # no effect if it has arrived

    def _forget_replaced(self, question: CacheableCall, block: bytes) -> None:
        """Drop the cached answers about a block, and those around it, if the node shows another block in its place."""
        number = first_block(question)
        found = block_hash(block)
        if number is None or found is None:
            return
        keys = [(self._client.fingerprint, each) for each in question.both_forms]
        known = {block_hash(each) for key in keys if (each := self._kept.get(key)) is not None}
        if known - {found}:
            self._kept.forget(self._client.fingerprint, number - REORG_BLOCKS)
