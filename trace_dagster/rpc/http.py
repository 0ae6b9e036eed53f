"""JSON-RPC over HTTP: the only place where this package sends requests to nodes, with a time limit and a size limit."""

from __future__ import annotations

import base64
import time
from functools import cache
from urllib.parse import unquote, urlsplit

import urllib3

from trace_dagster.errors import InvalidInput, NoAnswer, TraceError, Unavailable
from trace_dagster.rpc.decompression import CompressionError, Decompressor
from trace_dagster.rpc.pools import Endpoint, variable_of
from trace_dagster.rpc.provider_errors import AnswerTooLarge

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
WHOLE_SECONDS = 60.0
"""Longest time for a whole response, in seconds."""

GATEWAY_SECONDS = 3600.0
"""The same through a gateway, in seconds: there a request waits for the endpoint's rate limit before its own
time starts.
"""

TIP_SECONDS = 5.0
"""The same for calls about the newest blocks, also through a gateway, which ends them itself a little earlier."""

TIP_CALLS = 8
"""Calls of the largest request to which TIP_SECONDS applies; larger ones are not about the newest block alone."""

_PART_BYTES = 1 << 20
"""Largest part of a response that is read in one step."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Largest body of a response, also after decompression."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})


def post(endpoint: Endpoint, body: bytes, *, read_seconds: float = READ_SECONDS, calls: int = 1) -> tuple[int, bytes]:
    """Send a POST request that holds so many ``calls``, and return (status, body) of the response.

    Raises NoAnswer if the connection fails or no whole response arrives within WHOLE_SECONDS (GATEWAY_SECONDS through a
    gateway, TIP_SECONDS for up to TIP_CALLS at the tip), AnswerTooLarge if it has more than MAX_ANSWER_BYTES,
    Unavailable if it cannot be decompressed, InvalidInput if it is a redirect.
    """
    connect_seconds, read_seconds, whole_seconds = _times(endpoint, read_seconds, calls)
    timeout = urllib3.Timeout(connect=connect_seconds, read=read_seconds)
    try:
        answer = _sent(endpoint, body, timeout)
        try:
            data = _read(answer, endpoint, whole_seconds)
        except TraceError:
            answer.close()  # the rest of the body is not read
            raise
        finally:
            answer.release_conn()
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise NoAnswer(
            f"rpc endpoint {endpoint.name} does not answer: check {variable_of(endpoint.pool)} and the node",
            reason=type(error).__name__,
        ) from None
    if answer.status in REDIRECTS:
        raise InvalidInput(
            f"rpc endpoint {endpoint.name} {redirected(endpoint, answer.headers.get('location', ''))}",
            http=answer.status,
        )
    return answer.status, data


def _times(endpoint: Endpoint, read_seconds: float, calls: int) -> tuple[float, float, float]:
    """Return the seconds to connect, to wait for data, and for the whole response."""
    if endpoint.is_at_tip and calls <= TIP_CALLS:
        return TIP_SECONDS, min(read_seconds, TIP_SECONDS), TIP_SECONDS
    if endpoint.gateway_url:
        return CONNECT_SECONDS, GATEWAY_SECONDS, GATEWAY_SECONDS
    return CONNECT_SECONDS, read_seconds, WHOLE_SECONDS


def _sent(endpoint: Endpoint, body: bytes, timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
    """Send a request and return the response, whose body is not read yet.

    Send it again if the connection was lost before a response: the server may have closed it while it was idle.
    """
    for may_repeat in (True, False):
        try:
            return _connections().request(
                "POST", _target(endpoint.address), body=body, headers=_headers(endpoint.address), timeout=timeout,
                preload_content=False, redirect=False,
            )  # fmt: skip
        except urllib3.exceptions.ProtocolError:
            if not may_repeat:
                raise
    raise AssertionError("the second try returns or raises")


def redirected(endpoint: Endpoint, location: str) -> str:
    """Return what a redirect to ``location`` means for the endpoint, without any part of a URL but a domain's name."""
    variable = variable_of(endpoint.pool)
    try:
        old, new = urlsplit(endpoint.url), urlsplit(location)
        is_upgrade = old.scheme == "http" and new.scheme == "https" and new.hostname == old.hostname
        host = new.hostname or old.hostname or ""
    except ValueError:
        return f"redirects to another address: correct {variable}"
    if is_upgrade or not location:
        return f"redirects to https: let its URL in {variable} begin with https"
    domain = ".".join(host.split(".")[-2:])
    of = f" of {domain}" if domain.replace(".", "").replace("-", "").isalnum() and not domain[-1].isdigit() else ""
    return f"redirects to another address{of}: write in {variable} where it is served"


def _read(answer: urllib3.BaseHTTPResponse, endpoint: Endpoint, seconds: float) -> bytes:
    """Read the body within a time and a size limit, so that an endpoint that sends slowly cannot block this thread."""
    deadline = time.monotonic() + seconds
    parts, size = [], 0
    if _is_too_large(answer):
        raise _too_large(endpoint)
    unpacker = _decompressor(answer, endpoint)
    while part := answer.read1(_PART_BYTES, decode_content=False):
        if unpacker is not None:
            part = _unpacked(unpacker, part, endpoint)
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise _too_large(endpoint)
        if time.monotonic() > deadline:
            raise NoAnswer(f"rpc endpoint {endpoint.name} did not end its answer in {seconds:.0f} s")
    if unpacker is not None and answer.headers.get("content-length") != "0":
        _unpacked(unpacker, None, endpoint)
    return b"".join(parts)


def _is_too_large(answer: urllib3.BaseHTTPResponse) -> bool:
    """Return whether the declared length of a body is over the limit, so that nothing of it is read."""
    declared = answer.headers.get("content-length", "")
    return declared.isdecimal() and (len(declared) > 18 or int(declared) > MAX_ANSWER_BYTES)


def _too_large(endpoint: Endpoint) -> AnswerTooLarge:
    return AnswerTooLarge(f"rpc endpoint {endpoint.name} answered with more than {MAX_ANSWER_BYTES} bytes")


def _decompressor(answer: urllib3.BaseHTTPResponse, endpoint: Endpoint) -> Decompressor | None:
    """Return what decompresses a body that the endpoint compressed without a request for it, None if it did not."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return None
    try:
        return Decompressor(encoding, MAX_ANSWER_BYTES)
    except CompressionError:
        raise _not_unpacked(endpoint) from None


def _unpacked(unpacker: Decompressor, part: bytes | None, endpoint: Endpoint) -> bytes:
    """Return what a part contains; None is the end."""
    try:
        if part is not None:
            return unpacker.feed(part)
        unpacker.end()
    except CompressionError:
        raise _not_unpacked(endpoint) from None
    return b""


def _not_unpacked(endpoint: Endpoint) -> Unavailable:
    return Unavailable(f"rpc endpoint {endpoint.name} answered with something packed that cannot be unpacked")


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
