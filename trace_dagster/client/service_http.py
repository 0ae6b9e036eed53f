"""Requests to a query service: its address, the token, and further tries."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from trace_dagster.client.connections import connections
from trace_dagster.client.service_errors import REDIRECTS, broken, cut_headers, error_of, no_service, unreachable
from trace_dagster.client.wire import wire_integer
from trace_dagster.errors import InvalidInput, Unavailable

_CONNECT_SECONDS = 10.0
_CANCEL_SECONDS = 2.0
_PIECE_BYTES = 1 << 20
_MOST_JSON_BYTES = 256 << 20
_MOST_ERROR_BYTES = 64 << 10
_MOST_PAUSE_SECONDS = 30.0
"""A service that wants a longer pause before another try gets none: the caller sees the error."""

_MOST_TIMEOUT_SECONDS = 365 * 86_400
"""Sockets take no timeout of more than a few hundred years."""

_TOKEN = re.compile(r"[!-~]{1,512}")

Headers = Callable[[], Mapping[str, str]]
"""Returns the headers of one try, beside those of every request."""


class ServiceHttp:
    """Sends requests to one service. Thread-safe."""

    def __init__(
        self,
        url: str,
        token: str | None,
        retries: int = 0,
        timeout_seconds: float = 3600.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the address of a service. Raises InvalidInput if an argument has a wrong form."""
        self._url = _checked(url)
        self.host = urlsplit(self._url).netloc
        """Host and port, for people."""
        if token is not None and _TOKEN.fullmatch(token) is None:
            raise InvalidInput("the token is none of `trace-lite token new`: it has a space, or another character")
        self._headers = {"user-agent": "trace_dagster"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._retries = _checked_retries(retries)
        self._timeout_seconds = _checked_timeout(timeout_seconds)
        self._sleep = sleep
        self._pool = connections()

    def json(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Headers = dict,
        seconds: float | None = None,
    ) -> Any:
        """Return the JSON of an answer. Raises what :meth:`open` raises, and Unavailable if the answer breaks off."""
        answer = self.open(method, path, body, headers=headers, seconds=seconds)
        try:
            data = self._read(answer, _MOST_JSON_BYTES)
        except BaseException:
            answer.close()  # the service ends what it does for a caller that left
            raise
        answer.release_conn()
        try:
            return json.loads(data) if data else None
        except (ValueError, RecursionError):
            raise no_service(self.host, answer.status) from None

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Headers = dict,
        seconds: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Return an answer of status 200 to 299 whose body is not read yet. ``body`` is sent as JSON.

        The request is sent again if the service has no place for it or is away, after the pause that it asks for.
        ``seconds`` limit the wait for the answer. Raises the error of ``errors.py`` that the service's answer stands
        for, and Unavailable if none arrives.
        """
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        for tried in range(self._retries + 1):
            answer = self._sent(method, path, data, headers, seconds)
            if 200 <= answer.status < 300:
                self._check_end(answer)
                return answer
            pause = _pause(answer, tried)
            error = error_of(self.host, answer.status, self._error_body(answer), _retry_after(answer))
            if tried == self._retries or pause is None or not isinstance(error, Unavailable):
                raise error
            self._sleep(pause)
        raise AssertionError("the last try returns or raises")

    def cancel(self, query_id: str) -> None:
        """End a query of ours. It is no error if that fails: the service notices as well that its caller left."""
        with suppress(HTTPError, OSError, ValueError):
            path = f"{self._url}/v1/queries/{query_id}"
            self._pool.request("DELETE", path, headers=self._headers, timeout=_CANCEL_SECONDS, redirect=False)

    def _sent(
        self, method: str, path: str, data: bytes | None, headers: Headers, seconds: float | None
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; one that only reads once more if the connection was lost before an answer.

        A query is never sent twice: whether the service had begun with it cannot be known. The pool opens
        another connection if the service has closed the old one, or is about to close it.
        """
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=seconds or self._timeout_seconds)
        kind = {} if data is None else {"content-type": "application/json"}
        for may_repeat in (True, False) if method == "GET" else (False,):
            sent = {**self._headers, **kind, **headers()}
            try:
                return self._pool.request(
                    method, self._url + path, body=data, headers=sent, timeout=timeout, preload_content=False,
                    redirect=False, decode_content=False,
                )  # fmt: skip
            except ProtocolError as error:
                if not may_repeat:
                    raise unreachable(self.host, error) from None
            except (HTTPError, OSError, ValueError) as error:
                raise unreachable(self.host, error) from None
        raise AssertionError("the last try returns or raises")

    def _check_end(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Raise Unavailable for an answer whose end nothing marks: it would look whole wherever it broke off."""
        if answer.chunked or answer.length_remaining is not None:
            return
        answer.close()
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise no_service(self.host, answer.status)
        raise cut_headers(self.host)

    def _error_body(self, answer: urllib3.BaseHTTPResponse) -> bytes:
        """Return the body of an error; nothing if it is long, or does not arrive."""
        try:
            data: bytes = answer.read(_MOST_ERROR_BYTES)
        except (HTTPError, OSError, ValueError):
            data = b""
        if len(data) < _MOST_ERROR_BYTES and answer.status not in REDIRECTS:
            answer.drain_conn()
            answer.release_conn()
        else:
            answer.close()
        return data

    def _read(self, answer: urllib3.BaseHTTPResponse, most: int) -> bytes:
        data = bytearray()
        try:
            while piece := answer.read(_PIECE_BYTES):
                data += piece
                if len(data) > most:
                    raise no_service(self.host, answer.status)
        except (HTTPError, OSError, ValueError) as error:
            raise broken(self.host, len(data), error) from None
        return bytes(data)


def _checked(url: str) -> str:
    """Return the URL without a slash at its end. Raises InvalidInput unless it is that of an HTTP server."""
    try:
        parts = urlsplit(url)
        is_fit = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fit = False
    if not is_fit or parts.username is not None or parts.query or parts.fragment or not url.isascii():
        raise InvalidInput("the URL of a query service looks like https://lake.example:8480, and has no password in it")
    return url.rstrip("/")


def _checked_retries(retries: int) -> int:
    found = wire_integer(retries, "retries")
    if found < 0:
        raise InvalidInput("retries is 0 or more")
    return found


def _checked_timeout(seconds: float) -> float:
    with suppress(TypeError, ValueError, ArithmeticError):
        if not isinstance(seconds, bool) and 0 < seconds <= _MOST_TIMEOUT_SECONDS:
            return float(seconds)
    raise InvalidInput(f"timeout_seconds is a number greater than 0, and at most {_MOST_TIMEOUT_SECONDS} (a year)")


def _pause(answer: urllib3.BaseHTTPResponse, tried: int) -> float | None:
    """Return the seconds until another try; None if there shall be none."""
    if answer.status not in {429, 503}:
        return None
    wanted = _retry_after(answer)
    pause = float(1 << tried) if wanted is None else wanted
    return pause if pause <= _MOST_PAUSE_SECONDS else None


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
