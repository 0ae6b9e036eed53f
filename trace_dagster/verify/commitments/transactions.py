"""Proves transactions: each one's hash by the form of its type and chain, and the transactions root of the block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trace_dagster.datasets.chain import CLAIMED_COLUMNS, STANDARD_TYPES, Chain, TransactionForm
from trace_dagster.errors import UnknownForm, VerificationFailed
from trace_dagster.verify.commitments.envelopes import envelope, fields, members, signature, typed
from trace_dagster.verify.commitments.forms import arbitrum, celo, hyperliquid, op_stack, polygon, scroll
from trace_dagster.verify.commitments.hex import data, fixed, kind, number
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rpc_json import RawFullBlock, RawTransaction
from trace_dagster.verify.commitments.senders import is_unsigned, signer_of
from trace_dagster.verify.commitments.trie import list_root
from trace_dagster.verify.mismatch import mismatch, shortened
from trace_dagster.verify.model import Header, Transaction

_CLASSIC = 0x78
"""The type that nodes of Arbitrum Nitro show for transactions of Arbitrum Classic."""

_Fields = Callable[[RawTransaction, int], list[bytes]]

_UNSIGNED: Mapping[TransactionForm, _Fields] = {
    "op_deposit": op_stack.deposit,
    "arbitrum_deposit": arbitrum.deposit,
    "arbitrum_unsigned": arbitrum.unsigned,
    "arbitrum_contract": arbitrum.contract,
    "arbitrum_retry": arbitrum.retry,
    "arbitrum_submit_retryable": arbitrum.submit_retryable,
    "arbitrum_internal": arbitrum.internal,
    "scroll_l1_message": scroll.l1_message,
}
"""Forms that carry their sender instead of a signature: all of their encoded fields."""

_SIGNED: Mapping[TransactionForm, _Fields] = {
    "celo_fee_currency": celo.fee_currency,
    "celo_fee_in_celo": celo.fee_in_celo,
    "celo_fee_currency_gateway": celo.fee_currency_with_gateway,
    "celo_legacy": celo.legacy,
}
"""Forms with a signature: their encoded fields before it."""

_CHECKS: Mapping[TransactionForm, Callable[[RawTransaction, int], None]] = {
    "arbitrum_deposit": arbitrum.check_deposit,
    "arbitrum_internal": arbitrum.check_internal,
    "arbitrum_submit_retryable": arbitrum.check_submit_retryable,
    "polygon_state_sync": polygon.check_state_sync,
}
"""What members that the encoding lacks must be."""


class _Found(NamedTuple):
    transaction: Transaction
    encoded: bytes | None
    """The item of the transactions root; None if the transaction is in no root."""
    is_nameless: bool = False
    """Whether nothing gives its hash: an unsigned transaction of Arbitrum Classic."""


def prove_transactions(
    raw: RawFullBlock,
    header: Header,
    chain: Chain,
    *,
    deep: bool = False,
    raw_bytes: Mapping[int, bytes] | None = None,
) -> list[Transaction]:
    """Return the block's transactions. Raises VerificationFailed unless they give their hashes and the root.

    ``deep`` recovers each sender from its signature, in about 60 us per transaction. Otherwise senders are only proven
    where the form contains them. ``raw_bytes`` are the bytes of the transactions that :func:`raw_needed` names.

    Raises UnknownForm if a transaction has a form that this version does not know, and nothing contradicts it.
    """
    found: list[_Found] = []
    unknown: UnknownForm | None = None
    block = _TransactionProver(header, chain, deep, raw_bytes or {}, len(raw.transactions))
    for index, each in enumerate(raw.transactions):
        try:
            found.append(block.prove(each, index))
        except UnknownForm as error:
            unknown = unknown or error
    if unknown is not None:
        raise unknown
    root = list_root([each.encoded for each in found if each.encoded is not None])
    if root != header.transactions_root:
        raise _root_differs(header, chain, root)
    if (nameless := next((each for each in found if each.is_nameless), None)) is not None:
        raise UnknownForm(
            "the hash of an unsigned Arbitrum Classic transaction cannot be computed",
            part="transactions", kind=nameless.transaction.kind or _CLASSIC, block=header.number,
        )  # fmt: skip
    return [each.transaction for each in found]


def raw_needed(raw: RawFullBlock, header: Header, chain: Chain) -> list[int]:
    """Return the indices of transactions that can only be proven from their bytes, which nodes give on request."""
    if not chain.has_form("polygon_state_sync"):
        return []
    block = header.number
    return [index for index, each in enumerate(raw.transactions) if kind(each.type, block) == polygon.STATE_SYNC]


def form_of_type(chain: Chain, tx_type: int, block: int) -> TransactionForm | None:
    """Return the form of a transaction type in a block of the chain; None for types that every chain has.

    Raises UnknownForm if the chain's row does not have the type there.
    """
    if chain.has_form("arbitrum_classic") and block < chain.fork("nitro") and tx_type in (0, _CLASSIC):
        return "arbitrum_classic"
    if tx_type in STANDARD_TYPES:
        return None
    form = chain.types.get(tx_type)
    if form is None or form == "arbitrum_classic":
        raise UnknownForm(
            "a transaction has a type this version does not know on this chain",
            part="transactions", kind=tx_type, block=block, type=f"{tx_type:#x}",
        )  # fmt: skip
    return form


def unproven_columns(chain: Chain, tx_types: Sequence[int], block: int) -> list[str]:
    """Return which columns of dataset ``transactions`` no commitment covers, for rows of these types.

    ``block`` is the first block of the rows.
    """
    found = []
    for tx_type in sorted(set(tx_types)):
        try:
            form = form_of_type(chain, tx_type, block)
        except UnknownForm:
            continue
        columns = CLAIMED_COLUMNS.get(form, ()) if form is not None else ()
        found += [f"{name} of type {tx_type:#x} transactions" for name in columns]
    has_no_base_fee = chain.header == "celo" and block < chain.fork("gingerbread")
    if has_no_base_fee or chain.has_form("arbitrum_internal"):  # Arbitrum's nodes show one of two prices
        capped = sorted({tx_type for tx_type in tx_types if tx_type in STANDARD_TYPES and tx_type >= 2})
        found += [f"gas_price of type {tx_type:#x} transactions" for tx_type in capped]
    if chain.has_form("polygon_state_sync") and block < chain.fork("madhugiri"):
        found.append("state-sync transactions and their logs")
    if tx_types and block < chain.fork("bedrock"):
        found.append("from_address of transactions without a signature")
    return found


class _TransactionProver:
    """Proves the transactions of one block against their hashes."""

    def __init__(self, header: Header, chain: Chain, deep: bool, raw_bytes: Mapping[int, bytes], count: int) -> None:
        self._header = header
        self._number = header.number
        self._chain = chain
        self._deep = deep
        self._raw_bytes = raw_bytes
        self._last = count - 1
        self._derived = state_sync_hash(chain, header)
        self._is_arbitrum = chain.has_form("arbitrum_internal")

    def prove(self, raw: RawTransaction, index: int) -> _Found:
        block = self._number
        tx_type, claimed = kind(raw.type, block), fixed(raw.hash, 32, block)
        if self._chain.has_system_senders and hyperliquid.is_system(raw.sender, block):
            raise UnknownForm(
                "the node shows a transaction of the chain's own address, which is in no root",
                part="transactions", kind=tx_type, block=block,
            )  # fmt: skip
        if self._derived is not None and claimed == self._derived:
            return self._state_sync(raw, tx_type, index, claimed)
        try:
            form = self._form(raw, tx_type)
        except UnknownForm:
            self._require_unknown(raw, claimed)
            raise
        if form is None:
            return self._standard(raw, tx_type, claimed)
        if form == "arbitrum_classic":
            return self._classic(raw, tx_type, claimed)
        encoded = self._encoded(raw, form, tx_type, index)
        _require_hash(claimed, keccak(encoded), block)
        if form in _CHECKS:
            _CHECKS[form](raw, block)
        if self._deep and form in _SIGNED:
            self._check_sender(raw, tx_type, _SIGNED[form](raw, block))
        return _Found(_special(raw, tx_type, form, claimed, block), encoded)

    def _form(self, raw: RawTransaction, tx_type: int) -> TransactionForm | None:
        if tx_type == 0 and raw.eth_compatible is False and self._chain.has_form("celo_fee_currency_gateway"):
            return "celo_legacy"
        return form_of_type(self._chain, tx_type, self._number)

    def _encoded(self, raw: RawTransaction, form: TransactionForm, tx_type: int, index: int) -> bytes:
        if form == "polygon_state_sync":
            return polygon.envelope(self._raw_bytes.get(index), self._number)
        if form in _UNSIGNED:
            return typed(tx_type, _UNSIGNED[form](raw, self._number))
        return typed(tx_type, [*_SIGNED[form](raw, self._number), *signature(raw, tx_type, self._number)])

    def _standard(self, raw: RawTransaction, tx_type: int, claimed: bytes) -> _Found:
        read = members(raw, tx_type, self._number)
        encoded = envelope(raw, read, self._number)
        _require_hash(claimed, keccak(encoded), self._number)
        if self._deep and not is_unsigned(raw, self._number):
            self._check_sender(raw, tx_type, fields(raw, read, self._number))
        price = read.price if read.price is not None else self._price(raw, read.cap or 0, read.tip or 0)
        return _Found(
            Transaction(
                hash=claimed,
                kind=tx_type,
                sender=None if raw.sender is None else fixed(raw.sender, 20, self._number),
                to=read.to,
                value=read.value,
                nonce=read.nonce,
                gas_limit=read.gas,
                gas_price=price,
                max_fee_per_gas=read.cap,
                max_priority_fee_per_gas=read.tip,
                input=read.input,
            ),
            encoded,
        )

    def _classic(self, raw: RawTransaction, tx_type: int, claimed: bytes) -> _Found:
        """Prove an Arbitrum Classic transaction, which is a legacy one in the root, whatever type nodes show."""
        block = self._number
        read = members(raw, 0, block)
        encoded = envelope(raw, read, block)
        if is_unsigned(raw, block):
            return _Found(_special(raw, tx_type, "arbitrum_classic", claimed, block), encoded, is_nameless=True)
        _require_hash(claimed, keccak(encoded), block)
        if self._deep:
            self._check_sender(raw, 0, fields(raw, read, block))
        return _Found(_special(raw, tx_type, "arbitrum_classic", claimed, block), encoded)

    def _state_sync(self, raw: RawTransaction, tx_type: int, index: int, claimed: bytes) -> _Found:
        if tx_type != 0:
            raise mismatch("a state-sync transaction is of another type", self._number, 0, tx_type)
        if index != self._last:
            raise mismatch("a state-sync transaction is not the last of its block", self._number, self._last, index)
        polygon.check_derived(raw, self._number)
        return _Found(_special(raw, 0, "polygon_state_sync", claimed, self._number), None)

    def _price(self, raw: RawTransaction, cap: int, tip: int) -> int | None:
        """Return the effective price per unit of gas in wei (EIP-1559), or the claimed one if it is in no commitment.

        Arbitrum's nodes show the base fee alone in some versions.
        """
        claimed = None if raw.gas_price is None else number(raw.gas_price, self._number)
        base_fee = self._header.base_fee_per_gas
        celo_l1 = self._chain.header == "celo" and self._number < self._chain.fork("gingerbread")
        if celo_l1 or (base_fee is None and not self._header.is_proven):
            return claimed
        if base_fee is None:
            raise VerificationFailed("a transaction names a fee cap in a block without base fee", block=self._number)
        return base_fee if self._is_arbitrum and claimed == base_fee else min(cap, base_fee + tip)

    def _check_sender(self, raw: RawTransaction, tx_type: int, unsigned: list[bytes]) -> None:
        signer = signer_of(raw, tx_type, unsigned, self._number)
        sender = None if raw.sender is None else fixed(raw.sender, 20, self._number)
        if signer != sender:
            raise mismatch("a transaction was signed by another than its sender", self._number, signer, sender)

    def _require_unknown(self, raw: RawTransaction, claimed: bytes) -> None:
        """Raise VerificationFailed if the transaction's fields give its hash under a type that the chain has."""
        for tx_type, encoded in self._under_known_types(raw):
            if keccak(encoded) == claimed:
                raise mismatch(
                    "a transaction is not of the type that the node claims", self._number, tx_type, raw.type,
                    hash=shortened(claimed),
                )  # fmt: skip

    def _under_known_types(self, raw: RawTransaction) -> Iterator[tuple[str, bytes]]:
        forms: list[tuple[int, TransactionForm | None]] = [(each, None) for each in STANDARD_TYPES]
        forms += [
            (tx_type, form) for tx_type, form in self._chain.types.items() if form in _UNSIGNED or form in _SIGNED
        ]
        forms += [(0, "celo_legacy")] if self._chain.has_form("celo_fee_currency_gateway") else []
        for tx_type, form in forms:
            try:
                if form is None:
                    yield hex(tx_type), envelope(raw, members(raw, tx_type, self._number), self._number)
                else:
                    yield hex(tx_type), self._encoded(raw, form, tx_type, 0)
            except (VerificationFailed, OverflowError):
                continue


