"""Asks a node for one block of a failed call, with the methods that Cryo uses for the dataset.

Cryo reports neither the HTTP status nor, if several calls failed at once, whose failure it was. The node's answer to
the same kind of request is the call's own, and the client's errors quote the provider.
"""

from __future__ import annotations

from typing import Any

from trace_dagster.engine.base import ExtractRequest
from trace_dagster.errors import TraceError
from trace_dagster.rpc.client import call

_CALLS = {"tracer": "callTracer"}
_STATE = {"tracer": "prestateTracer"}
_CHANGES = {"tracer": "prestateTracer", "tracerConfig": {"diffMode": True}}
_FOUR_BYTES = {"tracer": "4byteTracer"}

_TRACED: dict[str, dict[str, Any]] = {
    "geth_calls": _CALLS,
    "geth_opcodes": _CALLS,  # its own tracer's answers are very large, and few nodes have one without the other
    "four_byte_counts": _FOUR_BYTES,
    **dict.fromkeys(("balance_reads", "code_reads", "nonce_reads", "storage_reads"), _STATE),
    **dict.fromkeys(("geth_balance_diffs", "geth_code_diffs", "geth_nonce_diffs", "geth_storage_diffs"), _CHANGES),
}
"""Tracer of the datasets that are made from debug_traceBlockByNumber."""

_REPLAYED = {
    **dict.fromkeys(("balance_diffs", "code_diffs", "nonce_diffs", "storage_diffs"), "stateDiff"),
    "vm_traces": "vmTrace",
}
"""Trace type of the datasets that are made from trace_replayBlockTransactions."""


def probed(request: ExtractRequest) -> TraceError | None:
    """Return the error of the node's answer for the first block of a request; None if it answers.

    Receipts are not requested: Cryo fetches them in another way from a node that lacks the method.
    """
    try:
        call(request.endpoint, *_call_for(request.dataset.name, hex(request.block_range.start)))
    except TraceError as error:
        return error
    return None


def _call_for(dataset: str, block: str) -> tuple[str, list[Any]]:
    if dataset in _TRACED:
        return "debug_traceBlockByNumber", [block, _TRACED[dataset]]
    if dataset in _REPLAYED:
        return "trace_replayBlockTransactions", [block, [_REPLAYED[dataset]]]
    match dataset:
        case "logs" | "erc20_transfers" | "erc721_transfers":
            return "eth_getLogs", [{"fromBlock": block, "toBlock": block}]
        case "traces" | "contracts" | "native_transfers" | "address_appearances":
            return "trace_block", [block]
    return "eth_getBlockByNumber", [block, dataset == "transactions"]
