"""Connections of clients: how long they may take, how much they may send, and how a transfer is broken off.

uvicorn limits neither the size of a request's headers nor the time until they have arrived, and closes a connection
only after the client took all that was written.
"""

from __future__ import annotations

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from trace_dagster.service.errors import HttpRefusal, error_response

MAX_CONNECTIONS = 1000
MAX_HEADER_BYTES = 64 << 10
REQUEST_SECONDS = 20.0
"""A request must have arrived after so long."""
STUCK_SECONDS = 30.0
"""A connection whose client takes nothing for so long is ended."""
MAX_AHEAD = 16
"""Requests that a client may send before the first of them is answered."""
_LOOK_SECONDS = 1.0
_READ_ON_SECONDS = 2.0
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
_SCOPE_KEY = "trace.abort"


def break_off(scope: Scope) -> None:
    """End the connection of a request at once, so that the client cannot take what it got for a whole answer.

    Raises RuntimeError if another server than ours has the connection; it then closes it.
    """
    abort = scope.get(_SCOPE_KEY)
    if abort is None:
        raise RuntimeError("the answer broke off")
    abort()


class BoundedConnection(HttpToolsProtocol):
    """One connection. It is ended if it is one too many, sends too slowly or too much, or takes nothing."""

    _asking_since: float | None = None
    """Since when a request arrives; None between requests, and while one is answered."""
    _overhead = 0
    """Bytes of the request that arrives which are not of its body."""
    _unsent = 0
    _stuck_since = 0.0
    _is_refused = False
    _has_headers = False
    """Whether the headers of the request that arrives are complete."""
    _reason = HttpRefusal(400, "no_http", "this is not a valid HTTP/1.1 request")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it."""
        super().connection_made(transport)
        self._cycles: list[RequestResponseCycle] = []
        self._asking_since = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(
                HttpRefusal(503, "too_many_connections", "the service has no connection left: try again later")
            )
        self._look()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and count those that are not of a body."""
        if self._is_refused or self.transport.is_closing():
            return
        if self._asking_since is None:
            self._asking_since = self.loop.time()
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > MAX_HEADER_BYTES and not self._is_refused and not self.transport.is_closing():
            message = (
                f"a request has at most {MAX_HEADER_BYTES} bytes beside its body: send fewer headers, or larger chunks"
            )
            self._refuse(HttpRefusal(431, "headers_too_large", message))

    def on_message_begin(self) -> None:
        """Let the request know how to end its connection."""
        super().on_message_begin()
        self._has_headers = False
        self.scope[_SCOPE_KEY] = self.transport.abort  # type: ignore[literal-required]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What follows a body is none: a proxy may check or replace headers, and pass this on."""
        if not self._has_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer, or let the request wait for the one before it: a client may send some ahead.

        The parser takes the body of a request with an upgrade for another protocol: then it is refused.
        """
        self._has_headers = True
        if self.parser.should_upgrade() and _BODY_HEADERS & {name for name, _ in self.headers}:
            message = "the service speaks HTTP/1.1 only: send the request without Upgrade, as by curl --http1.1"
            self._reason = HttpRefusal(400, "no_upgrade", message)
            raise ValueError(message)
        super().on_headers_complete()
        self._cycles = self._open_cycles()
        self._cycles.append(self.cycle)
        if len(self._cycles) > MAX_AHEAD:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: the request has arrived."""
        self._asking_since = None
        self._overhead = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that its client left; uvicorn tells only the last one that arrived."""
        self._leave(self._open_cycles())
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the shape of our errors."""
        self._refuse(self._reason)

    def _open_cycles(self) -> list[RequestResponseCycle]:
        return [each for each in self._cycles if not each.response_complete]

    @staticmethod
    def _leave(cycles: list[RequestResponseCycle]) -> None:
        """Let nothing more be sent for these requests."""
        for cycle in cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def _look(self) -> None:
        """End the connection if its client is too slow; else look again later."""
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if self.transport.is_closing() and not unsent:
            return
        if unsent == 0 or unsent != self._unsent:
            self._unsent, self._stuck_since = unsent, now
        is_slow = self._asking_since is not None and now - self._asking_since > REQUEST_SECONDS
        if is_slow or now - self._stuck_since > STUCK_SECONDS:
            self.transport.abort()
            return
        self.loop.call_later(_LOOK_SECONDS, self._look)

    def _refuse(self, refusal: HttpRefusal) -> None:
        """Answer, and read on for a moment: a client that still sends would lose the answer of a closed connection.

        If another answer is under way, this one would become a part of it: then the connection is ended.
        """
        self._is_refused = True
        cycles = self._open_cycles()
        if len(cycles) > 1 or any(each.response_started for each in cycles):
            self.transport.abort()
            return
        self._leave(cycles)
        response = error_response(refusal)
        lines = [STATUS_LINE[refusal.status], *(b"%s: %s\r\n" % each for each in response.raw_headers)]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", bytes(response.body)]))
        self.transport.write_eof()
        self.loop.call_later(_READ_ON_SECONDS, self.transport.abort)
