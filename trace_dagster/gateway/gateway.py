"""The routes of a gateway: each endpoint of the configured pools, under ``/TOKEN/pool/position``.

    POST /TOKEN/{pool}/{position}[/{wanted}][?try=K]    one JSON-RPC request, or a batch
    POST /TOKEN/{pool}/{position}/tip                   the same, about the newest blocks
    GET  /TOKEN/{pool}/heads                            new heads, a JSON object in each line, as they come
    GET  /TOKEN/{pool}/endpoints                        JSON: the pool without its URLs, see ``described_pools.py``
    GET  /TOKEN/status                                  JSON
    GET  /TOKEN/metrics                                 Prometheus text

``wanted`` is ``blocks``, ``receipts`` or ``blocks+receipts``: data of the same blocks that the caller fetches anyway.
The gateway then derives a header from the full block, and a block's logs from its receipts. ``try=K`` with K of 1 or
more states that earlier answers were wrong: the gateway sends the call to the node and does not use its cache.
Heads come from the endpoints that have a WebSocket URL, see ``subscriptions.py``; a pool without any has no ``heads``.
Calls at ``tip`` are sent before all others, are not cached, and fail after a few seconds, see ``tip.py``.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

import msgspec

from trace_dagster.config.settings import RpcSettings
from trace_dagster.errors import InvalidInput
from trace_dagster.gateway.byte_budget import AnswerBudgets, Reservation
from trace_dagster.gateway.cache import AnswerCache
from trace_dagster.gateway.call_queue import Rank
from trace_dagster.gateway.coalescing import WANTED, Coalescer
from trace_dagster.gateway.described_pools import described
from trace_dagster.gateway.endpoint_client import EndpointClient
from trace_dagster.gateway.jsonrpc import Answer, GatewayCall, calls_in, failed
from trace_dagster.gateway.metrics import GatewayCollector, exposition, status_of
from trace_dagster.gateway.rate_limiter import Clock
from trace_dagster.gateway.server import HttpRequest, HttpResponse
from trace_dagster.gateway.subscriptions import Subscription, head_lines
from trace_dagster.gateway.tip import TipCalls
from trace_dagster.rpc.http import MAX_ANSWER_BYTES, TIP_CALLS
from trace_dagster.rpc.pools import Endpoint, RpcPool

_TRY = re.compile(r"\d{1,6}")
_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_TOO_LARGE = "the answers of this request are too large together: ask for less at once"
_NULL = msgspec.Raw(b"null")
_NOT_FOUND = HttpResponse(404, b"not found", b"text/plain")


class Gateway:
    """All endpoints behind one HTTP handler. Belongs to one event loop."""

    def __init__(
        self,
        rpc: RpcSettings,
        token: str,
        *,
        kept_bytes: int = 256 * 1024 * 1024,
        clock: Clock = time.monotonic,
    ) -> None:
        self._rpc_settings = rpc
        self._token = token
        self._clock = clock
        self._kept = AnswerCache(kept_bytes, clock)
        self._budgets = AnswerBudgets()
        self._by_fingerprint: dict[str, Coalescer] = {}
        self._routes: dict[str, _Route | _TipRoute] = {}
        self._subscriptions: dict[tuple[str, str], Subscription] = {}
        self._collector = GatewayCollector(lambda: self.clients, lambda: self._kept.bytes)
        for pool in rpc.pools.values():
            for endpoint in pool.endpoints:
                self._coalescer(pool, endpoint)

    @property
    def clients(self) -> list[EndpointClient]:
        """Every endpoint used so far; a URL that two pools contain is one endpoint."""
        return [coalescer.client for coalescer in self._by_fingerprint.values()]

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer one HTTP request."""
        target = request.target.decode("latin-1")
        token, _, rest = target.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return _NOT_FOUND
        if request.verb == b"POST":
            return await self._rpc(rest, request.body)
        if request.verb == b"GET" and rest == "status":
            return HttpResponse(200, msgspec.json.encode(status_of(self.clients, self._kept.bytes)))
        if request.verb == b"GET" and rest == "metrics":
            return HttpResponse(200, exposition(self._collector), b"text/plain; version=0.0.4")
        if request.verb == b"GET" and rest.endswith("/heads"):
            return self._heads(rest.removesuffix("/heads"))
        if request.verb == b"GET" and rest.endswith("/endpoints"):
            return HttpResponse(200, described(self._rpc_settings, rest.removesuffix("/endpoints")))
        return _NOT_FOUND

    def share(self, gateways: Mapping[str, int]) -> None:
        """Divide the limit of each endpoint by the number of gateways that use it, by fingerprint; others do
        not change.
        """
        for fingerprint, count in gateways.items():
            self._by_fingerprint[fingerprint].client.share_limits(count)

    async def close(self) -> None:
        """End the subscriptions, cancel the calls in flight and close the connections."""
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions.values()))
        await asyncio.gather(*(client.close() for client in self.clients))

    async def _rpc(self, target: str, body: bytes) -> HttpResponse:
        try:
            calls = calls_in(body)
        except (msgspec.DecodeError, RecursionError):
            return HttpResponse(200, failed("this is no JSON-RPC request", _PARSE_ERROR).to(_NULL))
        try:
            route = self._routes.get(target) or self._add_route(target)
        except InvalidInput as error:
            return HttpResponse(200, _encoded(calls, failed(str(error))))
        if isinstance(calls, GatewayCall):
            return self._response(calls, [await route.answer(calls)], route)
        if not calls:
            return HttpResponse(200, failed("a batch holds at least one request", _INVALID_REQUEST).to(_NULL))
        asked = (route.answer(call, of=len(calls)) for call in calls)
        return self._response(calls, await asyncio.gather(*asked), route)

    def _response(
        self, calls: GatewayCall | list[GatewayCall], answers: Sequence[Answer], route: _Route | _TipRoute
    ) -> HttpResponse:
        """Return the response. It keeps the bytes of its answers in the budget until its caller has read it."""
        reservations = self._reservations(answers, route)
        if reservations is None:
            return HttpResponse(200, _encoded(calls, failed(f"rpc endpoint {route.name}: {_TOO_LARGE}")))
        return HttpResponse(200, _encoded(calls, *answers), reservations=reservations)

    def _reservations(self, answers: Sequence[Answer], route: _Route | _TipRoute) -> list[Reservation] | None:
        """Return the answers' reservations; None if the answers are too large together.

        An answer that another caller gets as well, or that is cached, takes its bytes again: the response is a copy.
        """
        found: list[Reservation] = []
        budget = self._budgets.tip_passed_on if isinstance(route, _TipRoute) else self._budgets.passed_on
        if sum(answer.size for answer in answers) > MAX_ANSWER_BYTES:
            return None
        for answer in answers:
            reservation = answer.reservation
            if reservation is None or reservation.is_passed_on:
                reservation = budget.reserve(route.name, answer.size)
                if reservation is None:
                    return None
            reservation.is_passed_on = True
            found.append(reservation)
        return found

    def _add_route(self, target: str) -> _Route | _TipRoute:
        """Return the route to ``pool/position[/wanted][?try=K]`` or ``pool/position/tip``. Raises InvalidInput."""
        path, _, query = target.partition("?")
        name, position, wanted, *more = [*path.split("/"), "", ""][:4]
        attempt = parse_qs(query).get("try", ["0"])[-1]
        is_tip = wanted == "tip"
        words = set() if is_tip else set(filter(None, wanted.split("+")))
        if any(more) or not words <= set(WANTED) or not _TRY.fullmatch(attempt):
            raise InvalidInput("ask the gateway at /{pool}/{position}[/blocks+receipts|/tip][?try=K]")
        pool = self._rpc_settings.pool(name)
        found = [endpoint for endpoint in pool.endpoints if str(endpoint.position) == position]
        if not found:
            raise InvalidInput(f"rpc pool {name} has endpoints 1 to {len(pool.urls)}, not this one")
        coalescer = self._coalescer(pool, found[0])
        methods = frozenset(WANTED[word] for word in words)
        route = _TipRoute(coalescer.client, self._kept) if is_tip else _Route(coalescer, methods, int(attempt))
        if attempt == "0":  # tries are rare and have any number, therefore their routes are not cached
            self._routes[target] = route
        return route

    def _heads(self, name: str) -> HttpResponse:
        """Return the heads of a pool as a stream; 404 if the pool has no WebSocket URL."""
        try:
            endpoints = self._rpc_settings.pool(name).endpoints
        except InvalidInput:
            return _NOT_FOUND
        found = {each.position: self._subscription(each) for each in endpoints if each.websocket_url}
        return HttpResponse(200, b"", b"application/x-ndjson", stream=head_lines(found)) if found else _NOT_FOUND

    def _subscription(self, endpoint: Endpoint) -> Subscription:
        key = (endpoint.fingerprint, endpoint.websocket_url)
        if key not in self._subscriptions:
            client = self._coalescer(self._rpc_settings.pool(endpoint.pool), endpoint).client
            calls = TipCalls(client, self._kept)
            self._subscriptions[key] = Subscription(client, calls, endpoint.websocket_url, self._clock)
        return self._subscriptions[key]

    def _coalescer(self, pool: RpcPool, endpoint: Endpoint) -> Coalescer:
        known = self._by_fingerprint.get(endpoint.fingerprint)
        if known is None:
            client = EndpointClient(endpoint, pool.limits, self._clock, self._budgets)
            known = Coalescer(client, self._kept, self._clock)
            self._by_fingerprint[endpoint.fingerprint] = known
        return known


