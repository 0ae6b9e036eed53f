"""Turns raw answers into evidence. Each function proves what it returns.

They raise VerificationFailed if a hash or root differs, and UnknownFormat if the answer has a form that this version
does not know. Blocks are block numbers; hashes have 32 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trace_dagster.errors import UnknownFormat, VerificationFailed
from trace_dagster.verify.commitments.envelopes import Members, envelope, members, recover_sender
from trace_dagster.verify.commitments.hex import data, fixed, kind, number
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.receipts import MOST_TOPICS, prove_receipts, status
from trace_dagster.verify.commitments.rlp import sequence, text, uint
from trace_dagster.verify.commitments.rpc_json import (
    RawFullBlock,
    RawHeader,
    RawLog,
    RawReceipt,
    RawReceiptWithoutLogs,
    RawTransaction,
)
from trace_dagster.verify.commitments.trie import list_root
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Log, Receipt, ReceiptFields, Transaction

__all__ = ["claimed_receipts", "prove_header", "prove_transactions", "receipts_of", "recover_sender", "require_linked"]


def prove_header(raw: RawHeader, block_number: int) -> Header:
    """Return the header. Raises unless it has the requested number and keccak(rlp(header)) is its hash."""
    block = block_number
    if number(raw.number, block) != block:
        raise mismatch("the node answered with another block", block, block, number(raw.number, block))
    header = _header(raw, block)
    found = keccak(_encoded_header(raw, header))
    if found != header.hash:
        unknown = raw.unknown_members()
        if unknown:
            raise UnknownFormat(
                "the header has members this version does not know", block=block, members=",".join(unknown)[:200]
            )
        raise mismatch("the header does not give the block's hash", block, header.hash, found)
    return header


def prove_transactions(raw: RawFullBlock, header: Header, *, deep: bool = False) -> list[Transaction]:
    """Return the block's transactions. Raises unless they give their hashes and the transactions root.

    ``deep`` recovers each sender from its signature, in about 60 us per transaction. Otherwise senders are not proven.
    """
    found, envelopes = [], []
    for each in raw.transactions:
        read = members(each, header.number)
        encoded = envelope(each, read, header.number)
        found.append(_transaction(each, read, keccak(encoded), header))
        envelopes.append(encoded)
        if deep:
            _check_sender(each, found[-1], header.number)
    root = list_root(envelopes)
    if root != header.transactions_root:
        raise mismatch("the transactions root does not come out", header.number, header.transactions_root, root)
    return found


def receipts_of(raw: Sequence[RawReceipt], header: Header) -> list[Receipt]:
    """Return the block's receipts. Raises unless they give the header's receipts root and bloom."""
    receipts = claimed_receipts(raw, header.number)
    prove_receipts(list(receipt_fields(receipts)), header)
    return receipts


def claimed_receipts(raw: Sequence[RawReceipt] | Sequence[RawReceiptWithoutLogs], block: int) -> list[Receipt]:
    """Return the receipts as the node claims them, unproven. The caller replaces fields by rows and proves the root."""
    receipts: list[Receipt] = []
    for each in raw:
        before = receipts[-1].cumulative_gas if receipts else 0
        receipts.append(_receipt(each, before, block))
    return receipts


def receipt_fields(receipts: Sequence[Receipt]) -> Iterator[ReceiptFields]:
    """Yield the fields of each receipt that the receipts root covers."""
    for each in receipts:
        yield each.kind, first_field(each), each.cumulative_gas, each.logs


def first_field(receipt: Receipt) -> bytes:
    """Return a receipt's encoded first field: the state root before Byzantium, the status since then."""
    return status(bool(receipt.succeeded)) if receipt.post_state is None else text(receipt.post_state)


def require_linked(headers: Sequence[Header], parent: bytes | None) -> None:
    """Raise VerificationFailed unless each header's parent_hash is the hash of the header before it.

    ``parent`` is the hash of the block before the first header, or None if it is not known.
    """
    before = parent
    for header in headers:
        if before is not None and header.parent_hash != before:
            raise mismatch("parent_hash is not the hash of the block before", header.number, before, header.parent_hash)
        before = header.hash


def _header(raw: RawHeader, block: int) -> Header:
    return Header(
        number=block,
        hash=fixed(raw.hash, 32, block),
        parent_hash=fixed(raw.parent_hash, 32, block),
        transactions_root=fixed(raw.transactions_root, 32, block),
        receipts_root=fixed(raw.receipts_root, 32, block),
        logs_bloom=fixed(raw.logs_bloom, 256, block),
        state_root=fixed(raw.state_root, 32, block),
        author=fixed(raw.miner, 20, block),
        gas_used=number(raw.gas_used, block),
        extra_data=data(raw.extra_data, block),
        timestamp=number(raw.timestamp, block),
        base_fee_per_gas=None if raw.base_fee_per_gas is None else number(raw.base_fee_per_gas, block),
    )


