"""Root of a block's transactions or receipts. ``verify/commitments/trie.py`` is the same in Python."""

from __future__ import annotations

from trace_dagster.verify.native.encode import begin, close, put_head, put_text
from trace_dagster.verify.native.jit import native
from trace_dagster.verify.native.keccak import keccak
from trace_dagster.verify.native.types import Bytes, Found, Places, Words

MOST_ITEMS = 1 << 16
DEEPEST = 12
"""Frames needed at most: a key has at most six nibbles."""
_HASH_BYTES = 32
_NEW, _EXTENDED = -1, -2


@native
def _index(rank: int, count: int) -> int:
    """Return the index whose key, rlp(index), is at ``rank`` of the sorted keys: rlp(0) = 0x80 sorts after 0x7f."""
    zero = min(count - 1, 127)
    if rank < zero:
        return rank + 1
    return 0 if rank == zero else rank


@native
def _nibbles(index: int) -> int:
    """Return the number of nibbles of a key."""
    return 2 if index < 128 else 4 if index < 256 else 6


@native
def _nibble(index: int, depth: int) -> int:
    if index == 0:
        key = 0x80
    elif index < 128:
        key = index
    elif index < 256:
        key = 0x8100 | index
    else:
        key = 0x820000 | index
    return (key >> (4 * (_nibbles(index) - 1 - depth))) & 15


@native
def _put_path(index: int, first: int, last: int, flag: int, out: Bytes, at: int) -> int:
    """Write nibbles ``first`` to ``last`` of a key, hex-prefixed (appendix C). ``flag`` is 2 for a leaf, else 0."""
    size = (last - first) // 2 + 1
    at = put_head(0x80, size, out, at) if size > 1 else at
    if at < 0 or at + size > len(out):
        return -1
    odd = (last - first) % 2
    out[at] = (16 * (flag + 1) | _nibble(index, first)) if odd else 16 * flag
    for place in range(1, size):
        nibble = first + odd + 2 * (place - 1)
        out[at + place] = 16 * _nibble(index, nibble) | _nibble(index, nibble + 1)
    return at + size


@native
def _put_leaf(items: Bytes, ends: Places, index: int, depth: int, out: Bytes, at: int) -> int:
    start, end = 0 if index == 0 else ends[index - 1], ends[index]
    at = _put_path(index, depth, _nibbles(index), 2, out, at)
    return put_text(items, start, end, out, at)


@native
def _referred(out: Bytes, at: int, last: int, state: Words) -> int:
    """Keep the node encoded from ``at`` to ``last``, or replace it by its hash if that is shorter."""
    if last < 0 or last - at < _HASH_BYTES:
        return last
    if at + 1 + _HASH_BYTES > len(out):
        return -1
    keccak(out, at, last, out, at + 1, state)
    out[at] = 0xA0
    return at + 1 + _HASH_BYTES


@native
def _push(frames: Found, top: int, low: int, high: int, depth: int, start: int) -> None:
    """Write the frame of a node on the path down.

    It has the ranks of its keys, the number of nibbles they share, its start in the output, its next child and that
    child's first rank.
    """
    frames[top, 0], frames[top, 1], frames[top, 2] = low, high, depth
    frames[top, 3], frames[top, 4], frames[top, 5] = start, _NEW, low


@native
def _put_trie(items: Bytes, ends: Places, count: int, out: Bytes, frames: Found, state: Words) -> int:
    """Write the root node. Each node is written where its parent refers to it, then replaced there by its hash."""
    top, at = 0, 0
    _push(frames, 0, 0, count, 0, 0)
    while at >= 0:
        low, high, depth = frames[top, 0], frames[top, 1], frames[top, 2]
        start, child, begun = frames[top, 3], frames[top, 4], frames[top, 5]
        first = _index(low, count)
        done = False
        if child == _NEW:
            at = begin(out, at)
            last, shared = _index(high - 1, count), depth
            if high - low == 1:
                at = _put_leaf(items, ends, first, depth, out, at)
                done = True
            else:
                while _nibble(first, shared) == _nibble(last, shared):
                    shared += 1
                if shared > depth:
                    at = _put_path(first, depth, shared, 0, out, at)
                    frames[top, 4] = _EXTENDED
                    top += 1
                    _push(frames, top, low, high, shared, at)
                else:
                    frames[top, 4] = 0
        elif child == _EXTENDED:
            done = True
        elif child == 16:
            at = put_head(0x80, 0, out, at)  # no key is a prefix of another: a branch holds no value
            done = True
        else:
            ended = begun
            while ended < high and _nibble(_index(ended, count), depth) == child:
                ended += 1
            frames[top, 4], frames[top, 5] = child + 1, ended
            if ended == begun:
                at = put_head(0x80, 0, out, at)
            else:
                top += 1
                _push(frames, top, begun, ended, depth + 1, at)
        if done:
            at = close(out, start, at)
            if top == 0:
                return at
            at = _referred(out, start, at, state)
            top -= 1
    return -1


@native
def list_root(items: Bytes, ends: Places, count: int, out: Bytes, frames: Found, state: Words) -> int:
    """Return the position of the 32-byte root of ``count`` items in ``out``, or -1 if ``out`` is too small.

    ``ends`` is the end of each item in ``items``. ``frames`` is a buffer of six numbers per node on the path down.
    """
    if count > MOST_ITEMS or len(out) < _HASH_BYTES + 1:
        return -1
    out[0] = 0x80
    last = 1 if count == 0 else _put_trie(items, ends, count, out, frames, state)
    if last < 0:
        return -1
    keccak(out, 0, last, out, 0, state)
    return 0
