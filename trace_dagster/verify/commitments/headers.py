"""Encodes headers as each chain hashes them.

Ethereum: yellow paper 4.4, EIP-1559, 4895, 4844, 4788, 7685, 7928, 7843. The fields up to extraData are the same on all
chains but Celo before its Gingerbread fork; the seal that follows, and the fields that forks added, differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from trace_dagster.datasets.chain import Chain
from trace_dagster.errors import UnknownForm, VerificationFailed
from trace_dagster.verify.commitments.encoding import hash32, quantity
from trace_dagster.verify.commitments.hex import data, fixed, number
from trace_dagster.verify.commitments.rlp import EMPTY_TEXT, sequence, text, uint
from trace_dagster.verify.commitments.rpc_json import Member, RawHeader
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header

_Encoder = Callable[[Member, int], bytes]
_Later = Sequence[tuple[_Encoder, Sequence[str]]]
"""Fields that forks added, in order: how each is encoded, and the names of its member in answers."""

_SIGNATURE_BYTES = 65
_MOST_STEPS = 1 << 64


def header_of(raw: RawHeader, block: int, *, is_proven: bool) -> Header:
    """Return the header's members as they are in the answer. Raises VerificationFailed for a malformed member."""
    found = number(raw.number, block)
    if found != block:
        raise mismatch("the node answered with another block", block, block, found)
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
        is_proven=is_proven,
    )


def unproven_columns(chain: Chain, block: int) -> list[str]:
    """Return which columns of dataset ``blocks`` the chain's block hash leaves out, from this block on."""
    if chain.header == "scroll":
        return ["extra_data since EuclidV2"]
    return ["base_fee_per_gas"] if chain.header == "celo" and block < chain.fork("gingerbread") else []


def encodings(raw: RawHeader, header: Header, chain: Chain) -> Iterator[bytes]:
    """Yield each encoding that the header may have on this chain; one of them gives the hash of an honest answer.

    Raises UnknownForm if no encoding of the chain's headers is known.
    """
    block = header.number
    if chain.header == "other":
        raise UnknownForm(
            "the chain's block hash is not that of its header, so the header cannot be proven",
            part="header", kind=None, block=block,
        )  # fmt: skip
    if not chain.is_listed and _lacks_members(raw):
        raise UnknownForm("the header lacks members that the standard form has", part="header", kind=None, block=block)
    if chain.header == "celo" and block < chain.fork("gingerbread"):
        yield _before_gingerbread(header)
        return
    seals = chain.header == "aura" or not chain.is_listed
    if seals and (seal := _aura_seal(raw, block)) is not None:
        yield _encoded(raw, header, [*seal, *_later(raw, _ETHEREUM, block)])
        if chain.is_listed or raw.mix_hash is None:
            return
    if chain.header == "avalanche" or (not chain.is_listed and raw.ext_data_hash is not None):
        extra = hash32(raw.ext_data_hash, block)
        yield _encoded(raw, header, [*_seal(raw, block), extra, *_later(raw, _AVALANCHE, block, has_gaps=True)])
        return
    rest = [*_seal(raw, block), *_later(raw, _ETHEREUM, block)]
    yield _encoded(raw, header, rest)
    if chain.header == "scroll" and header.extra_data:  # since EuclidV2 the hash leaves it out
        yield _encoded(raw, header, rest, extra_data=b"")


def _encoded(raw: RawHeader, header: Header, rest: list[bytes], *, extra_data: bytes | None = None) -> bytes:
    """Return the RLP of a header: the fields up to extraData, then ``rest``, which is encoded already."""
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
        text(header.extra_data if extra_data is None else extra_data),
        *rest,
    )


def _before_gingerbread(header: Header) -> bytes:
    """Return Celo's shorter header. What else nodes show of it, such as a base fee, is in no commitment."""
    assert header.state_root is not None
    assert header.author is not None
    assert header.extra_data is not None
    return sequence(
        text(header.parent_hash),
        text(header.author),
        text(header.state_root),
        text(header.transactions_root),
        text(header.receipts_root),
        text(header.logs_bloom),
        uint(header.number),
        uint(header.gas_used or 0),
        uint(header.timestamp or 0),
        text(header.extra_data),
    )


