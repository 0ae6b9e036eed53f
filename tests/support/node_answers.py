"""Counts the rows of a dataset with JSON-RPC requests to a node, independently of any engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rpc = Callable[..., Any]


def node_rows(rpc: Rpc, dataset: str, start: int, end: int) -> int:
    """Return the number of rows of ``dataset`` in blocks ``[start, end)``. ``rpc(method, *params)`` calls the node."""
    count = _COUNTS[dataset]
    return sum(count(rpc, hex(number)) for number in range(start, end))


def frames(trace: dict[str, Any]) -> int:
    """Return the number of call frames in a callTracer result, including the root."""
    return 1 + sum(frames(call) for call in trace.get("calls") or [])


def _transactions(rpc: Rpc, number: str) -> int:
    return len(rpc("eth_getBlockByNumber", number, False)["transactions"])


def _logs(rpc: Rpc, number: str) -> int:
    return len(rpc("eth_getLogs", {"fromBlock": number, "toBlock": number}))


def _geth_calls(rpc: Rpc, number: str) -> int:
    traces = rpc("debug_traceBlockByNumber", number, {"tracer": "callTracer"})
    return sum(frames(trace["result"]) for trace in traces)


_COUNTS: dict[str, Callable[[Rpc, str], int]] = {
    "blocks": lambda rpc, number: int(rpc("eth_getBlockByNumber", number, False) is not None),
    "transactions": _transactions,
    "logs": _logs,
    "geth_calls": _geth_calls,
}
