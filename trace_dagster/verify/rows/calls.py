"""Compares the root call frames with proven transactions. A block commits to nothing below the root frames."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from trace_dagster.datasets.chain import CLAIMED_COLUMNS, ROOT_FRAMES, RootFrame
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rlp import sequence, text, uint
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Receipt, Transaction
from trace_dagster.verify.rows.arrow import column
from trace_dagster.verify.rows.calltree import SEPARATORS, Frames, check_shape, frames_of
from trace_dagster.verify.rows.comparison import Comparison, compare_columns, require_count
from trace_dagster.verify.rows.shared_columns import check_block_hashes, check_transaction_hashes
from trace_dagster.verify.rows.uint256_columns import uint256_columns

_Root = tuple[int, Transaction, Receipt]
"""(block number, transaction, receipt) of a root frame."""

UNPROVEN = ["call frames below the root", "gas, output and error text of root frames", "senders of root frames"]


def check_calls(
    table: pa.Table,
    headers: Sequence[Header],
    transactions: Sequence[Sequence[Transaction]],
    receipts: Sequence[Sequence[Receipt]],
    *,
    name: str = "geth_calls",
) -> Comparison:
    """Raise VerificationFailed unless each transaction has one tree of frames whose root equals the transaction.

    ``name`` is geth_calls or traces. Compared are sender, target, value, input, kind and success. The address of a
    created contract must be the one derived from sender and nonce. Frames below the root, gas, output and error texts
    are in no commitment; for them only the shape of the tree is checked. That is also the case for root frames that
    nodes make up for a transaction of a special form (:data:`~trace_dagster.datasets.chain.RootFrame`).
    """
    found = frames_of(table)
    check_shape(found, SEPARATORS[name])
    rows: list[int] = []
    roots: list[_Root] = []
    for header, inside, outcomes in zip(headers, transactions, receipts, strict=True):
        trees = found.pop(header.number, {})
        require_count(len(trees), len(inside) - _missing(inside, len(trees)), "call trees", header.number)
        for position, pair in enumerate(zip(inside[: len(trees)], outcomes, strict=False)):
            if _is_as_sent(*pair):
                rows.append(trees[position][""])
                roots.append((header.number, *pair))
    _require_none_left(found, headers)
    _check_roots(table.take(pa.array(rows, pa.int64())), roots, name)
    done = Comparison(
        ["root frames equal the transactions"], {"block_number"}, [*UNPROVEN, *_open_frames(transactions, receipts)]
    )
    for more in (check_block_hashes(table, headers), check_transaction_hashes(table, headers, transactions, receipts)):
        done.checks += more.checks
        done.covered |= more.covered
    return done


def created_address(sender: bytes, nonce: int) -> bytes:
    """Return the 20-byte address of the contract that a transaction creates (yellow paper, section 7)."""
    return keccak(sequence(text(sender), uint(nonce)))[12:]


def _root_frame(transaction: Transaction) -> RootFrame:
    return "as_sent" if transaction.form is None else ROOT_FRAMES.get(transaction.form, "as_sent")


def _missing(inside: Sequence[Transaction], trees: int) -> int:
    """Return how many transactions at the end of a block may have no frame, at most as many as have none."""
    optional = 0
    for each in reversed(inside):
        if _root_frame(each) != "optional":
            break
        optional += 1
    return max(0, min(optional, len(inside) - trees))


def _is_as_sent(transaction: Transaction, receipt: Receipt) -> bool:
    """Return whether the root frame must equal the transaction."""
    rule = _root_frame(transaction)
    return rule == "as_sent" or (rule == "as_sent_if_succeeded" and receipt.succeeded is True)


def _open_frames(transactions: Sequence[Sequence[Transaction]], receipts: Sequence[Sequence[Receipt]]) -> list[str]:
    """Return statements about root frames that are not compared, or whose created contract has an unknown address."""
    pairs = [
        (each, receipt)
        for inside, outcomes in zip(transactions, receipts, strict=True)
        for each, receipt in zip(inside, outcomes, strict=True)
        if each.form is not None
    ]
    own = {each.kind for each, receipt in pairs if not _is_as_sent(each, receipt)}
    created = {each.kind for each, receipt in pairs if each.to is None and receipt.succeeded and _has_open_nonce(each)}
    return [
        *[f"root frames of type {kind:#x} transactions" for kind in sorted(own)],
        *[f"addresses of contracts that type {kind:#x} transactions create" for kind in sorted(created)],
    ]


def _has_open_nonce(transaction: Transaction) -> bool:
    return transaction.form is not None and "nonce" in CLAIMED_COLUMNS.get(transaction.form, ())


def _has_known_address(each: Transaction, receipt: Receipt, got: bytes | None) -> bool:
    """Return whether the address of the created contract is known. Its nonce may be in no commitment."""
    if receipt.succeeded is False or (receipt.succeeded is None and got is None):
        return False
    return not _has_open_nonce(each)


def _require_none_left(found: Frames, headers: Sequence[Header]) -> None:
    for block in found:
        raise mismatch("a row lies outside the range", block, headers[0].number, block)


def _check_roots(table: pa.Table, roots: list[_Root], name: str) -> None:
    columns = _geth_columns(roots) if name == "geth_calls" else _trace_columns(roots)
    senders = [each.sender for _, each, _ in roots]
    if None not in senders:
        columns["from_address" if name == "geth_calls" else "action_from"] = senders
    compare_columns(table, columns, [block for block, _, _ in roots])
    _check_created(table, "to_address" if name == "geth_calls" else "result_address", roots)
    _check_errors(table, roots)


def _geth_columns(roots: list[_Root]) -> dict[str, Sequence[object]]:
    return {
        "typ": ["CREATE" if each.to is None else "CALL" for _, each, _ in roots],
        "input": [each.input for _, each, _ in roots],
        **uint256_columns("value", [each.value for _, each, _ in roots]),
    }


def _trace_columns(roots: list[_Root]) -> dict[str, Sequence[object]]:
    return {
        "action_type": ["create" if each.to is None else "call" for _, each, _ in roots],
        "action_call_type": [None if each.to is None else "call" for _, each, _ in roots],
        "action_to": [each.to for _, each, _ in roots],
        "action_value": [str(each.value) for _, each, _ in roots],
        "action_input": [None if each.to is None else each.input for _, each, _ in roots],
        "action_init": [each.input if each.to is None else None for _, each, _ in roots],
        "action_reward_type": [None for _ in roots],
    }


def _check_created(table: pa.Table, name: str, roots: list[_Root]) -> None:
    """Compare the target of calls in geth_calls, and the address of created contracts. Failed creations may lack it."""
    for (block, each, receipt), got in zip(roots, column(table, name) or [], strict=False):
        if each.to is not None:
            expected = each.to if name == "to_address" else None
        elif each.sender is None or not _has_known_address(each, receipt, got):
            continue
        else:
            expected = created_address(each.sender, each.nonce)
        if got != expected:
            raise mismatch(f"{name} is not what the chain says", block, expected, got)


def _check_errors(table: pa.Table, roots: list[_Root]) -> None:
    """Raise unless a root has an error exactly if its receipt failed. Before Byzantium receipts have no status."""
    for (block, _, receipt), got in zip(roots, column(table, "error") or [], strict=False):
        if receipt.succeeded is not None and receipt.succeeded != (got is None):
            raise mismatch(
                "error does not agree with the receipt's status", block, "null" if receipt.succeeded else "a text", got
            )
