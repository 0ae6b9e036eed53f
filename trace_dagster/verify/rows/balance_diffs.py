"""Checks geth_balance_diffs. No commitment covers balances, so only rules between them and transactions are checked.

Cryo 0.3.2 requests geth's prestate in diff mode, and writes 0 for a balance that the answer omits. Geth omits a balance
that did not change. So an account of which only nonce, code or storage changed has ``to_value`` 0. The rules below hold
nevertheless: they ignore a ``to_value`` of 0, and allow rows to be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import mismatch, shortened
from trace_dagster.verify.model import Header, Receipt, Transaction
from trace_dagster.verify.rows.arrow import fixed, required, spans
from trace_dagster.verify.rows.comparison import Comparison, piece_of
from trace_dagster.verify.rows.shared_columns import check_transaction_hashes

_Balances = dict[bytes, tuple[int, int]]
"""(before, after) in wei by address."""


@dataclass(slots=True)
class _Block:
    by_transaction: dict[int, _Balances] = field(default_factory=dict)


def check_balance_diffs(
    table: pa.Table,
    headers: Sequence[Header],
    transactions: Sequence[Sequence[Transaction]],
    receipts: Sequence[Sequence[Receipt]],
    *,
    burns_base_fee: bool,
) -> Comparison:
    """Raise VerificationFailed unless these rules hold in each block (amounts in wei):

    - an address occurs a single time per transaction, and transaction_hash belongs to transaction_index;
    - a balance before a transaction is the balance after the last change in the block (unless that is 0);
    - a transaction that pays for gas has a row of its sender, and it creates no value: the sum over its addresses
      falls by at least gas_used * base fee, which is burned (EIP-1559);
    - the sender of a failed transaction loses at least its fee, without the tip if it is the block's author.

    Where the chain pays the base fee to an address (``burns_base_fee`` is false), a transaction must not create value,
    and the sender of a failed one loses at least the base fee. Transactions of special forms are not compared there:
    they mint, or are paid for elsewhere.

    Not checked: the amount each address received, addresses missing that no rule needs, the value that a successful
    transaction moved, changes at the block's ends (withdrawals, rewards), and transactions with gas price 0 (system
    transactions of some chains, which may mint).
    """
    checks = ["balances follow on each other", "senders pay for gas", "transactions create no value"]
    blocks = _grouped(table, headers)
    for header, found, inside, outcomes in zip(headers, blocks, transactions, receipts, strict=True):
        _check_follow(found, header.number)
        for position, (each, receipt) in enumerate(zip(inside, outcomes, strict=True)):
            if burns_base_fee or each.form is None:
                _check_paid(found.by_transaction.get(position, {}), each, receipt, header, burns_base_fee)
    hashes = check_transaction_hashes(table, headers, transactions, receipts)
    open_ = ["balances: only rules between them are checked"]
    return Comparison([*checks, *hashes.checks], {"block_number"} | hashes.covered, open_)


def _grouped(table: pa.Table, headers: Sequence[Header]) -> list[_Block]:
    positions, addresses = required(table, "transaction_index"), fixed(table, "address", 20)
    before, after = fixed(table, "from_value_binary", 32), fixed(table, "to_value_binary", 32)
    found = []
    for header, span in zip(headers, spans(table, piece_of(headers)), strict=True):
        block = _Block()
        for row in range(span.start, span.stop):
            balances = block.by_transaction.setdefault(positions[row], {})
            if addresses[row] in balances:
                raise VerificationFailed(
                    "an address occurs twice in a transaction", block=header.number, address=shortened(addresses[row])
                )
            balances[addresses[row]] = int.from_bytes(before[row], "big"), int.from_bytes(after[row], "big")
        found.append(block)
    return found


def _check_follow(block: _Block, number: int) -> None:
    last: dict[bytes, int] = {}
    for _, balances in sorted(block.by_transaction.items()):
        for address, (before, after) in balances.items():
            known = last.get(address, 0)
            if known and before != known:
                raise mismatch(
                    "a balance is not the one that the previous transaction left",
                    number,
                    known,
                    before,
                    address=shortened(address),
                )
            last[address] = after


def _check_paid(balances: _Balances, each: Transaction, receipt: Receipt, header: Header, burns_base_fee: bool) -> None:
    if not each.gas_price or not receipt.gas_used:
        return
    base = receipt.gas_used * (header.base_fee_per_gas or 0)
    burned = base if burns_base_fee else 0
    lost = sum(before - after for before, after in balances.values())
    if lost < burned:
        raise mismatch(
            "a transaction creates value", header.number, f"a loss of {burned}", lost, hash=shortened(each.hash)
        )
    if each.sender is None:
        return
    if each.sender not in balances:
        raise VerificationFailed("a sender's balance is missing", block=header.number, address=shortened(each.sender))
    before, after = balances[each.sender]
    pays_price = burns_base_fee and header.author not in (None, each.sender)
    fee = receipt.gas_used * each.gas_price if pays_price else base
    if receipt.succeeded is False and before - after < fee:
        raise mismatch(
            "a failed transaction's sender did not pay", header.number, fee, before - after, hash=shortened(each.hash)
        )