def state_sync_hash(chain: Chain, header: Header) -> bytes | None:
    """Return the hash of the block's state-sync transaction that is in no root, or None if there can be none."""
    if not chain.has_form("polygon_state_sync") or header.number >= chain.fork("madhugiri"):
        return None
    if not polygon.is_sprint_start(header.number, chain.fork("delhi")):
        return None
    return polygon.derived_hash(header.number, header.hash)


def _root_differs(header: Header, chain: Chain, found: bytes) -> VerificationFailed | UnknownForm:
    if chain.leaves_open("transactions", header.number):
        return UnknownForm(
            "the transactions root does not come out, as on every block of this chain",
            part="transactions", kind=None, block=header.number,
        )  # fmt: skip
    return mismatch("the transactions root does not come out", header.number, header.transactions_root, found)


def _special(raw: RawTransaction, tx_type: int, form: TransactionForm, tx_hash: bytes, block: int) -> Transaction:
    """Return a transaction of a special form with the members that the answer shows."""
    if form == "op_deposit" and raw.nonce is None:
        raise UnknownForm("the node leaves out the nonce of a deposit", part="transactions", kind=tx_type, block=block)
    return Transaction(
        hash=tx_hash,
        kind=tx_type,
        sender=None if raw.sender is None else fixed(raw.sender, 20, block),
        to=None if raw.to is None else fixed(raw.to, 20, block),
        value=number(raw.value, block),
        nonce=_number_or_none(raw.nonce, block) or 0,
        gas_limit=number(raw.gas, block),
        gas_price=_number_or_none(raw.gas_price, block),
        max_fee_per_gas=_number_or_none(raw.max_fee_per_gas, block),
        max_priority_fee_per_gas=_number_or_none(raw.max_priority_fee_per_gas, block),
        input=data(raw.input, block),
        form=form,
    )


def _number_or_none(value: object, block: int) -> int | None:
    return None if value is None else number(value, block)


def _require_hash(claimed: bytes, found: bytes, block: int) -> None:
    if claimed != found:
        raise mismatch("a transaction does not give its hash", block, claimed, found)
