"""Logs bloom (yellow paper, section 4.3.1): 2,048 bits, three for each address and topic."""

from __future__ import annotations

from functools import lru_cache

from trace_dagster.verify.commitments.keccak import keccak

_MASKS_KEPT = 1 << 15


@lru_cache(_MASKS_KEPT)
def mask(entry: bytes) -> int:
    """Return the three bits of an address or topic as a 2,048-bit number."""
    digest = keccak(entry)
    found = 0
    for at in (0, 2, 4):
        found |= 1 << (int.from_bytes(digest[at : at + 2], "big") & 2047)
    return found


def as_bytes(bits: int) -> bytes:
    """Return a bloom as the 256 bytes of the header field."""
    return bits.to_bytes(256, "big")
