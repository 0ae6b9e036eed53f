"""Encodes receipts as the chain hashes them: yellow paper 4.3.1, EIP-658 (status), EIP-2718 (types)."""

from __future__ import annotations

from collections.abc import Sequence

from trace_dagster.blocks import BlockRange
from trace_dagster.verify.commitments.bloom import as_bytes, mask
from trace_dagster.verify.commitments.rlp import EMPTY_LIST, EMPTY_TEXT, sequence, text, uint
from trace_dagster.verify.commitments.trie import list_root
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Header, Log, ReceiptFields

FAILED, SUCCEEDED = EMPTY_TEXT, b"\x01"
"""The first field of a receipt since Byzantium. Before it, the first field is the state root."""

MOST_TOPICS = 4
BYZANTIUM = {1: 4_370_000, 3: 1_700_000, 61: 8_772_000}
"""First block with status receipts (EIP-658) by chain id, for chains that began before it. Default: block 0."""

_NO_LOGS = text(bytes(256)) + EMPTY_LIST
_TOPIC_HEADS = (EMPTY_LIST, b"\xe1", b"\xf8\x42", b"\xf8\x63", b"\xf8\x84")
"""RLP list heads for 0 to 4 topics of 33 encoded bytes each."""

_BLOOM = text(bytes(256))[:3]


def prove_receipts(
    outcomes: Sequence[ReceiptFields], header: Header, proven: Sequence[ReceiptFields] | None = None
) -> None:
    """Raise VerificationFailed unless these receipts give the header's receipts root and bloom.

    ``proven`` are receipts already known to give them. If ``outcomes`` equals them, nothing is hashed.
    """
    if proven is not None and outcomes == proven:
        return
    encoded, bloom = [], 0
    for kind, first, cumulative, logs in outcomes:
        bits = _bits(logs)
        bloom |= bits
        encoded.append(_encoded(kind, first, cumulative, bits, logs))
    root = list_root(encoded)
    if root != header.receipts_root:
        raise mismatch("the receipts root does not come out", header.number, header.receipts_root, root)
    if as_bytes(bloom) != header.logs_bloom:
        raise mismatch("the logs bloom does not come out", header.number, header.logs_bloom, as_bytes(bloom))


def has_status(chain_id: int, piece: BlockRange) -> bool:
    """Return whether all receipts of these blocks have a status. Before Byzantium they have a state root instead."""
    return piece.start >= BYZANTIUM.get(chain_id, 0)


def status(succeeded: bool) -> bytes:
    """Return the encoded status, the first field of a receipt since Byzantium."""
    return SUCCEEDED if succeeded else FAILED


def _encoded(kind: int, first: bytes, cumulative: int, bits: int, logs: Sequence[Log]) -> bytes:
    tail = _BLOOM + as_bytes(bits) + sequence(*[_log(*log) for log in logs]) if logs else _NO_LOGS
    payload = sequence(first, uint(cumulative), tail)
    return bytes([kind]) + payload if kind else payload


def _log(address: bytes, topics: tuple[bytes, ...], data: bytes) -> bytes:
    return sequence(b"\x94", address, _TOPIC_HEADS[len(topics)], b"\xa0".join((b"", *topics)), text(data))


def _bits(logs: Sequence[Log]) -> int:
    bits = 0
    for address, topics, _ in logs:
        bits |= mask(address)
        for topic in topics:
            bits |= mask(topic)
    return bits
