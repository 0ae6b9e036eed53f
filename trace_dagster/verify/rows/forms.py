"""Forms of transactions and receipts that are read from rows, which do not name them."""

from __future__ import annotations

from functools import lru_cache

from trace_dagster.datasets.chain import STANDARD_TYPES, Chain, TransactionForm
from trace_dagster.errors import UnknownForm
from trace_dagster.verify.commitments.forms import op_stack
from trace_dagster.verify.commitments.transactions import form_of_type
from trace_dagster.verify.model import ReceiptForm

_NO_ONE = bytes(20)
"""The sender of state-sync transactions. No key has this address."""

_OF_MORE_FIELDS = frozenset({"celo_fee_currency", "celo_fee_in_celo", "arbitrum_classic"})
"""Forms whose receipts contain values that rows of dataset transactions lack."""


def transaction_form(chain: Chain, kind: int, sender: bytes | None, block: int) -> TransactionForm | None:
    """Return the form of a row's transaction. Raises UnknownForm for a type that the chain's row lacks."""
    if not chain.types and kind in STANDARD_TYPES:
        return None
    return "polygon_state_sync" if _is_derived(chain, kind, sender, block) else form_of_type(chain, kind, block)


def receipt_form(
    chain: Chain, kind: int, nonce: int | None, sender: bytes | None, block: int
) -> tuple[ReceiptForm, tuple[bytes, ...]]:
    """Return the form and the tails of the receipt of a row's transaction.

    Raises UnknownForm if the row lacks a value that the receipt consists of.
    """
    if chain.leaves_open("receipts", block):
        return "unknown", ()
    if not chain.types:
        return ("standard", ()) if kind in STANDARD_TYPES else ("unknown", ())
    if _is_derived(chain, kind, sender, block):
        return "outside_root", ()
    form = chain.types.get(kind) if kind not in STANDARD_TYPES else form_of_type(chain, kind, block)
    if form in _OF_MORE_FIELDS or (form == "op_deposit" and nonce is None):
        raise UnknownForm(
            "rows do not hold all fields of a receipt", part="receipts", kind=kind, block=block, type=f"{kind:#x}"
        )
    if form == "op_deposit" and nonce is not None:
        return "standard", _deposit_tails(nonce)
    return ("unknown", ()) if form is None and kind not in STANDARD_TYPES else ("standard", ())


@lru_cache
def _deposit_tails(nonce: int) -> tuple[bytes, ...]:
    """Return the tails since the Canyon fork and before it: rows do not tell which the block needs."""
    return op_stack.receipt_tail(nonce), b""


def _is_derived(chain: Chain, kind: int, sender: bytes | None, block: int) -> bool:
    """Return whether a row is a state-sync transaction that is in no root."""
    if kind != 0 or sender != _NO_ONE:
        return False
    return chain.has_form("polygon_state_sync") and block < chain.fork("madhugiri")
