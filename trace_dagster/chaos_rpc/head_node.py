"""Asks the node as the head scenario says: of an older head, or in turn with its fork."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trace_dagster.chaos_rpc.heads import TAGS, HeadScenario, NodeHeads, as_of, hidden, syncing
from trace_dagster.chaos_rpc.proxied_node import ProxiedNode
from trace_dagster.chaos_rpc.shapes import Answer, Request
from trace_dagster.chaos_rpc.state import ChaosRpc
from trace_dagster.chaos_rpc.transport import NodeReply


class _Unusable(Exception):
    """The node did not answer as JSON-RPC; its reply passes on unchanged."""

    def __init__(self, reply: NodeReply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class _RoutedCall:
    """One request: as it is sent, to which node, and the highest block that its answer may show."""

    asked: Request
    sent: Request
    to_fork: bool = False
    last: int | None = None


class HeadNode:
    """The node behind the proxy, or the fork, as its clients see it in the proxy's head scenario."""

    def __init__(self, state: ChaosRpc, node: Callable[[bool], ProxiedNode]) -> None:
        """``node`` returns the connection to the node, or to its fork if its argument is true."""
        self._state = state
        self._node = node

    async def ask(self, body: bytes) -> NodeReply:
        """Return the reply to a request body."""
        scenario = self._state.head_scenario
        requests = _requests(body)
        if scenario is None or scenario.view is None or requests is None:
            return await self._node(False).ask(body)
        try:
            heads = await self._heads()
            calls = self._calls(scenario, requests, heads)
            answers = await self._answers(calls, heads)
        except _Unusable as error:
            return error.reply
        found: Any = answers if body.lstrip()[:1] == b"[" else answers[0]
        return NodeReply(200, json.dumps(found, separators=(",", ":")).encode())

    async def _heads(self) -> NodeHeads:
        requests = [
            {"jsonrpc": "2.0", "id": place, "method": "eth_getBlockByNumber", "params": [tag, False]}
            for place, tag in enumerate(TAGS)
        ]
        found = [(answer.get("result") or {}).get("number") for answer in await self._asked(requests, to_fork=False)]
        return NodeHeads(*(int(number or found[0] or "0x0", 16) for number in found))

    def _calls(self, scenario: HeadScenario, requests: Sequence[Request], heads: NodeHeads) -> list[_RoutedCall]:
        state = self._state
        older = heads.behind(state.head_blocks)
        if scenario.view == "early":
            return [_RoutedCall(each, each, last=older.latest if _names_a_block(each) else None) for each in requests]
        if scenario.view == "frozen":
            older = state.frozen = state.frozen or older
        if scenario.view in {"older", "frozen"}:
            return [_RoutedCall(each, as_of(each, older), last=older.latest) for each in requests]
        mixed = scenario.view == "mixed"
        turns = [state.next_turn() for _ in requests] if mixed else [state.next_turn()] * len(requests)
        return [self._in_turn(each, older, turn) for each, turn in zip(requests, turns, strict=True)]

    def _in_turn(self, request: Request, older: NodeHeads, turn: int) -> _RoutedCall:
        if turn % 2 == 0:
            return _RoutedCall(request, request)
        if self._state.fork is not None:
            return _RoutedCall(request, request, to_fork=True)
        return _RoutedCall(request, as_of(request, older), last=older.latest)

    async def _answers(self, calls: Sequence[_RoutedCall], heads: NodeHeads) -> list[Answer]:
        places = {to_fork: [i for i, call in enumerate(calls) if call.to_fork is to_fork] for to_fork in (False, True)}
        found: dict[int, Answer] = {}
        for to_fork, numbers in places.items():
            if numbers:
                said = await self._asked([calls[i].sent for i in numbers], to_fork=to_fork)
                found |= dict(zip(numbers, said, strict=True))
        return [self._shown(call, found[i], heads) for i, call in enumerate(calls)]

    def _shown(self, call: _RoutedCall, answer: Answer, heads: NodeHeads) -> Answer:
        shown = answer
        if call.last is not None:
            shown = hidden(call.sent, answer, call.last)
            if call.asked["method"] == "eth_syncing" and self._state.frozen is not None:
                shown = syncing(answer, call.last, heads.latest)
        changed = call.to_fork or call.sent != call.asked or shown != answer
        self._state.injected[self._state.head or ""] += changed
        return shown

    async def _asked(self, requests: Sequence[Request], *, to_fork: bool) -> list[Answer]:
        """Return the answers to a batch, in the order of the requests. Raises _Unusable."""
        numbered = [{**request, "id": place} for place, request in enumerate(requests)]
        reply = await self._node(to_fork).ask(json.dumps(numbered).encode())
        try:
            said = {answer["id"]: answer for answer in json.loads(reply.body)}
            return [{**said[place], "id": request.get("id")} for place, request in enumerate(requests)]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _Unusable(reply) from None


def _requests(body: bytes) -> list[Request] | None:
    """Return the requests of a body, or None if one of them is no request."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    requests = asked if isinstance(asked, list) else [asked]
    usable = requests and all(isinstance(each, dict) and isinstance(each.get("method"), str) for each in requests)
    return requests if usable else None


def _names_a_block(request: Request) -> bool:
    """Return whether a request names blocks by number, hash or filter, and not by a tag."""
    parameters = request.get("params")
    first = parameters[0] if isinstance(parameters, list) and parameters else None
    return isinstance(first, dict) or (isinstance(first, str) and first.startswith("0x"))
