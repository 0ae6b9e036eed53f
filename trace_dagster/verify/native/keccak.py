"""Keccak-256 (Keccak reference 3.0, section 1; padding of the submission, as the yellow paper uses it)."""

from __future__ import annotations

import numpy as np

from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.types import Bytes, Text, Words

RATE = 136
"""Bytes absorbed by one permutation."""

_ROUND = np.array(
    [
        0x0000000000000001, 0x0000000000008082, 0x800000000000808A, 0x8000000080008000,
        0x000000000000808B, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
        0x000000000000008A, 0x0000000000000088, 0x0000000080008009, 0x000000008000000A,
        0x000000008000808B, 0x800000000000008B, 0x8000000000008089, 0x8000000000008003,
        0x8000000000008002, 0x8000000000000080, 0x000000000000800A, 0x800000008000000A,
        0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
    ],
    np.uint64,
)  # fmt: skip

_BY = tuple(np.uint64(by) for by in range(64))
"""Distances to rotate by, unsigned: numba converts a word shifted by a signed number to a float."""


@native
def _permute(state: Words) -> None:
    """Apply Keccak-f[1600]. The 25 words are local names, because an array would be read and written in every step."""
    a0, a1, a2, a3, a4 = state[0], state[1], state[2], state[3], state[4]
    a5, a6, a7, a8, a9 = state[5], state[6], state[7], state[8], state[9]
    a10, a11, a12, a13, a14 = state[10], state[11], state[12], state[13], state[14]
    a15, a16, a17, a18, a19 = state[15], state[16], state[17], state[18], state[19]
    a20, a21, a22, a23, a24 = state[20], state[21], state[22], state[23], state[24]
    for turn in range(24):
        c0 = a0 ^ a5 ^ a10 ^ a15 ^ a20
        c1 = a1 ^ a6 ^ a11 ^ a16 ^ a21
        c2 = a2 ^ a7 ^ a12 ^ a17 ^ a22
        c3 = a3 ^ a8 ^ a13 ^ a18 ^ a23
        c4 = a4 ^ a9 ^ a14 ^ a19 ^ a24
        d0 = c4 ^ ((c1 << _BY[1]) | (c1 >> _BY[63]))
        d1 = c0 ^ ((c2 << _BY[1]) | (c2 >> _BY[63]))
        d2 = c1 ^ ((c3 << _BY[1]) | (c3 >> _BY[63]))
        d3 = c2 ^ ((c4 << _BY[1]) | (c4 >> _BY[63]))
        d4 = c3 ^ ((c0 << _BY[1]) | (c0 >> _BY[63]))
        b0 = a0 ^ d0
        b10 = ((a1 ^ d1) << _BY[1]) | ((a1 ^ d1) >> _BY[63])
        b20 = ((a2 ^ d2) << _BY[62]) | ((a2 ^ d2) >> _BY[2])
        b5 = ((a3 ^ d3) << _BY[28]) | ((a3 ^ d3) >> _BY[36])
        b15 = ((a4 ^ d4) << _BY[27]) | ((a4 ^ d4) >> _BY[37])
        b16 = ((a5 ^ d0) << _BY[36]) | ((a5 ^ d0) >> _BY[28])
        b1 = ((a6 ^ d1) << _BY[44]) | ((a6 ^ d1) >> _BY[20])
        b11 = ((a7 ^ d2) << _BY[6]) | ((a7 ^ d2) >> _BY[58])
        b21 = ((a8 ^ d3) << _BY[55]) | ((a8 ^ d3) >> _BY[9])
        b6 = ((a9 ^ d4) << _BY[20]) | ((a9 ^ d4) >> _BY[44])
        b7 = ((a10 ^ d0) << _BY[3]) | ((a10 ^ d0) >> _BY[61])
        b17 = ((a11 ^ d1) << _BY[10]) | ((a11 ^ d1) >> _BY[54])
        b2 = ((a12 ^ d2) << _BY[43]) | ((a12 ^ d2) >> _BY[21])
        b12 = ((a13 ^ d3) << _BY[25]) | ((a13 ^ d3) >> _BY[39])
        b22 = ((a14 ^ d4) << _BY[39]) | ((a14 ^ d4) >> _BY[25])
        b23 = ((a15 ^ d0) << _BY[41]) | ((a15 ^ d0) >> _BY[23])
        b8 = ((a16 ^ d1) << _BY[45]) | ((a16 ^ d1) >> _BY[19])
        b18 = ((a17 ^ d2) << _BY[15]) | ((a17 ^ d2) >> _BY[49])
        b3 = ((a18 ^ d3) << _BY[21]) | ((a18 ^ d3) >> _BY[43])
        b13 = ((a19 ^ d4) << _BY[8]) | ((a19 ^ d4) >> _BY[56])
        b14 = ((a20 ^ d0) << _BY[18]) | ((a20 ^ d0) >> _BY[46])
        b24 = ((a21 ^ d1) << _BY[2]) | ((a21 ^ d1) >> _BY[62])
        b9 = ((a22 ^ d2) << _BY[61]) | ((a22 ^ d2) >> _BY[3])
        b19 = ((a23 ^ d3) << _BY[56]) | ((a23 ^ d3) >> _BY[8])
        b4 = ((a24 ^ d4) << _BY[14]) | ((a24 ^ d4) >> _BY[50])
        a0 = b0 ^ (~b1 & b2)
        a1 = b1 ^ (~b2 & b3)
        a2 = b2 ^ (~b3 & b4)
        a3 = b3 ^ (~b4 & b0)
        a4 = b4 ^ (~b0 & b1)
        a5 = b5 ^ (~b6 & b7)
        a6 = b6 ^ (~b7 & b8)
        a7 = b7 ^ (~b8 & b9)
        a8 = b8 ^ (~b9 & b5)
        a9 = b9 ^ (~b5 & b6)
        a10 = b10 ^ (~b11 & b12)
        a11 = b11 ^ (~b12 & b13)
        a12 = b12 ^ (~b13 & b14)
        a13 = b13 ^ (~b14 & b10)
        a14 = b14 ^ (~b10 & b11)
        a15 = b15 ^ (~b16 & b17)
        a16 = b16 ^ (~b17 & b18)
        a17 = b17 ^ (~b18 & b19)
        a18 = b18 ^ (~b19 & b15)
        a19 = b19 ^ (~b15 & b16)
        a20 = b20 ^ (~b21 & b22)
        a21 = b21 ^ (~b22 & b23)
        a22 = b22 ^ (~b23 & b24)
        a23 = b23 ^ (~b24 & b20)
        a24 = b24 ^ (~b20 & b21)
        a0 ^= _ROUND[turn]
    state[0], state[1], state[2], state[3], state[4] = a0, a1, a2, a3, a4
    state[5], state[6], state[7], state[8], state[9] = a5, a6, a7, a8, a9
    state[10], state[11], state[12], state[13], state[14] = a10, a11, a12, a13, a14
    state[15], state[16], state[17], state[18], state[19] = a15, a16, a17, a18, a19
    state[20], state[21], state[22], state[23], state[24] = a20, a21, a22, a23, a24


@native
def keccak(data: Text, start: int, end: int, out: Bytes, at: int, state: Words) -> None:
    """Write the hash of ``data[start:end]`` to ``out[at:at + 32]``. ``state`` is a buffer of 25 words."""
    state[:] = 0
    taken = state.view(np.uint8)  # its words are little-endian, as are the processors this runs on
    while end - start >= RATE:
        for place in range(RATE):
            taken[place] ^= data[start + place]
        _permute(state)
        start += RATE
    left = end - start
    for place in range(left):
        taken[place] ^= data[start + place]
    taken[left] ^= 0x01
    taken[RATE - 1] ^= 0x80
    _permute(state)
    for place in range(32):
        out[at + place] = taken[place]
