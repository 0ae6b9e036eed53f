"""The table of faults: the name of each, what it does, and the methods that it applies to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from trace_dagster.chaos_rpc import blocks, forms, rows, transport, values
from trace_dagster.chaos_rpc.shapes import (
    BLOCKS,
    BY_NUMBER,
    LISTS,
    OBJECTS,
    WITH_LOGS,
    WITH_ROWS,
    Answer,
    FaultChange,
    FaultContext,
    Request,
)
from trace_dagster.chaos_rpc.transport import NodeReply
from trace_dagster.errors import InvalidInput

_Methods = frozenset[str] | None


@dataclass(frozen=True, slots=True)
class ChaosFault:
    """One kind of incorrect answer. At most one of ``change``, ``refuse`` and ``spoil`` is set; without any of
    them, the name alone selects the behaviour.
    """

    name: str
    kind: Literal["transport", "answer", "error"]
    description: str
    methods: _Methods = None
    """The methods that it applies to; None for all."""
    change: FaultChange | None = None
    """Returns the incorrect answer object."""
    refuse: Callable[[Any, Random], NodeReply] | None = None
    """Returns an HTTP response that is sent instead of a request to the node."""
    spoil: Callable[[NodeReply, Random], NodeReply] | None = None
    """Returns the node's HTTP response, damaged."""
    question: Callable[[Request, Random], Request | None] | None = None
    """Returns a second request, sent after the honest answer; its answer is the context of ``change``."""
    of_fork: bool = False
    """True if the second request goes to the fork when there is one."""

    def applies_to(self, method: object) -> bool:
        """Return whether requests of this method can get this fault."""
        return self.methods is None or method in self.methods

    def tell(self, request: Request, answer: Answer, rng: Random, context: FaultContext) -> Answer:
        """Return the incorrect answer, or the honest one if this fault cannot change it."""
        if self.change is None:
            return answer
        try:
            return self.change(request, answer, rng, context)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
            return answer  # an answer of an unknown shape is not changed


def _error(code: int, message: str) -> FaultChange:
    def change(_request: Request, answer: Answer, _rng: Random, _context: FaultContext) -> Answer:
        kept = {key: value for key, value in answer.items() if key not in {"result", "error"}}
        return {**kept, "error": {"code": code, "message": message}}

    return change


_TRANSPORT = (
    ChaosFault("http_429", "transport", "Status 429 with a JSON-RPC error 429.", refuse=transport.http_429),
    ChaosFault("http_429_text", "transport", "Status 429 with plain text.", refuse=transport.http_429_text),
    ChaosFault("http_500", "transport", "Status 500 with plain text.", refuse=transport.http_500),
    ChaosFault(
        "http_500_valid_body",
        "transport",
        "Status 500 with the right answer as its body.",
        spoil=transport.http_500_valid_body,
    ),
    ChaosFault("reset", "transport", "The connection is reset instead of an answer."),
    ChaosFault("stall", "transport", "The answer is held for an hour (--stall-seconds)."),
    ChaosFault("delay", "transport", "The answer comes 2 s late (--delay-seconds)."),
    ChaosFault("malformed_json", "transport", "The body is cut short: no JSON.", spoil=transport.malformed_json),
    ChaosFault("wrong_id", "transport", "The right answer under another JSON-RPC id.", change=values.wrong_id),
)