class _Route:
    """One endpoint, with the options of one route."""

    def __init__(self, coalescer: Coalescer, wanted: frozenset[str], attempt: int) -> None:
        self.name = coalescer.client.name
        self._attempt = attempt
        self._coalescer = coalescer
        self._wanted = wanted

    async def answer(self, call: GatewayCall, *, of: int = 1) -> Answer:
        """Return the answer to one call; the size ``of`` its batch makes no difference here."""
        return await self._coalescer.answer(call.method, call.params, self._wanted, self._attempt)


class _TipRoute:
    """The newest blocks of one endpoint."""

    def __init__(self, client: EndpointClient, kept: AnswerCache) -> None:
        self.name = client.name
        self._calls = TipCalls(client, kept)

    async def answer(self, call: GatewayCall, *, of: int = 1) -> Answer:
        """Return the answer to one call of a batch. Only calls ``of`` a small batch are about the newest blocks."""
        rank = Rank.NEWEST if of <= TIP_CALLS else Rank.RECENT
        return await self._calls.answer(call.method, call.params, rank)


def _encoded(calls: GatewayCall | Sequence[GatewayCall], *answers: Answer) -> bytes:
    """Return the JSON-RPC response to a call or a batch; a single answer is that of every call."""
    if isinstance(calls, GatewayCall):
        return answers[0].to(calls.id)
    each = answers if len(answers) == len(calls) else answers * len(calls)
    return b"[" + b",".join(answer.to(call.id) for call, answer in zip(calls, each, strict=True)) + b"]"
