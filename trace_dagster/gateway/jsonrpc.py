"""JSON-RPC as bytes: requests of callers and responses of endpoints, copied without decoding params and results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from trace_dagster.gateway.byte_budget import Reservation
from trace_dagster.messages.provider_words import cut_at_word
from trace_dagster.messages.redaction import redact
from trace_dagster.rpc import provider_errors
from trace_dagster.rpc.provider_errors import code_and_text, without_mark

FAILED = -32000
"""Code of errors that the gateway itself gives. Engines return it at once; with other codes they wait and retry."""

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


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a call: the JSON bytes of either a result or an error."""

    result: bytes | None = None
    error: bytes | None = None
    is_ours: bool = False
    """True if the error comes from the gateway, not from the node."""
    is_too_large: bool = False
    """True if the error is that the node's answer is too large."""
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
_encode = msgspec.json.encode


def calls_in(body: bytes) -> GatewayCall | list[GatewayCall]:
    """Decode a request or a batch. Raises msgspec.DecodeError, RecursionError."""
    return _CALLS.decode(body) if body.lstrip()[:1] == b"[" else _CALL.decode(body)


def answers_in(body: bytes) -> RpcAnswer | list[RpcAnswer]:
    """Decode a response or a batch of them. Raises msgspec.DecodeError, RecursionError."""
    body = without_mark(body)
    return _TOLDS.decode(body) if body.lstrip()[:1] == b"[" else _TOLD.decode(body)


def request(identity: int, method: str, params: bytes) -> bytes:
    """Encode one request."""
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (identity, _encode(method), params)


def failed(message: str, code: int = FAILED, *, reason: str = "") -> Answer:
    """Return an error of the gateway; ``reason`` is for callers that act on it."""
    data = {"data": {"reason": reason}} if reason else {}
    error = _encode({"code": code, "message": message, **data})
    return Answer(error=error, is_ours=True, is_too_large=reason == provider_errors.TOO_LARGE)


def said_by_node(code: int, message: str) -> Answer:
    """Return the error of a node that said something in another form than JSON-RPC."""
    return Answer(error=_encode({"code": code, "message": message}))


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
        said = f"; it says: {_safe_text(found)}" if found else ""
        return _encode({"code": FAILED, "message": f"the node gave an error that is not of JSON-RPC{said}"})
    code, message, data = found.get("code"), found.get("message"), found.get("data")
    safe = {"code": code if type(code) is int else FAILED, "message": _safe_text(message)}
    return _encode(safe if data is None else {**safe, "data": _safe_text(data)})


def _safe_text(value: object) -> str:
    text = value if isinstance(value, str) else "" if value is None else _encode(value).decode()
    return cut_at_word(redact(text[:_MOST_REDACTED]), _MOST_ERROR_TEXT)


def code_and_message(error: bytes | None) -> tuple[int | None, str]:
    """Return the code and the message of an encoded error, which may have any shape."""
    try:
        return code_and_text(msgspec.json.decode(error or b"null"))
    except (msgspec.DecodeError, RecursionError):
        return None, ""


def is_refusal(error: bytes) -> bool:
    """Return whether the node's error means that its rate limit is reached."""
    return provider_errors.is_refusal(*code_and_message(error))


def is_about_the_batch(error: bytes) -> bool:
    """Return whether a call failed because of the batch that it was in."""
    return provider_errors.is_about_the_batch(*code_and_message(error))


def lacks_method(error: bytes | None) -> bool:
    """Return whether the error means that the node does not offer the method."""
    return error is not None and provider_errors.lacks_method(*code_and_message(error))


def decoded(value: msgspec.Raw) -> Any:
    """Decode to plain Python values. Raises msgspec.DecodeError, RecursionError."""
    return msgspec.json.decode(value)
