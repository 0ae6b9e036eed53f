"""Root of a block's transactions or receipts: the Merkle Patricia trie from rlp(index) to item.

Yellow paper, appendix D. The keys are always rlp(0), rlp(1), ..., so the shape of the trie only depends on the number
of items. Shapes are cached; then each item costs one RLP list and one hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rlp import EMPTY_TEXT, sequence, text, uint

EMPTY_ROOT = keccak(EMPTY_TEXT)
_SHAPES_KEPT = 256


@dataclass(frozen=True, slots=True)
class _Leaf:
    path: bytes
    index: int


@dataclass(frozen=True, slots=True)
class _Extension:
    path: bytes
    child: _Branch


@dataclass(frozen=True, slots=True)
class _Branch:
    children: tuple[_Node | None, ...]


_Node = _Leaf | _Extension | _Branch


def list_root(items: Sequence[bytes]) -> bytes:
    """Return the 32-byte root. ``items`` are consensus encodings in block order."""
    return keccak(_encoded(_shape(len(items)), items)) if items else EMPTY_ROOT


def _encoded(node: _Node, items: Sequence[bytes]) -> bytes:
    if type(node) is _Leaf:
        return sequence(node.path, text(items[node.index]))
    if type(node) is _Extension:
        return sequence(node.path, _reference(node.child, items))
    assert type(node) is _Branch
    # No key is a prefix of another (true for any RLP), so a branch has no value of its own.
    return sequence(*[EMPTY_TEXT if child is None else _reference(child, items) for child in node.children], EMPTY_TEXT)


def _reference(node: _Node, items: Sequence[bytes]) -> bytes:
    encoded = _encoded(node, items)
    return encoded if len(encoded) < 32 else b"\xa0" + keccak(encoded)


@lru_cache(_SHAPES_KEPT)
def _shape(count: int) -> _Node:
    return _grown(sorted((uint(index).hex(), index) for index in range(count)), 0)


def _grown(keys: list[tuple[str, int]], depth: int) -> _Node:
    """Return the node of ``keys`` (hex nibbles, index), which share their first ``depth`` nibbles."""
    first, last = keys[0][0], keys[-1][0]
    if len(keys) == 1:
        return _Leaf(_path(first[depth:], 2), keys[0][1])
    shared = next(at for at in range(depth, len(first)) if first[at] != last[at])
    groups = {nibble: list(group) for nibble, group in groupby(keys, lambda key: key[0][shared])}
    branch = _Branch(tuple(_grown(groups[n], shared + 1) if n in groups else None for n in "0123456789abcdef"))
    return _Extension(_path(first[depth:shared], 0), branch) if shared > depth else branch


def _path(nibbles: str, flag: int) -> bytes:
    """Return nibbles in hex-prefix encoding (yellow paper, appendix C) as RLP. ``flag`` is 2 for a leaf, else 0."""
    prefix = f"{flag + 1}" if len(nibbles) % 2 else f"{flag}0"
    return text(bytes.fromhex(prefix + nibbles))
