"""The bytes of a streamed answer. One that ends before its end raises; it never looks like a shorter answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from trace_dagster.client.service_errors import broken, no_service
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import Unavailable

_PIECE_BYTES = 1 << 20
_MEDIA_TYPES = {
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}


class Transfer:
    """One answer that arrives."""

    def __init__(self, http: ServiceHttp, answer: urllib3.BaseHTTPResponse, form: str, query_id: str) -> None:
        """Take over an answer. Raises InvalidInput if it has another form, Unavailable if nothing marks its end."""
        self.query_id = query_id
        self.snapshot: dict[str, Any] = _snapshot(answer)
        """What the answer was made of; shortened if it is long."""
        self.received = 0
        """Bytes up to now."""
        self._http = http
        self._answer = answer
        self._is_open = True
        if not answer.headers.get("content-type", "").startswith(_MEDIA_TYPES[form]):
            self._leave()
            raise no_service(http.host, answer.status)
        if not {"transfer-encoding", "content-length"} & {name.lower() for name in answer.headers}:
            self._leave()
            raise Unavailable(f"a proxy before {http.host} removed the mark of an answer's end: ask without it")

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, or fewer at the end. Raises Unavailable if the answer breaks off."""
        if not self._is_open:
            return b""
        pieces, left = [], size
        try:
            while left and (piece := self._answer.read(left)):
                pieces.append(piece)
                left -= len(piece)
        except (HTTPError, OSError, ValueError) as error:
            self._leave()
            raise broken(self._http.host, self.received, error) from None
        except BaseException:
            self.close()
            raise
        self.received += size - left
        if left:
            self._is_open = False
            self._answer.release_conn()
        return b"".join(pieces)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes up to the end."""
        while piece := self.read(_PIECE_BYTES):
            yield piece

    def broken(self) -> Unavailable:
        """Return the error for an answer that is not whole, and leave it."""
        self._leave()
        return broken(self._http.host, self.received)

    def close(self) -> None:
        """End the answer: if some of it is left, the service ends the query."""
        if self._is_open:
            self._leave()
            self._http.cancel(self.query_id)

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self) -> None:
        self._is_open = False
        self._answer.close()


def _snapshot(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        found = json.loads(answer.headers.get("trace-snapshot", "{}"))
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}
