"""A client of server-sent events over a plain socket, which sees comments and how a transfer ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Event:
    """One block of the stream. A heartbeat has an id and no data."""

    id: str = ""
    kind: str = ""
    data: Any = None
    comment: str = ""


class EventClient:
    """Reads events of a service as they come."""

    def __init__(self, service: Any, query: str = "", *, token: str = "", last_event_id: str = "") -> None:
        self.socket = service.connect()
        headers = {"Host": "localhost", "Accept": "text/event-stream", **service.authorization(token)}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        lines = [f"GET /v1/changes?{query} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._left = b""
        head = self._until(b"\r\n\r\n").decode().lower()
        self.status = int(head.split()[1])
        self.headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.is_whole = False
        """Whether the transfer ended as a whole one does."""

    def __enter__(self) -> EventClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def events(self, seconds: float = 20) -> Iterator[Event]:
        """Yield what comes within some seconds, until the service ends the stream."""
        end, text = time.monotonic() + seconds, ""
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                piece = self._chunk()
            except TimeoutError:
                return
            if not piece:
                self.is_whole = True
                return
            text += piece.decode()
            *blocks, text = text.split("\n\n")
            yield from map(_event, blocks)

    def changes(self, count: int, seconds: float = 20) -> list[Event]:
        """Return so many events with data."""
        found: list[Event] = []
        for event in self.events(seconds):
            if event.data is not None:
                found.append(event)
                if len(found) == count:
                    return found
        raise AssertionError(f"{len(found)} of {count} changes came: {found}")

    def json(self) -> Any:
        """Return the body of an answer that is no stream."""
        size = int(self.headers["content-length"])
        while len(self._left) < size:
            self._receive()
        return json.loads(self._left[:size])

    def _chunk(self) -> bytes:
        size = int(self._until(b"\r\n"), 16)
        while len(self._left) < size + 2:
            self._receive()
        piece, self._left = self._left[:size], self._left[size + 2 :]
        return piece

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._left:
            self._receive()
        found, _, self._left = self._left.partition(mark)
        return found

    def _receive(self) -> None:
        piece = self.socket.recv(65_536)
        if not piece:
            raise ConnectionError("the connection ended in the middle of a transfer")
        self._left += piece


def _event(block: str) -> Event:
    found = Event()
    for line in block.split("\n"):
        name, _, value = line.partition(": ")
        match name:
            case "id":
                found.id = value
            case "event":
                found.kind = value
            case "data":
                found.data = json.loads(value)
            case "":
                found.comment = value
    return found
