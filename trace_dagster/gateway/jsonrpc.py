"""JSON-RPC as bytes: requests of callers and responses of endpoints, copied without decoding params and results."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from trace_dagster.gateway.byte_budget import Reservation
from trace_dagster.messages.redaction import redact

FAILED = -32000
"""Code of errors that the gateway itself gives. Engines return it at once; with other codes they wait and retry."""

_REFUSALS = frozenset({429, -32005})
_MAY_REFUSE = frozenset({-32000, -32603, -32016})
_REFUSED = re.compile(
    r"too many requests|rate.?limit|overloaded|try again later|compute units per second", re.IGNORECASE
)
_ABOUT_THE_QUESTION = re.compile(r"results|block range|size", re.IGNORECASE)
_TOO_LARGE = re.compile(r"(response|batch|content).{0,20}(too large|size limit|limit exceeded)", re.IGNORECASE)
_BATCH_CODES = frozenset({-32600, -32003})
_MOST_ERROR_TEXT = 2000
"""Characters of a node's message, and of its data, that callers get."""

_MOST_REDACTED = 16_000
"""Characters that are redacted before they are cut, because a secret that is cut may not be recognized."""


class GatewayCall(msgspec.Struct):
    """One request of a caller. ``id`` and ``params`` are its raw JSON bytes."""

    method: str
    id: msgspec.Raw = msgspec.Raw(b"null")
    params: msgspec.Raw = msgspec.Raw(b"[]")


class RpcAnswer(msgspec.Struct):
    """One response object of an endpoint."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _Error(msgspec.Struct):
    code: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a call: the JSON bytes of either a result or an error."""

    result: bytes | None = None
    error: bytes | None = None
    is_ours: bool = False
    """True if the error comes from the gateway, not from the node."""
    reservation: Reservation | None = field(default=None, compare=False, repr=False)
    """The bytes that this answer takes in the gateway's budget, until it is passed on."""

    @property
    def size(self) -> int:
        """Bytes of the result or error."""
        return len(self.result or self.error or b"")

    def to(self, identity: msgspec.Raw) -> bytes:
        """Return the response object with the caller's id."""
        name, value = (b"result", self.result) if self.error is None else (b"error", self.error)
        return b'{"jsonrpc":"2.0","id":%b,"%b":%b}' % (bytes(identity) or b"null", name, value or b"null")


_CALL = msgspec.json.Decoder(GatewayCall)
_CALLS = msgspec.json.Decoder(list[GatewayCall])
_TOLD = msgspec.json.Decoder(RpcAnswer)
_TOLDS = msgspec.json.Decoder(list[RpcAnswer])
_ERROR = msgspec.json.Decoder(_Error)
_encode = msgspec.json.encode


def calls_in(body: bytes) -> GatewayCall | list[GatewayCall]:
    """Decode a request or a batch. Raises msgspec.DecodeError, RecursionError."""
    return _CALLS.decode(body) if body.lstrip()[:1] == b"[" else _CALL.decode(body)


def answers_in(body: bytes) -> RpcAnswer | list[RpcAnswer]:
    """Decode a response or a batch of them. Raises msgspec.DecodeError, RecursionError."""
    return _TOLDS.decode(body) if body.lstrip()[:1] == b"[" else _TOLD.decode(body)


def request(identity: int, method: str, params: bytes) -> bytes:
    """Encode one request."""
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (identity, _encode(method), params)


def failed(message: str, code: int = FAILED) -> Answer:
    """Return an error of the gateway."""
    return Answer(error=_encode({"code": code, "message": message}), is_ours=True)


def safe_error(error: bytes) -> bytes:
    """Return a node's error as the gateway passes it on: redacted, and cut if it is long."""
    if len(error) <= _MOST_ERROR_TEXT:
        text = error.decode(errors="replace")
        if redact(text) == text:
            return error
    try:
        found = msgspec.json.decode(error)
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return _encode({"code": FAILED, "message": "the node gave an error that is not of JSON-RPC"})
    code, message, data = found.get("code"), found.get("message"), found.get("data")
    safe = {"code": code if type(code) is int else FAILED, "message": _safe_text(message)}
    return _encode(safe if data is None else {**safe, "data": _safe_text(data)})


def _safe_text(value: object) -> str:
    text = value if isinstance(value, str) else "" if value is None else _encode(value).decode()
    return redact(text[:_MOST_REDACTED])[:_MOST_ERROR_TEXT]


def _code_and_text(error: bytes) -> tuple[int | None, str]:
    try:
        found = _ERROR.decode(error)
    except (msgspec.DecodeError, RecursionError):
        return None, ""
    return found.code, found.message


def is_refusal(error: bytes) -> bool:
    """Return whether the node's error means that its rate limit is reached."""
    code, text = _code_and_text(error)
    if code in _REFUSALS:
        return not _ABOUT_THE_QUESTION.search(text)
    return code in _MAY_REFUSE and bool(_REFUSED.search(text))


def is_about_the_batch(error: bytes) -> bool:
    """Return whether a call failed because of the batch that it was in."""
    code, text = _code_and_text(error)
    return code in _BATCH_CODES or bool(_TOO_LARGE.search(text))


def lacks_method(error: bytes | None) -> bool:
    """Return whether the error means that the node does not have the method."""
    return error is not None and _code_and_text(error)[0] == -32601


def decoded(value: msgspec.Raw) -> Any:
    """Decode to plain Python values. Raises msgspec.DecodeError, RecursionError."""
    return msgspec.json.decode(value)
