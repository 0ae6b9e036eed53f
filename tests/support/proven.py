"""Pieces of chain with answers, tables and proven evidence: devchain blocks, and real blocks if available."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.support.cryo_tables import NAMES, cryo_table
from tests.support.left_out import REAL_BLOCKS, leave_out
from tests.support.recorded_blocks import RecordedChain
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import Chain
from trace_dagster.datasets.chains import DEVCHAIN_ID, chain_of
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.encode import block_json, receipts_json, traces_json
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.verify.commitments.prove import prove_header, prove_transactions, receipts_of
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts
from trace_dagster.verify.fast_path import await_compiled, prove_compiled
from trace_dagster.verify.model import Evidence

DEVCHAIN = BlockRange(20, 32)
ETHEREUM = chain_of(1)
DEVCHAIN_ROW = chain_of(20143)
REAL = (4404763, 11098450, 16899757, 17053184)
CASES = ("devchain", *REAL)


@dataclass(frozen=True)
class Proven:
    """A piece: the answers of each block, a table per dataset, and the evidence proven from the answers."""

    piece: BlockRange
    chain_id: int
    answers: list[tuple[dict[str, Any], list[dict[str, Any]]]]
    tables: dict[str, pa.Table]
    traces: list[list[dict[str, Any]]]
    """The answers to debug_traceBlockByNumber, without ``txHash`` as old nodes give them."""
    evidence: Evidence


def real_folder() -> Path | None:
    """Return the folder in TRACE_REAL_BLOCKS, or None."""
    folder = os.environ.get("TRACE_REAL_BLOCKS", "")
    return Path(folder) if folder else None


@cache
def devchain() -> Proven:
    """Return twelve devchain blocks. One is empty, and all transaction types except blobs occur."""
    chain = DevChain(7, DEVCHAIN.end)
    blocks = [chain.blocks[number] for number in range(DEVCHAIN.start, DEVCHAIN.end)]
    answers = [(block_json(block, full=True), receipts_json(block)) for block in blocks]
    traces = [[each["result"] for each in traces_json(block)] for block in blocks]
    return _proven(DEVCHAIN, 20143, answers, traces)


@cache
def real(number: int) -> Proven:
    """Return one mainnet block of TRACE_REAL_BLOCKS."""
    folder = real_folder()
    assert folder is not None
    block = _chain(folder).blocks[number]
    return _proven(BlockRange(number, number + 1), 1, [(block.block, block.receipts)], [block.call_traces])


def case(which: str | int) -> Proven:
    """Return one of CASES. Skip the test if it needs real blocks and there are none."""
    if isinstance(which, str):
        return devchain()
    if real_folder() is None:
        leave_out(REAL_BLOCKS)
    return real(which)


@cache
def _chain(folder: Path) -> RecordedChain:
    return RecordedChain(folder)


def evidence_of(
    piece: BlockRange, answers: list[tuple[dict[str, Any], list[dict[str, Any]]]], chain: Chain = ETHEREUM
) -> Evidence:
    """Return the evidence that the answers prove, with recovered senders."""
    headers, transactions, receipts = [], [], []
    for number, (block, found) in zip(range(piece.start, piece.end), answers, strict=True):
        raw = decode_block(json.dumps(block).encode(), full=True)
        headers.append(prove_header(raw, number, chain))
        transactions.append(prove_transactions(raw, headers[-1], chain, deep=True))
        receipts.append(receipts_of(decode_receipts(json.dumps(found).encode()), headers[-1], chain))
    return Evidence(headers, transactions, receipts, {"all": "raw"})


def in_columns(
    piece: BlockRange, answers: list[tuple[dict[str, Any], list[dict[str, Any]]]], chain_id: int = DEVCHAIN_ID
) -> Evidence | None:
    """Return the same evidence from the compiled code, or None if that does not accept the answers."""
    await_compiled()
    texts = [json.dumps(block).encode() for block, _ in answers] + [json.dumps(found).encode() for _, found in answers]
    if (found := prove_compiled(texts, piece.start, chain_of(chain_id))) is None:
        return None
    parts = EvidenceParts.in_columns(*found)
    return Evidence(found[0], parts.transactions, parts.receipts, {"all": "raw"}, proven=parts.proven, rows=parts.rows)


def _proven(piece: BlockRange, chain_id: int, answers: Any, traces: Any) -> Proven:
    tables = {
        name: pa.concat_tables(
            [cryo_table(name, *answer, trace, chain_id) for answer, trace in zip(answers, traces, strict=True)]
        )
        for name in NAMES
    }
    return Proven(
        piece,
        chain_id,
        answers,
        tables,
        [[{"result": each} for each in inside] for inside in traces],
        evidence_of(piece, answers, chain_of(chain_id)),
    )
