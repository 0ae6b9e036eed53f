"""RLP, trie, bloom and keccak compared with public libraries."""

import pytest
import rlp as oracle
from eth_bloom import BloomFilter
from eth_hash.auto import keccak as oracle_keccak
from hypothesis import given
from hypothesis import strategies as st
from trie import HexaryTrie

from trace_dagster.verify.commitments.bloom import as_bytes, mask
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.rlp import sequence, text, uint
from trace_dagster.verify.commitments.trie import EMPTY_ROOT, list_root
from trace_dagster.verify.mismatch import mismatch, shortened


@given(st.binary(max_size=400))
def test_keccak_and_text(data):
    assert keccak(data) == oracle_keccak(data)
    assert text(data) == oracle.encode(data)


@pytest.mark.parametrize("size", [0, 1, 2, 54, 55, 56, 57, 255, 256, 257, 65535, 65536, 2**24])
def test_lengths_at_their_borders(size):
    assert text(b"\xff" * size) == oracle.encode(b"\xff" * size)
    if size < 70000:
        assert sequence(*[b"\x01"] * size) == oracle.encode([1] * size)


@pytest.mark.parametrize("byte", [0, 1, 0x7F, 0x80, 0xFF])
def test_single_bytes(byte):
    assert text(bytes([byte])) == oracle.encode(bytes([byte]))


@given(st.one_of(st.integers(0, 300), st.integers(0, 2**256)))
def test_numbers(value):
    assert uint(value) == oracle.encode(value)


def test_a_negative_number_has_no_encoding():
    with pytest.raises(OverflowError):
        uint(-1)


@given(st.recursive(st.binary(max_size=60), lambda inner: st.lists(inner, max_size=5), max_leaves=20))
def test_lists(tree):
    def encoded(node):
        return text(node) if isinstance(node, bytes) else sequence(*map(encoded, node))

    assert encoded(tree) == oracle.encode(tree)


def trie_root(items):
    trie = HexaryTrie({})
    for index, item in enumerate(items):
        trie[oracle.encode(index)] = item
    return bytes(trie.root_hash)


@pytest.mark.parametrize("count", [*range(1, 20), 31, 127, 128, 129, 144, 145, 255, 256, 257, 272, 300, 513])
@pytest.mark.parametrize("size", [1, 29, 60])
def test_roots_of_every_shape(count, size):
    """Items of one byte give nodes that are embedded in their parents; 29 is the limit."""
    items = [bytes([index % 255 + 1, *[index // 255] * (size - 1)]) for index in range(count)]
    assert list_root(items) == trie_root(items)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=40))
def test_roots(items):
    assert list_root(items) == (trie_root(items) if items else EMPTY_ROOT)


def test_the_empty_root_is_the_chains():
    assert list_root([]).hex() == "56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


@given(st.lists(st.binary(min_size=20, max_size=32), max_size=6))
def test_blooms(entries):
    bloom, bits = BloomFilter(), 0
    for entry in entries:
        bloom.add(entry)
        bits |= mask(entry)
    assert as_bytes(bits) == int(bloom).to_bytes(256, "big")


def test_errors_show_values_short():
    assert shortened(b"\x01" * 32) == "0x" + "01" * 32
    assert shortened(b"\x01" * 33) == "0x0101010101010101..(33 bytes)"
    assert shortened(None) == "null"
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 80 + "..(81 characters)"
    assert shortened(2**256 - 1) == str(2**256 - 1)
    assert shortened(2**256) == "a number of 257 bits"
    assert shortened("\ud800\n") == "'\\ud800\\n'"
    assert shortened("é") == "'\\xe9'"
    assert str(mismatch("no", 5, None, b"\x01", hash="h")) == "no block=5 expected=null got=0x01 hash=h"
