"""Faults of a whole HTTP response: an error status instead of the node's answer, or a corrupted answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class NodeReply:
    """One HTTP response."""

    status: int
    body: bytes
    content_type: str = JSON


def http_429(request: Any, _rng: Random) -> NodeReply:
    """Refuse as JSON-RPC providers do; engines may take the error code in the body as a reason to wait."""
    return NodeReply(429, json.dumps(_refused(request, 429, "Too Many Requests")).encode())


def http_429_text(_request: Any, _rng: Random) -> NodeReply:
    return NodeReply(429, b"rate limit exceeded", "text/plain")


def http_500(_request: Any, _rng: Random) -> NodeReply:
    return NodeReply(500, b"internal server error", "text/plain")


def http_500_valid_body(honest: NodeReply, _rng: Random) -> NodeReply:
    return NodeReply(500, honest.body, honest.content_type)


def malformed_json(honest: NodeReply, rng: Random) -> NodeReply:
    """Cut the body short: a proper prefix of a JSON object or list is never JSON."""
    body = honest.body.strip()
    if body[:1] not in {b"{", b"["}:
        return honest
    return NodeReply(honest.status, body[: rng.randint(1, len(body) - 1)], honest.content_type)


def _refused(request: Any, code: int, message: str) -> Any:
    if isinstance(request, list):
        return [_refused(each, code, message) for each in request]
    identity = request.get("id") if isinstance(request, dict) else None
    return {"jsonrpc": "2.0", "id": identity, "error": {"code": code, "message": message}}
