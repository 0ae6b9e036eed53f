"""A node that fails in 40 ways, and in each of them gives back the key of its URL in another form."""

from __future__ import annotations

import base64
import gzip
import html
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

CHAIN_ID = 5150
HEAD = 200
_HONEST = {"eth_chainId": hex(CHAIN_ID), "eth_blockNumber": hex(HEAD), "net_version": str(CHAIN_ID)}
_TAGS = ("latest", "safe", "finalized")

Way = Callable[[str, dict[str, Any]], bytes]
"""Returns the HTTP response to a request, from the endpoint's URL and the call."""


def key_of(number: int) -> str:
    """Return the key in the URL of one way; no two keys share eight characters."""
    return "".join(
        f"{letter}{(number * 7 + place) % 10}{'xyz'[place % 3]}" for place, letter in enumerate("KqWvTbRm")
    ) + (f"{number:03d}end{number:03d}")


def _response(body: bytes | str, status: str = "200 OK", *headers: str) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, f"content-length: {len(data)}", "connection: close", "", ""])
    return head.encode("latin-1", "replace") + data


def _answer(call: dict[str, Any], **members: Any) -> bytes:
    return _response(
        json.dumps({"jsonrpc": "2.0", "id": call["id"], **members}), "200 OK", "content-type: application/json"
    )


def _key(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


FORMS: dict[str, Callable[[str], str]] = {
    "url": str,
    "key": _key,
    "path": lambda url: "/v2/" + _key(url),
    "percent": lambda url: quote(url, safe=""),
    "base64": lambda url: base64.b64encode(url.encode()).decode(),
    "base64 of key": lambda url: base64.urlsafe_b64encode(f"k={_key(url)}".encode()).decode(),
    "upper": str.upper,
    "hex": lambda url: _key(url).encode().hex(),
    "html": lambda url: html.escape(f'<a href="{url}">').replace("/", "&#x2F;"),
    "slashes": lambda url: url.replace("/", "\\/"),
    "cut": lambda url: url[-20:],
    "other host": lambda url: f"https://eth-mainnet.g.alchemy.com/v2/{_key(url)}",
}


def _error(form: str, code: int = -32000, text: str = "{}") -> Way:
    return lambda url, call: _answer(call, error={"code": code, "message": text.format(FORMS[form](url))})


def _status(form: str, status: str, *headers: str) -> Way:
    def way(url: str, call: dict[str, Any]) -> bytes:
        said = FORMS[form](url)
        return _response(f"failed: {said}", status.format(said), *(header.format(said) for header in headers))

    return way


def _result(make: Callable[[str], Any]) -> Way:
    return lambda url, call: _answer(call, result=make(url))


def _block(**fields: Callable[[str], Any]) -> Way:
    zero = {"hash": "0x" + "00" * 32, "number": "0x0", "timestamp": "0x1", "extraData": "0x", "miner": "0x" + "00" * 20}
    return lambda url, call: _answer(call, result=zero | {name: make(url) for name, make in fields.items()})


WAYS: dict[str, Way] = {
    **{f"error with {form}": _error(form) for form in FORMS},
    "error: method missing": _error("url", -32601, "the method does not exist at {}"),
    "error: bad parameters": _error("key", -32602, "key {} may not"),
    "error: not found": _error("percent", -32001, "no such {}"),
    "error: internal": _error("base64", -32603, 'reqwest::Error {{ url: "{}" }}'),
    "error: data": lambda url, call: _answer(call, error={"code": 3, "message": "reverted", "data": url}),
    "error: data object": lambda url, call: _answer(call, error={"code": 3, "message": "", "data": {url: [_key(url)]}}),
    "error: text": lambda url, call: _answer(call, error=f"bad {url}"),
    "error: long": _error("url", text="x" * 150 + "{}" + "y" * 3000),
    "error: with control characters": _error("key", text="\x1b[31m{}\x00\x07"),
    "error: list": lambda url, call: _answer(call, error=[url]),
    "400": _status("url", "400 Bad Request"),
    "401": _status("key", "401 Unauthorized", 'www-authenticate: Basic realm="{}"'),
    "403": _status("path", "403 Forbidden", "x-key: {}"),
    "404": _status("percent", "404 Not Found"),
    "500": _status("base64", "500 Internal Server Error"),
    "503 in the reason phrase": _status("key", "503 no {}"),
    "redirect": _status("url", "302 Found", "location: {}"),
    "permanent redirect": _status("url", "308 Permanent Redirect", "location: {}?again=1"),
    "html": lambda url, call: _response(f"<p>{html.escape(url)}</p>", "200 OK", "content-type: text/html"),
    "no json": lambda url, call: _response(f"{{'url': {url}"),
    "json cut in the key": lambda url, call: _response(json.dumps({"id": call["id"], "result": url})[:-6]),
    "gzip": lambda url, call: _response(gzip.compress(url.encode()), "200 OK", "content-encoding: gzip"),
    "an encoding": lambda url, call: _response("x", "200 OK", f"content-encoding: {_key(url)}"),
    "the result is the url": _result(str),
    "the id is the key": lambda url, call: _response(json.dumps({"jsonrpc": "2.0", "id": _key(url), "result": None})),
    "a block's hash is the key": _block(hash=_key),
    "a block's number is the url": _block(number=str),
    "a block's bytes are the key": _block(extraData=_key, gasLimit=str),
}  # fmt: skip
assert len(WAYS) >= 40


@contextmanager
def echoing() -> Iterator[Callable[[int], str]]:
    """Serve the node; yield the function that returns the URL of the way with a number."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]

    def url_of(number: int) -> str:
        return f"http://user{number}:pw{key_of(number)}@127.0.0.1:{port}/{number}/v2/{key_of(number)}?x=1"

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=_serve, args=(listener.accept()[0], url_of), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield url_of
    finally:
        listener.close()


def _serve(connection: socket.socket, url_of: Callable[[int], str]) -> None:
    with connection, suppress(OSError, ValueError), connection.makefile("rb") as source:
        target = source.readline().split()[1].decode()
        length = 0
        while line := source.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        asked = json.loads(source.read(length))
        number = int(target.split("/")[1])
        calls = asked if isinstance(asked, list) else [asked]
        honest = [_honest(call) for call in calls]
        if all(honest):
            body = json.dumps(honest if isinstance(asked, list) else honest[0])
            connection.sendall(_response(body, "200 OK", "content-type: application/json"))
        else:
            way = list(WAYS.values())[number % len(WAYS)]
            connection.sendall(way(url_of(number), calls[0]))


def _honest(call: dict[str, Any]) -> dict[str, Any] | None:
    result: Any = _HONEST.get(call["method"])
    if call["method"] == "eth_getBlockByNumber" and call["params"][0] in _TAGS:
        result = {"number": hex(HEAD), "hash": "0x" + "11" * 32, "timestamp": "0x1"}
    return None if result is None else {"jsonrpc": "2.0", "id": call["id"], "result": result}
