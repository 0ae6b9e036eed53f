"""JSON-RPC over HTTP: the only place where this package sends requests to nodes, with a time limit and a size limit."""

from __future__ import annotations

import base64
import time
import zlib
from contextlib import suppress
from functools import cache
from urllib.parse import unquote, urlsplit

import urllib3

from trace_dagster.errors import InvalidInput, NoAnswer, Unavailable
from trace_dagster.rpc.pools import Endpoint, variable_of

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
WHOLE_SECONDS = 60.0
"""Longest time for a whole response, in seconds."""

GATEWAY_SECONDS = 3600.0
"""The same through a gateway, in seconds: there a request waits for the endpoint's rate limit before its own
time starts.
"""

_PART_BYTES = 1 << 20
"""Largest part of a response that is read in one step."""
_ANY_HEADER = 47
"""zlib window bits that detect gzip or deflate from the first bytes."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024


def post(endpoint: Endpoint, body: bytes, *, read_seconds: float = READ_SECONDS) -> tuple[int, bytes]:
    """Send a POST request and return (status, body) of the response.

    Raises NoAnswer if the connection fails or no whole response arrives within WHOLE_SECONDS (GATEWAY_SECONDS through a
    gateway), Unavailable if it is larger than MAX_ANSWER_BYTES or a 429, InvalidInput if the API key is refused.
    """
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=GATEWAY_SECONDS if endpoint.gateway_url else read_seconds)
    try:
        answer = _connections().request(
            "POST", _target(endpoint.address), body=body, headers=_headers(endpoint.address), timeout=timeout,
            preload_content=False,
        )  # fmt: skip
        try:
            data = _read(answer, endpoint, GATEWAY_SECONDS if endpoint.gateway_url else WHOLE_SECONDS)
        finally:
            answer.release_conn()
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise NoAnswer(
            f"rpc endpoint {endpoint.name} does not answer: check {variable_of(endpoint.pool)} and the node",
            reason=type(error).__name__,
        ) from None
    if answer.status in {401, 403}:
        raise InvalidInput(
            f"rpc endpoint {endpoint.name} refuses its key: check {variable_of(endpoint.pool)}", http=answer.status
        )
    if answer.status == 429:
        raise Unavailable(
            f"rpc endpoint {endpoint.name} refuses what is beyond its limit:"
            f" set {variable_of(endpoint.pool, 'RPS')} to it",
            http=answer.status,
        )
    return answer.status, data


def _read(answer: urllib3.BaseHTTPResponse, endpoint: Endpoint, seconds: float) -> bytes:
    """Read the body within a time and a size limit, so that an endpoint that sends slowly cannot block this thread."""
    deadline = time.monotonic() + seconds
    parts, size = [], 0
    if _is_too_large(answer):
        answer.close()
        raise _too_large(endpoint)
    while part := answer.read1(_PART_BYTES, decode_content=False):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            answer.close()
            raise _too_large(endpoint)
        if time.monotonic() > deadline:
            answer.close()
            raise NoAnswer(f"rpc endpoint {endpoint.name} did not end its answer in {seconds:.0f} s")
    return _unpacked(b"".join(parts), answer.headers.get("content-encoding", "").lower(), endpoint)


def _is_too_large(answer: urllib3.BaseHTTPResponse) -> bool:
    """Return whether the declared length of a body is over the limit, so that nothing of it is read."""
    declared = answer.headers.get("content-length", "")
    return declared.isdecimal() and (len(declared) > 18 or int(declared) > MAX_ANSWER_BYTES)


def _too_large(endpoint: Endpoint) -> Unavailable:
    return Unavailable(f"rpc endpoint {endpoint.name} answered with more than {MAX_ANSWER_BYTES} bytes")


def _unpacked(data: bytes, encoding: str, endpoint: Endpoint) -> bytes:
    """Decompress a body that the endpoint compressed without a request for it, within the size limit.

    The whole body must have arrived, so that slow sending cannot block this thread here.
    """
    if encoding in {"", "identity"}:
        return data
    if encoding in {"gzip", "x-gzip", "deflate"}:
        with suppress(zlib.error):
            unpacker = zlib.decompressobj(wbits=_ANY_HEADER)
            found = unpacker.decompress(data, MAX_ANSWER_BYTES)
            if unpacker.eof:
                return found
    raise Unavailable(f"rpc endpoint {endpoint.name} answered with something packed that cannot be unpacked")


@cache
def _connections() -> urllib3.PoolManager:
    return urllib3.PoolManager(num_pools=32, maxsize=16, retries=False)


@cache
def _target(url: str) -> str:
    """Return the URL without its user, which is sent as a header."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else str(parts.hostname)
    port = f":{parts.port}" if parts.port else ""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}{query}"


@cache
def _headers(url: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "user-agent": "trace-dagster"}
    parts = urlsplit(url)
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return headers
