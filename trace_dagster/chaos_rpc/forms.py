"""Incorrect answers that pretend to be of a form that nobody knows: an invented type, no type, a new header member.

A client that believes such a form proves less than it could.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from trace_dagster.chaos_rpc.shapes import (
    BLOCKS,
    SINGLES,
    WITH_LOGS,
    Answer,
    FaultContext,
    Request,
    rows_of,
    with_result,
    with_rows,
)

OF_TRANSACTIONS = BLOCKS | {"eth_getTransactionByHash"}
OF_RECEIPTS = WITH_LOGS - {"eth_getLogs"}
OF_BOTH = OF_TRANSACTIONS | OF_RECEIPTS

INVENTED_TYPE = "0x55"
INVENTED_MEMBER = "committeeRoot"

_Row = dict[str, Any]


def invent_type(request: Request, answer: Answer, _rng: Random, _context: FaultContext) -> Answer:
    """Give a block's first transaction, or its receipt, another type. All answers about it agree."""
    return _with_first_row(request, answer, lambda row: {**row, "type": INVENTED_TYPE})


def invent_type_and_value(request: Request, answer: Answer, rng: Random, context: FaultContext) -> Answer:
    """Do the same, and let the transaction have another value, so that its fields do not give its hash."""

    def another(row: _Row) -> _Row:
        value = {"value": hex(int(row["value"], 16) + 1)} if "value" in row else {}
        return {**row, **value, "type": INVENTED_TYPE}

    return _with_first_row(request, answer, another)


def drop_type(request: Request, answer: Answer, _rng: Random, _context: FaultContext) -> Answer:
    """Leave out the type of every transaction or receipt. Of type 0 this changes nothing (EIP-2718)."""
    return _with_rows_changed(request, answer, lambda row: {name: row[name] for name in row if name != "type"})


def add_header_member(_request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    result = answer.get("result")
    return _with_members(answer, {INVENTED_MEMBER: f"0x{rng.getrandbits(256):064x}"}) if result else answer


def add_header_member_and_gas(request: Request, answer: Answer, rng: Random, context: FaultContext) -> Answer:
    """Add a header member, and change the gas used, so that the header cannot give its hash."""
    result = answer.get("result")
    if not result:
        return answer
    changed = _with_members(answer, {"gasUsed": hex(int(result["gasUsed"], 16) + 1)})
    return add_header_member(request, changed, rng, context)


def _with_members(answer: Answer, members: _Row) -> Answer:
    return with_result(answer, {**answer["result"], **members})


def _with_first_row(request: Request, answer: Answer, change: Callable[[_Row], _Row]) -> Answer:
    return _with_rows_changed(
        request, answer, lambda row: change(row) if int(row["transactionIndex"], 16) == 0 else row
    )


def _with_rows_changed(request: Request, answer: Answer, change: Callable[[_Row], _Row]) -> Answer:
    """Change each transaction or receipt of an answer; hashes of transactions stay as they are."""
    if request["method"] in SINGLES:
        return with_result(answer, change(answer["result"])) if answer.get("result") else answer
    rows = rows_of(request, answer)
    changed = [change(row) if isinstance(row, dict) else row for row in rows]
    return with_rows(request, answer, changed) if changed != rows else answer
