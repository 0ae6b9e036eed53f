"""Check geth_balance_diffs: no commitment covers balances, so only rules between them and proven transactions.

Cryo 0.3.2 asks for geth's prestate in diff mode and writes 0 for a balance that the answer leaves out. Geth leaves out
a balance that did not change, so an account of which only nonce, code or storage changed has ``to_value`` 0. The rules
below hold all the same: a ``to_value`` of 0 has no meaning, and rows may be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import disagrees, shown
from trace_dagster.verify.model import Header, Receipt, Transaction
from trace_dagster.verify.rows.arrow import fixed, required, spans
from trace_dagster.verify.rows.comparison import Compared, piece_of
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
) -> Compared:
    """Check the balances of each block, in wei:

    - an address occurs once per transaction, and transaction_hash belongs to transaction_index;
    - a balance before a transaction is the balance after the block's last transaction that changed it (unless that is
      0);
    - a transaction that pays for gas has its sender, and creates no value: the sum over its addresses falls by at least
      gas_used * base fee, which is burned (EIP-1559);
    - the sender of a failed transaction loses at least its fee, less the tip if the sender is the block's author.

    Not checked: how much each address received, whether an address is missing that no rule needs, what a successful
    transaction moved, balances at the block's ends (withdrawals, rewards), and transactions at gas price 0, which are
    system transactions on some chains and may mint.
    """
    checks = ["balances follow on each other", "senders pay for gas", "transactions create no value"]
    blocks = _grouped(table, headers)
    for header, found, inside, outcomes in zip(headers, blocks, transactions, receipts, strict=True):
        _check_follow(found, header.number)
        for position, (each, receipt) in enumerate(zip(inside, outcomes, strict=True)):
            _check_paid(found.by_transaction.get(position, {}), each, receipt, header)
    hashes = check_transaction_hashes(table, headers, transactions, receipts)
    open_ = ["balances: only rules between them are checked"]
    return Compared([*checks, *hashes.checks], {"block_number"} | hashes.covered, open_)


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
                    "an address stands twice in a transaction", block=header.number, address=shown(addresses[row])
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
                raise disagrees(
                    "a balance is not what the transaction before left", number, known, before, address=shown(address)
                )
            last[address] = after


def _check_paid(balances: _Balances, each: Transaction, receipt: Receipt, header: Header) -> None:
    if not each.gas_price * receipt.gas_used:
        return
    burned = receipt.gas_used * (header.base_fee_per_gas or 0)
    lost = sum(before - after for before, after in balances.values())
    if lost < burned:
        raise disagrees(
            "a transaction creates value", header.number, f"a loss of {burned}", lost, hash=shown(each.hash)
        )
    if each.sender is None:
        return
    if each.sender not in balances:
        raise VerificationFailed("a sender's balance is missing", block=header.number, address=shown(each.sender))
    before, after = balances[each.sender]
    fee = burned if header.author in (None, each.sender) else receipt.gas_used * each.gas_price
    if receipt.succeeded is False and before - after < fee:
        raise disagrees(
            "a failed transaction's sender did not pay", header.number, fee, before - after, hash=shown(each.hash)
        )
