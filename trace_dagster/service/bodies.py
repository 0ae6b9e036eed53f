"""Reads the bodies of requests: bounded in bytes and in time, as JSON without doubtful parts."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from trace_dagster.query.exact_json import exact_json
from trace_dagster.service.errors import HttpRefusal

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 15.0
"""A body must have arrived after so long."""
_MOST_DISCARDED = 16 << 20
"""Bytes of a body that is too large that are read all the same: many clients read no answer before they sent all."""
_DISCARD_SECONDS = 3.0
_CLOSE = {"Connection": "close"}

_Model = TypeVar("_Model", bound=BaseModel)


async def read_json(request: Request, model: type[_Model], most_bytes: int = MAX_BODY_BYTES) -> _Model:
    """Return the body of a request as a model. Raises HttpRefusal 408, 413 or 422."""
    return parsed_json(await read_body(request, most_bytes), model)


async def read_body(request: Request, most_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the body of a request. Raises HttpRefusal 408 if it arrives too slowly, 413 if it is too large."""
    if _announced(request) > most_bytes:
        if request.headers.get("expect", "").lower() != "100-continue":
            await _discard(request)
        raise _too_large(most_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > most_bytes:
                    break
    except TimeoutError:
        message = f"the body of the request did not arrive within {BODY_SECONDS:.0f} s: send it at once"
        raise HttpRefusal(408, "slow_request", message, _CLOSE) from None
    except ClientDisconnect:
        raise HttpRefusal(400, "no_body", "the client left before it had sent the body", _CLOSE) from None
    if len(body) > most_bytes:
        await _discard(request)
        raise _too_large(most_bytes)
    return bytes(body)


def parsed_json(body: bytes, model: type[_Model]) -> _Model:
    """Return a JSON text as a model. Raises HttpRefusal 422 if it is none, or ambiguous, or has another form."""
    try:
        text = body.decode()
        document = exact_json(text, constant=_refuse_constant, pairs=_unique)
        if "\\u" in text:
            _require_unicode(document)
    except ValueError as error:  # UnicodeError is one
        raise HttpRefusal(422, "no_json", f"the body must be one JSON object in UTF-8: {_reason(error)}") from None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise HttpRefusal(422, "wrong_form", f"the body has a wrong form: {wrong_member(error.errors())}") from None


def wrong_member(errors: list[Any]) -> str:
    """Return what is wrong with the first member that pydantic refuses, without its value."""
    first = errors[0]
    name = next((str(part) for part in first["loc"] if part not in {"query", "path", "header", "body"}), "")
    text = str(first["msg"])
    return f"{name[:80]!r}: {text[:1].lower()}{text[1:300]}" if name else text[:300]


def _announced(request: Request) -> int:
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


async def _discard(request: Request) -> None:
    """Read on for a moment, so that the client is through with sending when it gets the answer."""
    count = 0
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            while count < _MOST_DISCARDED:
                message = await request.receive()
                count += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _too_large(most_bytes: int) -> HttpRefusal:
    return HttpRefusal(413, "body_too_large", f"the body is larger than {most_bytes} bytes: send less", _CLOSE)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is given twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _require_unicode(document: Any) -> None:
    """Raise ValueError if a text has half of a surrogate pair, which has no UTF-8."""
    waiting = [document]
    while waiting:
        match waiting.pop():
            case str() as text:
                text.encode()
            case list() as items:
                waiting += items
            case dict() as members:
                waiting += [*members, *members.values()]


def _reason(error: ValueError) -> str:
    return "it has a text that is not valid Unicode" if isinstance(error, UnicodeError) else str(error)[:200]
