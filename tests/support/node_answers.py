"""What a node itself says a dataset holds: row counts from plain JSON-RPC, independent of any engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rpc = Callable[..., Any]


def node_rows(rpc: Rpc, dataset: str, start: int, end: int) -> int:
    """Rows of ``dataset`` in blocks ``[start, end)``; ``rpc(method, *params)`` asks the node."""
    count = _COUNTS[dataset]
    return sum(count(rpc, hex(number)) for number in range(start, end))


def frames(trace: dict[str, Any]) -> int:
    """Call frames in a callTracer result, the root one included."""
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
