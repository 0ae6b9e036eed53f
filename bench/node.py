"""A node for benchmarks: answers are made from prepared bytes, so that the client is the bottleneck and not the node.

    .venv/bin/python -m bench.node --blocks 100000 [--latency 0.05] [--rps 25] [--port 8545]

The chain is valid from end to end (header hashes, links, roots), has any number of blocks, and repeats the transactions
of a few hundred devchain blocks: the values that differ from block to block (number, hash, parent, time) are written
into encoded answers. GET /stats returns the number of calls and the CPU time, which give the node's own ceiling in
requests per second. ``--rps`` answers 429 beyond that many calls in any second, as a provider does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any
from urllib.request import urlopen

import msgspec
import uvloop

from trace_dagster.devchain.blocks import DevBlock, encode_header
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID, GENESIS_TIMESTAMP
from trace_dagster.devchain.encode import block_json, receipts_json, traces_json
from trace_dagster.verify.commitments.keccak import keccak

HOST = "127.0.0.1"
TEMPLATES = 1100
"""Devchain blocks that are repeated: a multiple of 11, because every 11th is empty, and more than one proof covers."""

MAX_LOG_BLOCKS = 1000
_NUMBER, _TIME = 0xB10C_0000_0001, 0x7173_0000_0001
_HASH, _PARENT = b"\xb1" * 32, b"\xb2" * 32
"""Placeholders for a block's own values in a template; no other bytes are equal to them."""

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Template:
    """All answers about one block, with placeholders for the values that differ."""

    block: DevBlock
    thin: bytes
    full: bytes
    receipts: tuple[bytes, ...]
    """By transaction."""
    logs: bytes
    traces: bytes
    rows: dict[str, int]


class Chain:
    """Headers of every block; answers are made on request."""

    def __init__(self, blocks: int, templates: int = TEMPLATES, seed: int = 7) -> None:
        self.length = blocks
        source = DevChain(seed, templates)
        self._genesis = _template(source.blocks[0])
        self._templates = [_template(block) for block in source.blocks[11:]]
        self._hashes = [bytes(32)]
        for number in range(blocks):
            header = _header(self.template(number).block, number, self._hashes[number])
            self._hashes.append(keccak(header))

    def template(self, number: int) -> Template:
        """Return the template of block ``number``."""
        return self._templates[(number - 1) % len(self._templates)] if number else self._genesis

    def rows(self, dataset: str, start: int, end: int) -> int:
        """Return the number of rows of ``[start, end)``."""
        return sum(self.template(number).rows[dataset] for number in range(start, end))

    def receipt(self, transaction_hash: str) -> bytes:
        """Return a transaction's receipt, or ``null``.

        Blocks repeat every ``TEMPLATES`` or so, and their transactions with them: the receipt is that of the first such
        block.
        """
        if transaction_hash not in self._mined:
            return b"null"
        number, index = self._mined[transaction_hash]
        return self.fill(self.template(number).receipts[index], number)

    @cached_property
    def _mined(self) -> dict[str, tuple[int, int]]:
        """Return (block, index) of every transaction by its hash in hex."""
        blocks = range(1, min(self.length, len(self._templates) + 1))
        return {
            f"0x{transaction.hash.hex()}": (number, index)
            for number in blocks
            for index, transaction in enumerate(self.template(number).block.transactions)
        }

    def fill(self, template: bytes, number: int) -> bytes:
        """Return an answer for block ``number``."""
        if b"%" not in template:
            return template
        return template % {
            b"n": b"%x" % number,
            b"t": b"%x" % _timestamp(number),
            b"h": self._hashes[number + 1].hex().encode(),
            b"p": self._hashes[number].hex().encode(),
        }


def _template(block: DevBlock) -> Template:
    marked = replace(block, number=_NUMBER, hash=_HASH, parent_hash=_PARENT, timestamp=_TIME)
    receipts = receipts_json(marked)
    traces = traces_json(marked)
    return Template(
        block=block,
        thin=_mark(block_json(marked, full=False)),
        full=_mark(block_json(marked, full=True)),
        receipts=tuple(map(_mark, receipts)),
        logs=_mark([log for receipt in receipts for log in receipt["logs"]])[1:-1],
        traces=_mark(traces),
        rows={
            "blocks": 1,
            "transactions": len(block.transactions),
            "logs": block.log_count,
            "geth_calls": block.frame_count,
        },
    )


