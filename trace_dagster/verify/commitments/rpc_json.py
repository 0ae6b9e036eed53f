"""Decodes JSON-RPC answers with msgspec: only the fields that proofs need, and their values still as text.

Answers may be hostile. Any malformed answer raises VerificationFailed, either here or when its text is read.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import msgspec

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import shortened

Json = bytes | msgspec.Raw
"""The JSON text of an answer's ``result`` member."""


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
    """A transaction of any type. Its type decides which fields must be present; ``envelopes`` checks that."""

    hash: str
    nonce: str
    gas: str
    value: str
    input: str
    r: str
    s: str
    to: str | None = None
    sender: str | None = msgspec.field(name="from", default=None)
    type: str | None = None
    v: str | None = None
    y_parity: str | None = None
    chain_id: str | None = None
    gas_price: str | None = None
    max_fee_per_gas: str | None = None
    max_priority_fee_per_gas: str | None = None
    max_fee_per_blob_gas: str | None = None
    blob_versioned_hashes: list[str] | None = None
    access_list: list[RawAccess] | None = None
    authorization_list: list[RawAuthorization] | None = None


class RawHeader(msgspec.Struct, rename="camel"):
    """A block's header fields, up to Prague, and its hash. ``source`` is the JSON text of the whole block."""

    hash: str
    parent_hash: str
    sha3_uncles: str
    miner: str
    state_root: str
    transactions_root: str
    receipts_root: str
    logs_bloom: str
    difficulty: str
    number: str
    gas_limit: str
    gas_used: str
    timestamp: str
    extra_data: str
    mix_hash: str
    nonce: str
    base_fee_per_gas: str | None = None
    withdrawals_root: str | None = None
    blob_gas_used: str | None = None
    excess_blob_gas: str | None = None
    parent_beacon_block_root: str | None = None
    requests_hash: str | None = None
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

    cumulative_gas_used: str
    status: str | None = None
    root: str | None = None
    type: str | None = None
    transaction_hash: str | None = None


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
        " source",
    }
)
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


def _decoded(decoder: msgspec.json.Decoder[Any], data: Json, what: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # msgspec's message has the path and the type, but not the value
        raise VerificationFailed(f"the node's answer is not of the form of {what}", reason=shortened(error)) from None
