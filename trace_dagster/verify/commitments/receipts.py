"""Encodes receipts as the chain hashes them: yellow paper 4.3.1, EIP-658 (status), EIP-2718 (types)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import STANDARD_TYPES
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import UnknownForm
from trace_dagster.verify.commitments.bloom import as_bytes, mask
from trace_dagster.verify.commitments.rlp import EMPTY_LIST, EMPTY_TEXT, sequence, text, uint
from trace_dagster.verify.commitments.trie import EMPTY_ROOT, list_root
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Log, Receipt, ReceiptFields

FAILED, SUCCEEDED = EMPTY_TEXT, b"\x01"
"""The first field of a receipt since Byzantium. Before it, the first field is the state root."""

MOST_TOPICS = 4

_CLASSIC = b"\x00"
"""The first field of every Arbitrum Classic receipt."""

_NO_LOGS = text(bytes(256)) + EMPTY_LIST
_TOPIC_HEADS = (EMPTY_LIST, b"\xe1", b"\xf8\x42", b"\xf8\x63", b"\xf8\x84")
"""RLP list heads for 0 to 4 topics of 33 encoded bytes each."""

_BLOOM = text(bytes(256))[:3]


def prove_receipts(
    outcomes: Sequence[ReceiptFields],
    header: Header,
    proven: Sequence[ReceiptFields] | None = None,
    *,
    unknown: int | None = None,
) -> None:
    """Raise VerificationFailed unless these receipts give the header's receipts root and bloom.

    ``proven`` are receipts already known to give them. If ``outcomes`` equals them, nothing is hashed. ``unknown`` is a
    type among the receipts that the chain's row lacks (see :func:`unknown_type`): if the root does not come out, and
    would not with a known type either, UnknownForm is raised.
    """
    if proven is not None and outcomes == proven:
        return
    blooms = [_bits(each.logs) for each in outcomes]
    root = _root(outcomes, blooms)
    if root != header.receipts_root and any(len(each.tails) > 1 for each in outcomes):
        root = _root(outcomes, blooms, tail=-1)
    if root != header.receipts_root:
        if unknown is not None:
            _require_unknown(outcomes, blooms, header, unknown)
        raise mismatch("the receipts root does not come out", header.number, header.receipts_root, root)
    bloom = 0
    for bits in blooms:
        bloom |= bits
    _require_bloom(as_bytes(bloom), header)


def prove_logs_by_bloom(logs: Sequence[Log], header: Header) -> None:
    """Raise VerificationFailed unless these logs of a block give the header's bloom.

    This finds logs that are missing or altered in address or topics, but not in data, order or number.
    """
    _require_bloom(as_bytes(_bits(logs)), header)


def has_no_receipts(header: Header) -> bool:
    """Return whether the header has the root of an empty list. Then ``null`` or ``[]`` is the right answer.

    On Polygon before Madhugiri such a block may still have a state-sync receipt, which is in no root.
    """
    return header.receipts_root == EMPTY_ROOT


def has_no_transactions(header: Header) -> bool:
    """Return whether the header has the root of an empty list: no receipts and no call frames exist then."""
    return header.transactions_root == EMPTY_ROOT


def has_status(chain_id: int, piece: BlockRange) -> bool:
    """Return whether all receipts of these blocks have a status. Before Byzantium they have a state root instead."""
    return piece.start >= chain_of(chain_id).fork("byzantium")


def status(succeeded: bool) -> bytes:
    """Return the encoded status, the first field of a receipt since Byzantium."""
    return SUCCEEDED if succeeded else FAILED


def first_field(receipt: Receipt) -> bytes:
    """Return a receipt's encoded first field: the state root before Byzantium, the status since then."""
    if receipt.form == "arbitrum_classic":
        return _CLASSIC
    return status(bool(receipt.succeeded)) if receipt.post_state is None else text(receipt.post_state)


def fields_of(receipt: Receipt, logs: Sequence[Log]) -> ReceiptFields:
    """Return the fields of a receipt that the receipts root covers, with these logs. It must be in the root."""
    kind = 0 if receipt.form == "arbitrum_classic" else receipt.kind
    return ReceiptFields(kind, first_field(receipt), receipt.cumulative_gas, logs, receipt.tails)


def receipt_fields(receipts: Sequence[Receipt]) -> Iterator[ReceiptFields]:
    """Yield the fields of each receipt that the receipts root covers."""
    for each in receipts:
        if each.form != "outside_root":
            yield fields_of(each, each.logs)


def unknown_type(receipts: Sequence[Receipt]) -> int | None:
    """Return a type among these receipts that the chain's row lacks, or None."""
    return next((each.kind for each in receipts if each.form == "unknown"), None)


def _root(outcomes: Sequence[ReceiptFields], blooms: Sequence[int], *, tail: int = 0) -> bytes:
    """Return the receipts root; ``tail`` chooses among the tails of receipts that may have several."""
    return list_root(
        [
            _encoded(each, bits, each.tails[tail] if each.tails else b"")
            for each, bits in zip(outcomes, blooms, strict=True)
        ]
    )


def _require_unknown(outcomes: Sequence[ReceiptFields], blooms: Sequence[int], header: Header, unknown: int) -> None:
    """Raise UnknownForm, or return if the root comes out with a known type in place of the unknown one."""
    for kind in STANDARD_TYPES:
        changed = [each._replace(kind=kind) if each.kind == unknown else each for each in outcomes]
        if _root(changed, blooms) == header.receipts_root:
            return
    raise UnknownForm(
        "the receipts root does not come out, and this version does not know the form of a receipt on this chain",
        part="receipts", kind=unknown, block=header.number, type=f"{unknown:#x}",
    )  # fmt: skip


def _require_bloom(bloom: bytes, header: Header) -> None:
    if bloom != header.logs_bloom:
        raise mismatch("the logs bloom does not come out", header.number, header.logs_bloom, bloom)


def _encoded(receipt: ReceiptFields, bits: int, tail: bytes) -> bytes:
    logs = receipt.logs
    rest = _BLOOM + as_bytes(bits) + sequence(*[_log(*log) for log in logs]) if logs else _NO_LOGS
    payload = sequence(receipt.first, uint(receipt.cumulative_gas), rest, tail)
    return bytes([receipt.kind]) + payload if receipt.kind else payload


def _log(address: bytes, topics: tuple[bytes, ...], data: bytes) -> bytes:
    return sequence(b"\x94", address, _TOPIC_HEADS[len(topics)], b"\xa0".join((b"", *topics)), text(data))


def _bits(logs: Sequence[Log]) -> int:
    bits = 0
    for address, topics, _ in logs:
        bits |= mask(address)
        for topic in topics:
            bits |= mask(topic)
    return bits
