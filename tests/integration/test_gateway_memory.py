"""A gateway process before endpoints that send as much as they can: its memory is bounded, and others are served."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.gateways import GatewayProcess, gateway_process, watched
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import Unavailable
from trace_dagster.rpc.client import call
from trace_dagster.rpc.pools import Endpoint

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
LARGE = b'{"jsonrpc":"2.0","id":%d,"result":"' + b"a" * (60 * MIB) + b'"}'
CALLERS = 24
MOST_MIB = 1300
"""Of the gateway's process: its budgets, its cache, and the copies of the answers that are handled at one moment."""

Manner = Callable[[socket.socket, int], None]


@contextmanager
def sending(manner: Manner) -> Iterator[tuple[str, list[int]]]:
    """Serve a node that answers each request by ``manner(connection, id)``; yield its URL and the bytes it sent."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    sent: list[int] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(65536):
                asked = re.search(rb'"id":(\d+)', data)
                before = Counting(connection)
                try:
                    manner(before, int(asked[1]) if asked else 0)  # type: ignore[arg-type]
                finally:
                    sent.append(before.sent)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent
    finally:
        listener.close()


class Counting:
    """A socket that counts what it sent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.sent = 0

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            taken = self._connection.send(view[:MIB])
            self.sent += taken
            view = view[taken:]


def declared(connection: socket.socket, identity: int) -> None:
    body = LARGE % identity
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def chunked(connection: socket.socket, identity: int) -> None:
    body = LARGE % identity
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for start in range(0, len(body), MIB):
        part = body[start : start + MIB]
        connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    connection.sendall(b"0\r\n\r\n")


def declared_without_end(connection: socket.socket, identity: int) -> None:
    body = LARGE % identity
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:-1])
    time.sleep(60)


def chunked_without_end(connection: socket.socket, identity: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    connection.sendall(b"3c00000\r\n" + b"a" * (60 * MIB))
    time.sleep(60)


def endless_chunks(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"100000\r\n" + b"[" * MIB + b"\r\n")


def endless_header(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        connection.sendall(b"a" * MIB)


def endless_headers(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x: a\r\n" * 100_000)


def endless_trailer(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ")
    while True:
        connection.sendall(b"a" * MIB)


def endless_error(connection: socket.socket, identity: int) -> None:
    body = b'{"jsonrpc":"2.0","id":%d,"error":{"code":3,"message":"' % identity + b"a" * (60 * MIB) + b'"}}'
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def huge(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
    while True:
        connection.sendall(b"a" * MIB)


def peak_mib(door: GatewayProcess) -> int:
    status = Path(f"/proc/{door.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of another process's memory: Linux")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("manner", [declared, chunked, declared_without_end,
                                    chunked_without_end, endless_chunks, endless_header, endless_headers,
                                    endless_trailer, endless_error])  # fmt: skip
def test_a_hostile_endpoint_does_not_use_up_the_memory_nor_stop_the_others(manner):
    def ask(number: int) -> str:
        with suppress(OSError, ValueError):
            return json.dumps(door.ask("eth_call", {"data": f"0x{number:04x}"}, "latest", at="hostile/1"))[:20]
        return ""

    with (
        watched(DevChain(7, 3)) as node,
        sending(manner) as (url, _),
        gateway_process(hostile=url, dev=node.url, TRACE_RPC_POOL_HOSTILE_BATCH="1") as door,
        ThreadPoolExecutor(CALLERS) as threads,
    ):
        asked = [threads.submit(_swallow, ask, number) for number in range(CALLERS)]
        time.sleep(0.5)
        started = time.monotonic()
        assert door.ask("eth_blockNumber") == "0x2"
        assert time.monotonic() - started < 30
        deadline = time.monotonic() + 4
        while not all(each.done() for each in asked) and time.monotonic() < deadline:
            time.sleep(0.1)
        peak = peak_mib(door)
        door.process.kill()
    assert peak < MOST_MIB


def _swallow(ask: Callable[[int], str], number: int) -> None:
    with suppress(Exception):
        ask(number)


def test_an_answer_that_is_declared_too_large_is_refused_at_its_header():
    with sending(huge) as (url, sent), gateway_process(hostile=url) as door:
        answer = door.post({"id": 1, "method": "eth_gasPrice"}, at="hostile/1")
        assert "has more than 67108864 bytes" in answer["error"]["message"]
        time.sleep(0.2)
        assert max(sent) < 16 * MIB  # what the sockets' buffers took


def test_an_endpoint_that_is_asked_directly_is_refused_at_its_header_too():
    with sending(huge) as (url, sent), pytest.raises(Unavailable, match="more than 67108864 bytes"):
        call(Endpoint("hostile", 1, url), "eth_gasPrice", [])
    time.sleep(0.2)
    assert max(sent) < 16 * MIB


def test_large_answers_of_an_honest_endpoint_all_arrive():
    with (
        sending(declared) as (url, _),
        gateway_process(honest=url, TRACE_RPC_POOL_HONEST_BATCH="1") as door,
        ThreadPoolExecutor(4) as threads,
    ):
        found = list(
            threads.map(lambda n: len(door.ask("eth_call", {"data": f"0x{n:04x}"}, "latest", at="honest/1")), range(12))
        )
    assert found == [60 * MIB] * 12
