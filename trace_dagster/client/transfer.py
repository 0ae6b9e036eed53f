"""The bytes of a streamed answer. One that ends before its end raises; it never looks like a shorter answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import urllib3
from urllib3.exceptions import HTTPError

from trace_dagster.client.service_errors import broken, cut_headers, left_early, no_service
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import Unavailable

_PIECE_BYTES = 1 << 20
MEDIA_TYPES = {
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
"""The media type of each form that is streamed."""

_End = Literal["whole", "broken", "closed"]


class Transfer:
    """One answer that arrives. Iterate over its bytes."""

    def __init__(self, http: ServiceHttp, answer: urllib3.BaseHTTPResponse, form: str, query_id: str) -> None:
        """Take over an answer. Raises InvalidInput if it has another form, Unavailable if its headers broke off."""
        self.query_id = query_id
        self.snapshot: dict[str, Any] = _snapshot(answer)
        """What the answer was made of; shortened if it is long."""
        self.received = 0
        """Bytes up to now."""
        self._http = http
        self._answer = answer
        self._end: _End | None = None
        expected, found = MEDIA_TYPES[form], answer.headers.get("content-type", "")
        if not found.startswith(expected):
            self._leave("broken")
            raise cut_headers(http.host) if expected.startswith(found) else no_service(http.host, answer.status)

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, or fewer at the end.

        Raises Unavailable if the answer breaks off, or was closed before its end; so does each later call.
        """
        if self._end is not None:
            self.check()
            return b""
        pieces, left = [], size
        try:
            while left and (piece := self._answer.read(left)):
                pieces.append(piece)
                left -= len(piece)
        except (HTTPError, OSError, ValueError) as error:
            self._leave("broken")
            raise broken(self._http.host, self.received, error) from None
        except BaseException:
            self.close()
            raise
        self.check()  # another thread may have closed the answer, which then looks like its end
        self.received += size - left
        if left:
            self._end = "whole"
            self._answer.release_conn()
        return b"".join(pieces)

    def check(self) -> None:
        """Raise Unavailable if the answer broke off, or was closed before its end."""
        if self._end == "broken":
            raise broken(self._http.host, self.received)
        if self._end == "closed":
            raise left_early(self._http.host)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """Return the next bytes up to the end."""
        if piece := self.read(_PIECE_BYTES):
            return piece
        raise StopIteration

    def broken(self) -> Unavailable:
        """Return the error for an answer that is not whole, and leave it."""
        self._leave("broken")
        return broken(self._http.host, self.received)

    def close(self) -> None:
        """End the answer: if some of it is left, the service ends the query."""
        if self._end is None:
            self._leave("closed")
            self._http.cancel(self.query_id)

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self, end: _End) -> None:
        self._end = end
        self._answer.close()


def _snapshot(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        found = json.loads(answer.headers.get("trace-snapshot", "{}"))
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}