_ANSWERS = (
    ChaosFault("null_result", "answer", "The result is null.", change=values.null_result),
    ChaosFault("empty_list", "answer", "No rows; of a block, no transactions.", WITH_ROWS, rows.empty_list),
    ChaosFault("truncate_head", "answer", "The first rows are missing.", WITH_ROWS, rows.truncate_head),
    ChaosFault(
        "truncate_middle", "answer", "Rows between the first and the last are missing.", WITH_ROWS, rows.truncate_middle
    ),
    ChaosFault("truncate_tail", "answer", "The last rows are missing.", WITH_ROWS, rows.truncate_tail),
    ChaosFault("duplicate_rows", "answer", "Some rows come twice.", WITH_ROWS, rows.duplicate_rows),
    ChaosFault("reorder_rows", "answer", "The rows are in another order.", WITH_ROWS, rows.reorder_rows),
    ChaosFault(
        "neighbour_rows",
        "answer",
        "The answer about the block before or after.",
        BY_NUMBER,
        blocks.neighbour_rows,
        question=blocks.neighbour,
    ),
    ChaosFault(
        "neighbour_rows_relabelled",
        "answer",
        "The same, under the block number that was asked for.",
        BY_NUMBER - {"debug_traceBlockByNumber", "trace_replayBlockTransactions"},
        blocks.neighbour_rows_relabelled,
        question=blocks.neighbour,
    ),
    ChaosFault(
        "stale_fork",
        "answer",
        "The answer of a fork: --fork-upstream's, or a made-up one without the first transaction.",
        WITH_ROWS,
        blocks.stale_fork,
        question=lambda request, _: request,
        of_fork=True,
    ),
    ChaosFault(
        "flip_byte",
        "answer",
        "One byte of a hash, address, topic, bloom or data is another.",
        OBJECTS | {"eth_call", "eth_getCode", "eth_getStorageAt"},
        values.flip_byte,
    ),
    ChaosFault(
        "flip_digit",
        "answer",
        "One quantity is one more or one less: gas, value, status, index, nonce, timestamp, ...",
        OBJECTS | {"eth_blockNumber", "eth_getBalance", "eth_getTransactionCount"},
        values.flip_digit,
    ),
    ChaosFault("removed_logs", "answer", "Some logs say removed: true.", WITH_LOGS, values.removed_logs),
    ChaosFault(
        "null_hashes", "answer", "Some logs have neither block nor transaction hash.", WITH_LOGS, values.null_hashes
    ),
    ChaosFault("drop_field", "answer", "One key is missing somewhere.", OBJECTS, values.drop_field),
    ChaosFault(
        "invent_transaction_type",
        "answer",
        "A block's first transaction has a type that nobody knows.",
        forms.OF_TRANSACTIONS,
        forms.invent_type,
    ),
    ChaosFault(
        "invent_receipt_type",
        "answer",
        "A block's first receipt has a type that nobody knows.",
        forms.OF_RECEIPTS,
        forms.invent_type,
    ),
    ChaosFault(
        "invent_type",
        "answer",
        "A block's first transaction and its receipt have a type that nobody knows.",
        forms.OF_BOTH,
        forms.invent_type,
    ),
    ChaosFault(
        "invent_type_and_value",
        "answer",
        "The same, and the transaction has another value.",
        forms.OF_BOTH,
        forms.invent_type_and_value,
    ),
    ChaosFault(
        "drop_type", "answer", "Transactions and receipts do not say their type.", forms.OF_BOTH, forms.drop_type
    ),
    ChaosFault(
        "add_header_member",
        "answer",
        "The header has a member that nobody knows.",
        BLOCKS,
        forms.add_header_member,
    ),
    ChaosFault(
        "add_header_member_and_gas",
        "answer",
        "The same, and the gas used is another.",
        BLOCKS,
        forms.add_header_member_and_gas,
    ),
    ChaosFault(
        "wrong_chain_id",
        "answer",
        "Another chain's id.",
        frozenset({"eth_chainId", "net_version"}),
        values.wrong_chain_id,
    ),
)

_NAMES_A_BLOCK = WITH_ROWS | {
    "eth_call",
    "eth_getBalance",
    "eth_getCode",
    "eth_getStorageAt",
    "eth_getTransactionCount",
}


def _errors() -> tuple[ChaosFault, ...]:
    told: tuple[tuple[str, int, str, _Methods], ...] = (
        ("error_32000_header_not_found", -32000, "header not found", _NAMES_A_BLOCK),
        ("error_32005_limit", -32005, "limit exceeded", None),
        ("error_32601", -32601, "Method not supported", None),
        ("error_32602_block_range_too_large", -32602, "block range too large", frozenset({"eth_getLogs"})),
        ("error_32602_not_found", -32602, "Block requested not found", _NAMES_A_BLOCK),
        ("error_32603_overloaded", -32603, "overloaded, try again later", None),
        ("error_32603_response_too_large", -32603, "response exceeds size limit", LISTS | BLOCKS),
    )
    return tuple(
        ChaosFault(name, "error", f'JSON-RPC error {code} "{message}".', methods, _error(code, message))
        for name, code, message, methods in told
    )


FAULTS: Mapping[str, ChaosFault] = {fault.name: fault for fault in (*_TRANSPORT, *_ANSWERS, *_errors())}

USUAL = tuple(name for name in FAULTS if name != "stall")
"""Faults that are drawn by default: all but stall, which lasts longer than most tests."""


def chosen(names: Sequence[str]) -> tuple[ChaosFault, ...]:
    """Return the faults with these names. Raises InvalidInput for an unknown name."""
    unknown = sorted(set(names) - set(FAULTS))
    if unknown:
        raise InvalidInput(
            "there is no such fault: `trace-lite chaos-rpc --list` shows them", unknown=",".join(unknown)
        )
    return tuple(FAULTS[name] for name in dict.fromkeys(names))
