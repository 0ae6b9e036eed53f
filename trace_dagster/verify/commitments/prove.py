"""Turns raw answers into evidence. Each function proves what it returns, unless its name says that it claims it.

They raise VerificationFailed if a hash or root differs, and UnknownForm if the answer has a form that this version does
not know on this chain. Blocks are block numbers; hashes have 32 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from trace_dagster.datasets.chain import STANDARD_TYPES, Chain
from trace_dagster.errors import UnknownForm
from trace_dagster.verify.commitments.forms import celo, hyperliquid, op_stack
from trace_dagster.verify.commitments.headers import encodings, header_of
from trace_dagster.verify.commitments.hex import data, fixed, kind, number
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.receipts import (
    MOST_TOPICS,
    fields_of,
    first_field,
    has_no_receipts,
    has_no_transactions,
    prove_logs_by_bloom,
    prove_receipts,
    receipt_fields,
    unknown_type,
)
from trace_dagster.verify.commitments.rpc_json import RawHeader, RawLog, RawReceipt, RawReceiptWithoutLogs
from trace_dagster.verify.commitments.senders import recover_sender
from trace_dagster.verify.commitments.transactions import (
    form_of_type,
    prove_transactions,
    raw_needed,
    state_sync_hash,
    unproven_columns,
)
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Log, Receipt, ReceiptForm, Transaction

__all__ = [
    "claimed_header",
    "claimed_receipts",
    "fields_of",
    "first_field",
    "has_no_receipts",
    "has_no_transactions",
    "prove_header",
    "prove_logs_by_bloom",
    "prove_transactions",
    "raw_needed",
    "receipt_fields",
    "receipts_of",
    "recover_sender",
    "require_linked",
    "unproven_columns",
    "unproven_receipts",
]

_CELO_FEES = {"celo_fee_currency": "base_fee", "celo_fee_in_celo": "fee_in_fee_currency"}
"""Forms whose receipts have a fifth field on Celo's L2, and the member that shows it."""


def prove_header(raw: RawHeader, block_number: int, chain: Chain) -> Header:
    """Return the header. Raises unless it has the requested number and gives its hash by the chain's form."""
    header = header_of(raw, block_number, is_proven=True)
    found = b""
    for encoded in encodings(raw, header, chain):
        found = keccak(encoded)
        if found == header.hash:
            return header
    unknown = raw.unknown_members()
    if unknown:
        raise UnknownForm(
            "the header has members this version does not know",
            part="header", kind=None, block=block_number, members=",".join(unknown)[:200],
        )  # fmt: skip
    raise mismatch("the header does not give the block's hash", block_number, header.hash, found)


def claimed_header(raw: RawHeader, block_number: int) -> Header:
    """Return the header as the node claims it, unproven. Raises unless it has the requested number."""
    return header_of(raw, block_number, is_proven=False)


def receipts_of(
    raw: Sequence[RawReceipt],
    header: Header,
    chain: Chain,
    *,
    transactions: Sequence[Transaction] | None = None,
) -> list[Receipt]:
    """Return the block's receipts. Raises unless they give the header's receipts root and bloom.

    ``transactions`` are the block's proven ones, if they are known: they complete what an answer leaves out.
    """
    receipts = claimed_receipts(raw, header, chain, transactions=transactions)
    prove_receipts(list(receipt_fields(receipts)), header, unknown=unknown_type(receipts))
    return receipts


def claimed_receipts(
    raw: Sequence[RawReceipt] | Sequence[RawReceiptWithoutLogs],
    header: Header,
    chain: Chain,
    *,
    transactions: Sequence[Transaction] | None = None,
) -> list[Receipt]:
    """Return the receipts as the node claims them, unproven. The caller replaces fields by rows and proves the root.

    Raises UnknownForm for receipts that cannot give the root, VerificationFailed if one belongs to another type than
    its transaction.
    """
    known = transactions if transactions is not None and len(transactions) == len(raw) else None
    read = _ReceiptReader(header, chain)
    found = [read.receipt(each, None if known is None else known[index]) for index, each in enumerate(raw)]
    _require_outside_last(found, header)
    return found


def unproven_receipts(raw: Sequence[RawReceipt], header: Header, chain: Chain) -> list[Receipt]:
    """Return the receipts of a block whose form is not known, as the node claims them. A status before Byzantium is
    never believed.
    """
    read = _ReceiptReader(header, chain)
    return [read.unproven(each) for each in raw]


def require_linked(headers: Sequence[Header], parent: bytes | None) -> None:
    """Raise VerificationFailed unless each header's parent_hash is the hash of the header before it.

    ``parent`` is the hash of the block before the first header, or None if it is not known.
    """
    before = parent
    for header in headers:
        if before is not None and header.parent_hash != before:
            raise mismatch("parent_hash is not the hash of the block before", header.number, before, header.parent_hash)
        before = header.hash


def _require_outside_last(receipts: Sequence[Receipt], header: Header) -> None:
    """Raise if a receipt that is in no root stands before another: it would shift the indices of proven logs."""
    for index, each in enumerate(receipts[:-1]):
        if each.form == "outside_root":
            raise mismatch("a state-sync receipt is not the last of its block", header.number, len(receipts) - 1, index)


