"""Decode JSON-RPC answers with msgspec into the members that proofs need, still as text.

Answers are hostile. Anything wrong with one raises VerificationFailed, here or when its text is converted.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import msgspec

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.mismatch import shown

Json = bytes | msgspec.Raw
"""The JSON text of an answer's ``result`` member."""


class RawAccess(msgspec.Struct, rename="camel", gc=False):
    """An entry of an access list (EIP-2930)."""

    address: str
    storage_keys: list[str]


class RawAuthorization(msgspec.Struct, rename="camel", gc=False):
    """An entry of an authorization list (EIP-7702); nodes call the parity ``yParity`` or ``v``."""

    chain_id: str
    address: str
    nonce: str
    r: str
    s: str
    y_parity: str | None = None
    v: str | None = None


class RawTransaction(msgspec.Struct, rename="camel", gc=False):
    """A transaction of any type. Its type decides which members it must have."""

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
    """A block's header members up to Prague, and its hash. ``source`` is the text that they were read from."""

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
        """Return the answer's members that are neither header fields nor known not to be, sorted."""
        return sorted(map(shown, set(_decoded(_MEMBERS, self.source, "a block")) - _KNOWN))


class RawBlock(RawHeader, rename="camel", kw_only=True):
    """A block with its transactions' hashes."""

    transactions: list[str]


class RawFullBlock(RawHeader, rename="camel", kw_only=True):
    """A block with its transactions."""

    transactions: list[RawTransaction]


class RawLog(msgspec.Struct, gc=False):
    """A log. Its index follows from its place in the receipt."""

    address: str
    topics: list[str]
    data: str


class RawOutcome(msgspec.Struct, rename="camel", gc=False):
    """A receipt without its logs. It has ``root`` instead of ``status`` before Byzantium (EIP-658)."""

    cumulative_gas_used: str
    status: str | None = None
    root: str | None = None
    type: str | None = None
    transaction_hash: str | None = None


class RawReceipt(RawOutcome, rename="camel", gc=False, kw_only=True):
    """A receipt with its logs."""

    logs: list[RawLog]


_NOT_HEADER = frozenset(
    {
        "transactions",
        "uncles",  # their hashes; the header has sha3Uncles
        "withdrawals",  # the header has their root
        "size",
        "totalDifficulty",
        "author",  # second name of miner in Parity and Nethermind
        "sealFields",  # Parity repeats mixHash and nonce here
        " source",
    }
)
_KNOWN = _NOT_HEADER | set(RawHeader.__struct_encode_fields__)

_BLOCK = msgspec.json.Decoder(RawBlock)
_FULL_BLOCK = msgspec.json.Decoder(RawFullBlock)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RECEIPTS = msgspec.json.Decoder(list[RawReceipt])
_OUTCOMES = msgspec.json.Decoder(list[RawOutcome])


@overload
def decode_block(data: Json, *, full: Literal[True]) -> RawFullBlock: ...
@overload
def decode_block(data: Json, *, full: Literal[False]) -> RawBlock: ...
def decode_block(data: Json, *, full: bool) -> RawBlock | RawFullBlock:
    """Decode an answer to ``eth_getBlockByNumber``, with whole transactions if ``full``.

    Raise VerificationFailed for null and for any other form.
    """
    found = _decoded(_FULL_BLOCK if full else _BLOCK, data, "a block")
    found.source = data
    return found  # type: ignore[no-any-return]


def decode_receipts(data: Json) -> list[RawReceipt]:
    """Decode an answer to ``eth_getBlockReceipts``. Raise VerificationFailed as :func:`decode_block` does."""
    return _decoded(_RECEIPTS, data, "receipts")  # type: ignore[no-any-return]


def decode_outcomes(data: Json) -> list[RawOutcome]:
    """Decode the same answer without the logs, for a caller that has them from rows."""
    return _decoded(_OUTCOMES, data, "receipts")  # type: ignore[no-any-return]


def _decoded(decoder: msgspec.json.Decoder[Any], data: Json, what: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # msgspec names the place and the type of what it found, never the value
        raise VerificationFailed(f"the node's answer is not of the form of {what}", reason=shown(error)) from None