def _encoded_header(raw: RawHeader, header: Header) -> bytes:
    """RLP of all fields up to the last the block has (yellow paper 4.4, EIP-1559, 4895, 4844, 4788, 7685)."""
    block = header.number
    assert header.state_root is not None
    assert header.author is not None
    assert header.extra_data is not None
    return sequence(
        b"\xa0",
        header.parent_hash,
        b"\xa0",
        fixed(raw.sha3_uncles, 32, block),
        b"\x94",
        header.author,
        b"\xa0",
        header.state_root,
        b"\xa0",
        header.transactions_root,
        b"\xa0",
        header.receipts_root,
        b"\xb9\x01\x00",
        header.logs_bloom,
        uint(number(raw.difficulty, block)),
        uint(block),
        uint(number(raw.gas_limit, block)),
        uint(header.gas_used or 0),
        uint(header.timestamp or 0),
        text(header.extra_data),
        b"\xa0",
        fixed(raw.mix_hash, 32, block),
        b"\x88",
        fixed(raw.nonce, 8, block),
        *_later_fields(raw, block),
    )


def _later_fields(raw: RawHeader, block: int) -> list[bytes]:
    """Return the encoded fields added by forks, in order. A gap raises: a value could pass for another field."""
    given = (
        (_uint, raw.base_fee_per_gas),
        (_hash32, raw.withdrawals_root),
        (_uint, raw.blob_gas_used),
        (_uint, raw.excess_blob_gas),
        (_hash32, raw.parent_beacon_block_root),
        (_hash32, raw.requests_hash),
    )
    fields: list[bytes] = []
    missing = False
    for encoded, value in given:
        if value is None:
            missing = True
        elif missing:
            raise VerificationFailed("the header lacks a field that later ones need", block=block)
        else:
            fields.append(encoded(value, block))
    return fields


def _hash32(value: str, block: int) -> bytes:
    return text(fixed(value, 32, block))


def _uint(value: str, block: int) -> bytes:
    return uint(number(value, block))


def _transaction(raw: RawTransaction, read: Members, found: bytes, header: Header) -> Transaction:
    block = header.number
    claimed = fixed(raw.hash, 32, block)
    if claimed != found:
        raise mismatch("a transaction does not give its hash", block, claimed, found)
    return Transaction(
        hash=found,
        kind=read.kind,
        sender=None if raw.sender is None else fixed(raw.sender, 20, block),
        to=read.to,
        value=read.value,
        nonce=read.nonce,
        gas_limit=read.gas,
        gas_price=_price(read, header),
        max_fee_per_gas=read.cap,
        max_priority_fee_per_gas=read.tip,
        input=read.input,
    )


def _price(read: Members, header: Header) -> int:
    """Return the effective price per unit of gas in wei (EIP-1559)."""
    if read.price is not None:
        return read.price
    if header.base_fee_per_gas is None:
        raise VerificationFailed("a transaction names a fee cap in a block without base fee", block=header.number)
    return min(read.cap or 0, header.base_fee_per_gas + (read.tip or 0))


def _check_sender(raw: RawTransaction, transaction: Transaction, block: int) -> None:
    signer = recover_sender(raw, block)
    if signer != transaction.sender:
        raise mismatch("a transaction was signed by another than its sender", block, signer, transaction.sender)


def _receipt(raw: RawReceipt | RawReceiptWithoutLogs, gas_before: int, block: int) -> Receipt:
    cumulative = number(raw.cumulative_gas_used, block)
    state = None if raw.status is not None or raw.root is None else fixed(raw.root, 32, block)
    return Receipt(
        kind=kind(raw.type, block),
        succeeded=None if state is not None else _succeeded(raw.status, block),
        cumulative_gas=cumulative,
        gas_used=cumulative - gas_before,
        transaction_hash=None if raw.transaction_hash is None else fixed(raw.transaction_hash, 32, block),
        logs=tuple([_log(log, block) for log in raw.logs]) if isinstance(raw, RawReceipt) else (),
        post_state=state,
    )


def _succeeded(text_of_status: str | None, block: int) -> bool:
    found = number(text_of_status, block)
    if found > 1:
        raise mismatch("a receipt's status is neither 0 nor 1", block, "0 or 1", found)
    return found == 1


def _log(raw: RawLog, block: int) -> Log:
    if len(raw.topics) > MOST_TOPICS:
        raise mismatch("a log has too many topics", block, MOST_TOPICS, len(raw.topics))
    topics = tuple([fixed(topic, 32, block) for topic in raw.topics])
    return fixed(raw.address, 20, block), topics, data(raw.data, block)