class _ReceiptReader:
    """Reads the receipts of one block in order."""

    def __init__(self, header: Header, chain: Chain) -> None:
        self._number = header.number
        self._chain = chain
        self._derived = state_sync_hash(chain, header)
        self._has_state_root = header.number < chain.fork("byzantium")
        self._are_open = chain.leaves_open("receipts", header.number)
        self._gas_before = 0

    def receipt(self, raw: RawReceipt | RawReceiptWithoutLogs, transaction: Transaction | None) -> Receipt:
        block = self._number
        tx_type = self._type(raw, transaction)
        tx_hash = None if raw.transaction_hash is None else fixed(raw.transaction_hash, 32, block)
        form = self._form(raw, tx_type, tx_hash)
        cumulative, gas_used = self._gas(raw, form)
        state = self._state_root(raw)
        return Receipt(
            kind=tx_type,
            succeeded=None if state is not None else self._succeeded(raw),
            cumulative_gas=cumulative,
            gas_used=gas_used,
            transaction_hash=tx_hash,
            logs=tuple([_log(log, block) for log in raw.logs]) if isinstance(raw, RawReceipt) else (),
            post_state=state,
            form=form,
            tails=() if form != "standard" else self._tails(raw, tx_type, transaction),
        )

    def unproven(self, raw: RawReceipt) -> Receipt:
        block = self._number
        cumulative, gas_used = self._gas(raw, "unknown")
        return Receipt(
            kind=0 if raw.type is None else number(raw.type, block),
            succeeded=None if self._has_state_root else self._succeeded(raw),
            cumulative_gas=cumulative,
            gas_used=gas_used,
            transaction_hash=None if raw.transaction_hash is None else fixed(raw.transaction_hash, 32, block),
            logs=tuple([_log(log, block) for log in raw.logs]),
            form="unknown",
        )

    def _type(self, raw: RawReceiptWithoutLogs, transaction: Transaction | None) -> int:
        if raw.type is None:
            return 0 if transaction is None else transaction.kind
        found = kind(raw.type, self._number)
        if transaction is not None and found != transaction.kind and transaction.form != "arbitrum_classic":
            raise mismatch("a receipt is not of its transaction's type", self._number, transaction.kind, found)
        return found

    def _form(self, raw: RawReceiptWithoutLogs, tx_type: int, tx_hash: bytes | None) -> ReceiptForm:
        if self._derived is not None and tx_hash == self._derived:
            return "outside_root"
        if self._are_open or (self._chain.has_system_senders and hyperliquid.is_system(raw.sender, self._number)):
            return "unknown"
        if tx_type in STANDARD_TYPES and not self._chain.types:
            return "standard"
        try:
            form = form_of_type(self._chain, tx_type, self._number)
        except UnknownForm:
            return "unknown"
        return "arbitrum_classic" if form == "arbitrum_classic" else "standard"

    def _gas(self, raw: RawReceiptWithoutLogs, form: ReceiptForm) -> tuple[int, int]:
        """Return (cumulative gas, gas used). Receipts outside the root do not add to those of the next one."""
        cumulative = number(raw.cumulative_gas_used, self._number)
        if form == "outside_root":
            return self._gas_before, 0
        used = cumulative - self._gas_before
        if form == "arbitrum_classic" and raw.gas_used is not None:  # not the difference in every block
            used = number(raw.gas_used, self._number)
        self._gas_before = cumulative
        return cumulative, used

    def _state_root(self, raw: RawReceiptWithoutLogs) -> bytes | None:
        if self._has_state_root and raw.root is None:
            raise UnknownForm(
                "a receipt before Byzantium has no state root: the node leaves it out, and a status that it shows"
                " instead is made up",
                part="receipts", kind=None, block=self._number,
            )  # fmt: skip
        if raw.root is None or (raw.status is not None and not self._has_state_root):
            return None
        return fixed(raw.root, 32, self._number)

    def _succeeded(self, raw: RawReceiptWithoutLogs) -> bool:
        found = number(raw.status, self._number)
        if found > 1:
            raise mismatch("a receipt's status is neither 0 nor 1", self._number, "0 or 1", found)
        return found == 1

    def _tails(self, raw: RawReceiptWithoutLogs, tx_type: int, transaction: Transaction | None) -> tuple[bytes, ...]:
        """Return what the receipt of a special form may have behind its logs."""
        form = self._chain.types.get(tx_type)
        if form == "op_deposit":
            return self._deposit_tails(raw, transaction)
        if form in _CELO_FEES and self._number >= self._chain.fork("l2"):
            fee = getattr(raw, _CELO_FEES[form])
            if fee is None:
                raise UnknownForm(
                    f"the node leaves out {_CELO_FEES[form]} of a receipt, which the receipts root covers",
                    part="receipts", kind=tx_type, block=self._number,
                )  # fmt: skip
            return (celo.receipt_tail(fee, self._number),)
        return ()

    def _deposit_tails(self, raw: RawReceiptWithoutLogs, transaction: Transaction | None) -> tuple[bytes, ...]:
        """Return the nonce and version that the root covers since Canyon. Some nodes do not show the version."""
        nonce = None if transaction is None else transaction.nonce
        if raw.deposit_nonce is not None:
            nonce = number(raw.deposit_nonce, self._number)
        if raw.deposit_receipt_version is None:
            return () if nonce is None else (b"", op_stack.receipt_tail(nonce))
        if nonce is None:
            raise UnknownForm(
                "the node leaves out depositNonce of a receipt, which the receipts root covers",
                part="receipts", kind=op_stack.DEPOSIT, block=self._number,
            )  # fmt: skip
        return (op_stack.receipt_tail(nonce, number(raw.deposit_receipt_version, self._number)),)


def _log(raw: RawLog, block: int) -> Log:
    if len(raw.topics) > MOST_TOPICS:
        raise mismatch("a log has too many topics", block, MOST_TOPICS, len(raw.topics))
    topics = tuple([fixed(topic, 32, block) for topic in raw.topics])
    return fixed(raw.address, 20, block), topics, data(raw.data, block)
