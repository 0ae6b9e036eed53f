"""Decodes JSON-RPC answers with msgspec: only the fields that proofs need, and their values still as text.

Answers may be hostile. Any malformed answer raises VerificationFailed, either here or when its text is read. Chains
give the same member different JSON types, so members are read as they are: their converters (``hex``) refuse all but
text, and only if the chain's form needs the member.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, overload

import msgspec

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import shortened

Json = bytes | msgspec.Raw
"""The JSON text of an answer's ``result`` member."""

Member = Any
"""A member of an answer: hex text if the answer is honest."""

_Item = TypeVar("_Item")


class RawAccess(msgspec.Struct, rename="camel", gc=False):
    """An entry of an access list (EIP-2930)."""

    address: str
    storage_keys: list[str]


class RawAuthorization(msgspec.Struct, rename="camel", gc=False):
    """An entry of an authorization list (EIP-7702). Nodes send the parity as ``yParity`` or as ``v``."""

    chain_id: str
    address: str
    nonce: str
    r: str
    s: str
    y_parity: str | None = None
    v: str | None = None


class RawTransaction(msgspec.Struct, rename="camel", gc=False):
    """A transaction of any type and chain. Its form decides which members must be present."""

    hash: str
    nonce: Member = None
    gas: Member = None
    value: Member = None
    input: Member = None
    r: Member = None
    s: Member = None
    to: Member = None
    sender: Member = msgspec.field(name="from", default=None)
    type: Member = None
    v: Member = None
    y_parity: Member = None
    chain_id: Member = None
    gas_price: Member = None
    max_fee_per_gas: Member = None
    max_priority_fee_per_gas: Member = None
    max_fee_per_blob_gas: Member = None
    blob_versioned_hashes: Member = None
    access_list: Member = None
    authorization_list: Member = None
    # OP Stack
    source_hash: Member = None
    mint: Member = None
    is_system_tx: Member = None
    # Arbitrum
    request_id: Member = None
    ticket_id: Member = None
    refund_to: Member = None
    max_refund: Member = None
    submission_fee_refund: Member = None
    l1_base_fee: Member = None
    deposit_value: Member = None
    retry_to: Member = None
    retry_value: Member = None
    retry_data: Member = None
    beneficiary: Member = None
    max_submission_fee: Member = None
    # Celo
    fee_currency: Member = None
    max_fee_in_fee_currency: Member = None
    gateway_fee_recipient: Member = None
    gateway_fee: Member = None
    eth_compatible: Member = None
    # Scroll
    queue_index: Member = None


class RawHeader(msgspec.Struct, rename="camel"):
    """A block's header fields of all chains, and its hash. ``source`` is the JSON text of the whole block."""

    hash: Member
    parent_hash: Member
    miner: Member
    state_root: Member
    transactions_root: Member
    receipts_root: Member
    logs_bloom: Member
    number: Member
    gas_used: Member
    timestamp: Member
    extra_data: Member
    sha3_uncles: Member = None
    difficulty: Member = None
    gas_limit: Member = None
    mix_hash: Member = None
    nonce: Member = None
    base_fee_per_gas: Member = None
    withdrawals_root: Member = None
    blob_gas_used: Member = None
    excess_blob_gas: Member = None
    parent_beacon_block_root: Member = None
    requests_hash: Member = None
    block_access_list_hash: Member = None
    slot_number: Member = None
    # Avalanche; two members were renamed before they were used
    ext_data_hash: Member = None
    ext_data_gas_used: Member = None
    block_gas_cost: Member = None
    timestamp_milliseconds: Member = None
    min_delay_excess: Member = None
    target_exponent: Member = None
    target_excess: Member = None
    min_price_exponent: Member = None
    settled_height: Member = None
    settled_gas_unix: Member = None
    settled_gas_numerator: Member = None
    settled_excess: Member = None
    # AuRa seals: Nethermind, Erigon, OpenEthereum
    step: Member = None
    signature: Member = None
    aura_step: Member = None
    aura_seal: Member = None
    seal_fields: Member = None
    source: Any = msgspec.field(name=" source", default=b"{}")

    def unknown_members(self) -> list[str]:
        """Return the names of the answer's fields, sorted, that are neither header fields nor other known fields."""
        return sorted(map(shortened, set(_decoded(_MEMBERS, self.source, "a block")) - _KNOWN))