def _seal(raw: RawHeader, block: int) -> list[bytes]:
    return [text(fixed(raw.mix_hash, 32, block)), text(fixed(raw.nonce, 8, block))]


def _aura_seal(raw: RawHeader, block: int) -> list[bytes] | None:
    """Return the encoded step and signature of an AuRa header as Nethermind, Erigon or OpenEthereum show them.

    None if the answer shows none: then the header has mixHash and nonce.
    """
    if raw.aura_seal is not None:
        return [quantity(raw.aura_step, block), text(fixed(raw.aura_seal, _SIGNATURE_BYTES, block))]
    if isinstance(raw.seal_fields, list) and len(raw.seal_fields) == 2 and raw.mix_hash is None:
        return _sealed_fields(raw.seal_fields, block)
    if raw.signature is not None:
        step = raw.step if isinstance(raw.step, int) and 0 <= raw.step < _MOST_STEPS else number(raw.step, block)
        return [uint(step), text(fixed(raw.signature, _SIGNATURE_BYTES, block))]
    return None


def _sealed_fields(items: list[Member], block: int) -> list[bytes]:
    """Return two items that are RLP already. Anything else in them could pass for further header fields."""
    step, signature = (data(each, block) for each in items)
    size = step[0] - EMPTY_TEXT[0] if step[:1] >= EMPTY_TEXT else 0
    value = int.from_bytes(step[1:] if size else step, "big") if len(step) <= 9 and step != EMPTY_TEXT else 0
    if uint(value) != step or text(signature[2:]) != signature or len(signature) != _SIGNATURE_BYTES + 2:
        raise VerificationFailed("the header's seal is not an AuRa step and signature", block=block)
    return [step, signature]


def _later(raw: RawHeader, fields: _Later, block: int, *, has_gaps: bool = False) -> list[bytes]:
    """Return the encoded fields that forks added, up to the last one that the answer has.

    A gap raises unless the chain's headers may have gaps: a value could pass for another field.
    """
    found: list[bytes] = []
    missing = 0
    for encode, names in fields:
        value = next((each for name in names if (each := getattr(raw, name)) is not None), None)
        if value is None:
            missing += 1
        elif missing and not (has_gaps and found):
            raise VerificationFailed("the header lacks a field that later ones need", block=block)
        else:
            found += [EMPTY_TEXT] * missing + [encode(value, block)]
            missing = 0
    return found


def _lacks_members(raw: RawHeader) -> bool:
    sealed = raw.signature is not None or raw.aura_seal is not None or raw.seal_fields is not None
    needed = [raw.sha3_uncles, raw.difficulty, raw.gas_limit, *([] if sealed else [raw.mix_hash, raw.nonce])]
    return any(each is None for each in needed)


_ETHEREUM: _Later = (
    (quantity, ["base_fee_per_gas"]),
    (hash32, ["withdrawals_root"]),
    (quantity, ["blob_gas_used"]),
    (quantity, ["excess_blob_gas"]),
    (hash32, ["parent_beacon_block_root"]),
    (hash32, ["requests_hash"]),
    (hash32, ["block_access_list_hash"]),
    (quantity, ["slot_number"]),
)
_AVALANCHE: _Later = (
    (quantity, ["base_fee_per_gas"]),
    (quantity, ["ext_data_gas_used"]),
    (quantity, ["block_gas_cost"]),
    (quantity, ["blob_gas_used"]),
    (quantity, ["excess_blob_gas"]),
    (hash32, ["parent_beacon_block_root"]),
    (quantity, ["timestamp_milliseconds"]),
    (quantity, ["min_delay_excess"]),
    (quantity, ["target_exponent", "target_excess"]),
    (quantity, ["min_price_exponent"]),
    (quantity, ["settled_height"]),
    (quantity, ["settled_gas_unix"]),
    (quantity, ["settled_gas_numerator"]),
    (quantity, ["settled_excess"]),
)