def _mark(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"))
    for mark, place in ((f"{_NUMBER:x}", "n"), (f"{_TIME:x}", "t"), (_HASH.hex(), "h"), (_PARENT.hex(), "p")):
        text = text.replace(mark, f"%({place})b")
    return text.encode()


def _timestamp(number: int) -> int:
    return GENESIS_TIMESTAMP + number // 2


def _header(block: DevBlock, number: int, parent: bytes) -> bytes:
    return encode_header(
        number,
        parent_hash=parent,
        timestamp=_timestamp(number),
        **{
            name: getattr(block, name)
            for name in (
                "miner", "state_root", "transactions_root", "receipts_root", "bloom", "gas_used", "extra_data",
                "mix_hash",
            )
        },
    )  # fmt: skip


class _Call(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"null")
    method: str = ""
    params: list[Any] = []


_ONE, _MANY = msgspec.json.Decoder(_Call), msgspec.json.Decoder(list[_Call])


class Node:
    """The methods, the counters, and the limit."""

    def __init__(self, chain: Chain, latency: float, rps: int | None) -> None:
        self.chain = chain
        self.latency = latency
        self._rps = rps
        self._recent: deque[float] = deque()
        self.calls: Counter[str] = Counter()
        self.requests = self.refused = 0
        self._logs = lru_cache(1024)(lambda n: chain.fill(chain.template(n).logs, n))

    def reply(self, body: bytes, now: float) -> tuple[int, bytes]:
        """Return (status, body) of the response to one HTTP request."""
        self.requests += 1
        many = body.lstrip()[:1] == b"["
        calls = _MANY.decode(body) if many else [_ONE.decode(body)]
        if not self._admits(len(calls), now):
            self.refused += 1
            return 429, b'{"error":"too many requests"}'
        answers = [self._answer(call) for call in calls]
        return 200, b"[" + b",".join(answers) + b"]" if many else answers[0]

    def stats(self) -> bytes:
        """Return the counters, and CPU seconds."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        found = {
            "calls": dict(self.calls),
            "requests": self.requests,
            "refused": self.refused,
            "cpu_seconds": used.ru_utime + used.ru_stime,
        }
        return json.dumps(found).encode()

    def _admits(self, calls: int, now: float) -> bool:
        if self._rps is None:
            return True
        while self._recent and self._recent[0] <= now - 1.0:
            self._recent.popleft()
        if len(self._recent) + calls > self._rps:
            return False
        self._recent.extend([now] * calls)
        return True

    def _answer(self, call: _Call) -> bytes:
        self.calls[call.method] += 1
        try:
            result = self._result(call.method, call.params)
        except LookupError:
            error = b'{"code":-32601,"message":"Method not supported"}'
            return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (bytes(call.id), error)
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (bytes(call.id), result)

    def _result(self, method: str, params: list[Any]) -> bytes:
        chain = self.chain
        if method == "eth_chainId":
            return b'"%b"' % hex(CHAIN_ID).encode()
        if method == "eth_blockNumber":
            return b'"%b"' % hex(chain.length - 1).encode()
        if method == "eth_getLogs":
            first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
            parts = [self._logs(n) for n in range(first, min(last, chain.length - 1) + 1)]
            return b"[" + b",".join(filter(None, parts)) + b"]"
        if method == "eth_getTransactionReceipt":
            return chain.receipt(params[0])
        number = chain.length - 1 if not params[0].startswith("0x") else int(params[0], 16)
        if number >= chain.length:
            return b"null"
        template = chain.template(number)
        if method == "eth_getBlockByNumber":
            return chain.fill(template.full if params[1] else template.thin, number)
        if method == "eth_getBlockReceipts":
            return b"[" + chain.fill(b",".join(template.receipts), number) + b"]"
        if method == "debug_traceBlockByNumber":
            return chain.fill(template.traces, number)
        raise LookupError(method)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as far as JSON-RPC clients use it."""

    def __init__(self, node: Node, loop: asyncio.AbstractEventLoop) -> None:
        self._node = node
        self._loop = loop
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            head = self._data[:end]
            found = _LENGTH.search(head)
            stop = end + len(_END) + (int(found[1]) if found else 0)
            if len(self._data) < stop:
                return
            body, self._data = self._data[end + len(_END) : stop], self._data[stop:]
            self._serve(head, body)

    def _serve(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self._write(200, self._node.stats())
            return
        status, answer = self._node.reply(body, self._loop.time())
        if self._node.latency:
            self._loop.call_later(self._node.latency, self._write, status, answer)
        else:
            self._write(status, answer)

    def _write(self, status: int, answer: bytes) -> None:
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(answer))
        self._transport.write(head + answer)


async def serve(node: Node, port: int) -> None:
    """Serve until cancelled; print the URL to stdout when ready."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(node, loop), HOST, port, backlog=4096)
    print(f"http://{HOST}:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@contextmanager
def running(blocks: int, *, latency: float = 0.0, rps: int | None = None) -> Iterator[str]:
    """Run a node in a separate process; yield its URL."""
    command = [sys.executable, "-m", "bench.node", "--blocks", str(blocks), "--latency", str(latency)]
    command += ["--rps", str(rps)] if rps else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stats(url: str) -> dict[str, Any]:
    """Return the counters of a running node."""
    with urlopen(url) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to every request")
    parser.add_argument("--rps", type=int, help="calls a second beyond which 429 is the answer")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    uvloop.run(serve(Node(Chain(options.blocks), options.latency, options.rps), options.port))


if __name__ == "__main__":
    main()