class RawBlock(RawHeader, rename="camel", kw_only=True):
    """A block with its transactions' hashes."""

    transactions: list[str]


class RawFullBlock(RawHeader, rename="camel", kw_only=True):
    """A block with its transactions."""

    transactions: list[RawTransaction]


class RawLog(msgspec.Struct, gc=False):
    """A log. Its position is its index in the receipt."""

    address: str
    topics: list[str]
    data: str


class RawReceiptWithoutLogs(msgspec.Struct, rename="camel", gc=False):
    """A receipt without its logs. Before Byzantium (EIP-658) it has ``root`` instead of ``status``."""

    cumulative_gas_used: Member
    status: Member = None
    root: Member = None
    type: Member = None
    transaction_hash: Member = None
    sender: Member = msgspec.field(name="from", default=None)
    gas_used: Member = None
    deposit_nonce: Member = None
    deposit_receipt_version: Member = None
    base_fee: Member = None
    fee_in_fee_currency: Member = None


class RawReceipt(RawReceiptWithoutLogs, rename="camel", gc=False, kw_only=True):
    """A receipt with its logs."""

    logs: list[RawLog]


_NOT_HEADER = frozenset(
    {
        "transactions",
        "uncles",  # their hashes; the header field is sha3Uncles
        "withdrawals",  # the header field is withdrawalsRoot
        "size",
        "totalDifficulty",
        "author",  # Parity and Nethermind repeat miner here
        "sealFields",  # Parity repeats mixHash and nonce here
        "l1BlockNumber", "sendCount", "sendRoot",  # Arbitrum: read from extraData and mixHash
        "blockExtraData",  # Avalanche: extDataHash covers it
        "epoch", "timestampNano",  # Sonic
        "milliTimestamp",  # BNB Smart Chain: mixHash holds the milliseconds
        " source",
    }
)  # fmt: skip
_KNOWN = _NOT_HEADER | set(RawHeader.__struct_encode_fields__)

_BLOCK = msgspec.json.Decoder(RawBlock)
_FULL_BLOCK = msgspec.json.Decoder(RawFullBlock)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RECEIPTS = msgspec.json.Decoder(list[RawReceipt])
_OUTCOMES = msgspec.json.Decoder(list[RawReceiptWithoutLogs])


@overload
def decode_block(data: Json, *, full: Literal[True]) -> RawFullBlock: ...
@overload
def decode_block(data: Json, *, full: Literal[False]) -> RawBlock: ...
def decode_block(data: Json, *, full: bool) -> RawBlock | RawFullBlock:
    """Decode an answer to ``eth_getBlockByNumber``, which has whole transactions if ``full``, else their hashes.

    Raises VerificationFailed if the answer is null or malformed.
    """
    found = _decoded(_FULL_BLOCK if full else _BLOCK, data, "a block")
    found.source = data
    return found  # type: ignore[no-any-return]


def decode_receipts(data: Json) -> list[RawReceipt]:
    """Decode an answer to ``eth_getBlockReceipts``. Raises VerificationFailed if it is null or malformed."""
    return _decoded(_RECEIPTS, data, "receipts")  # type: ignore[no-any-return]


def decode_receipts_without_logs(data: Json) -> list[RawReceiptWithoutLogs]:
    """Decode the same answer without the logs, for callers that take the logs from rows."""
    return _decoded(_OUTCOMES, data, "receipts")  # type: ignore[no-any-return]


def converted(value: Member, kind: type[_Item], block: int) -> list[_Item]:
    """Return a list member as its items. Raises VerificationFailed if it is missing or no such list."""
    try:
        if value is not None:
            return msgspec.convert(value, list[kind])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, RecursionError) as error:
        raise VerificationFailed(
            "the node's answer is not of the form of a block", block=block, reason=shortened(error)
        ) from None
    raise VerificationFailed("a transaction lacks a list its type has", block=block)


def _decoded(decoder: msgspec.json.Decoder[Any], data: Json, what: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # msgspec's message has the path and the type, but not the value
        raise VerificationFailed(f"the node's answer is not of the form of {what}", reason=shortened(error)) from None
