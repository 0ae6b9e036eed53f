"""HTTP responses: whole, in parts, compressed, too slow, too large, cut short."""

import gzip
import socket
import threading
import time
import zlib
from contextlib import contextmanager

import pytest

from trace_dagster.errors import NoAnswer, Unavailable
from trace_dagster.rpc import http
from trace_dagster.rpc.pools import Endpoint

ANSWER = b'{"jsonrpc":"2.0","id":1,"result":"' + b"ab" * 300_000 + b'"}'


@contextmanager
def sending(*parts, pause=0.0):
    """Serve an endpoint that sends these parts to every client, and then closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            client, _ = server.accept()
            with client:
                asked = b""
                while not asked.endswith(b"{}"):  # unread bytes would reset the connection
                    asked += client.recv(65536)
                for part in parts:
                    try:
                        client.sendall(part)
                    except OSError:
                        return
                    time.sleep(pause)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Endpoint("node", 1, f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join(10)


def head(*lines):
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""])


def sized(body, *lines):
    return head(b"content-length: %d" % len(body), *lines) + body


CHUNKED = [
    head(b"transfer-encoding: chunked"),
    *[b"%x\r\n%s\r\n" % (len(part), part) for part in (ANSWER[:7], ANSWER[7:], b"")],
]


@pytest.mark.parametrize(
    "parts",
    [
        [sized(ANSWER)],
        [sized(ANSWER)[start : start + 90_001] for start in range(0, len(ANSWER) + 200, 90_001)],
        CHUNKED,
        [sized(gzip.compress(ANSWER), b"content-encoding: gzip")],
        [sized(gzip.compress(ANSWER), b"Content-Encoding: GZip")],
        [sized(zlib.compress(ANSWER), b"content-encoding: deflate")],
        [sized(ANSWER, b"content-encoding: identity")],
        [head(b"connection: close") + ANSWER],
    ],
    ids=["whole", "parts", "chunked", "packed", "Packed", "deflated", "as it is", "to the end"],
)  # fmt: skip
def test_an_answer_arrives_whole(parts):
    with sending(*parts) as endpoint:
        assert http.post(endpoint, b"{}") == (200, ANSWER)


def test_an_endpoint_that_drips_does_not_hold_us(monkeypatch):
    monkeypatch.setattr(http, "WHOLE_SECONDS", 0.5)
    started = time.monotonic()
    with (
        sending(head(b"content-length: 1000"), *[b"x"] * 40, pause=0.1) as endpoint,
        pytest.raises(NoAnswer, match="did not end its answer"),
    ):
        http.post(endpoint, b"{}")
    assert (
        time.monotonic() - started < 30
    )  # sending the 40 parts takes 4 s, and the test waits for the thread that sends them


def test_an_answer_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 100_000)
    with sending(sized(ANSWER)) as endpoint, pytest.raises(Unavailable, match="more than 100000 bytes"):
        http.post(endpoint, b"{}")


def test_an_answer_cut_short_is_none():
    with sending(sized(ANSWER)[:-1]) as endpoint, pytest.raises(NoAnswer):
        http.post(endpoint, b"{}")


def test_a_packed_answer_that_never_unpacks_does_not_hold_us(monkeypatch):
    """The server sends bytes of a gzip header without end.

    They unpack to no content, and the deadline still applies.
    """
    monkeypatch.setattr(http, "WHOLE_SECONDS", 0.5)
    name = b"\x1f\x8b\x08\x08" + bytes(6)
    with (
        sending(head(b"content-length: 1000", b"content-encoding: gzip"), name, *[b"x"] * 40, pause=0.1) as endpoint,
        pytest.raises(NoAnswer, match="did not end its answer"),
    ):
        http.post(endpoint, b"{}")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(ANSWER)[:-20], b"gzip"),
        (b"no gzip", b"gzip"),
        (ANSWER, b"br"),
        (zlib.compress(ANSWER)[:20], b"deflate"),
    ],
    ids=["cut short", "not packed", "another way", "cut short early"],
)
def test_what_cannot_be_unpacked_is_no_answer(body, encoding):
    with (
        sending(sized(body, b"content-encoding: " + encoding)) as endpoint,
        pytest.raises(Unavailable, match="cannot be unpacked"),
    ):
        http.post(endpoint, b"{}")
