"""Hashes, tries, blooms and signatures, from the usual Ethereum libraries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import coincurve
import rlp
from eth_bloom import BloomFilter  # type: ignore[attr-defined]
from eth_hash.auto import keccak
from trie import HexaryTrie  # type: ignore[attr-defined]

EMPTY_LIST_HASH = keccak(rlp.encode([]))
EMPTY_TRIE_ROOT = keccak(rlp.encode(b""))
EMPTY_REQUESTS_HASH = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


class Account:
    """A key pair derived from a seed, and its address."""

    def __init__(self, seed: str) -> None:
        self._key = coincurve.PrivateKey(keccak(seed.encode()))
        self.address = keccak(self._key.public_key.format(compressed=False)[1:])[12:]
        self.nonce = 0

    def sign(self, digest: bytes) -> tuple[int, int, int]:
        """Return (recovery bit, r, s)."""
        signature = self._key.sign_recoverable(digest, hasher=None)
        return signature[64], int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")


def list_root(items: Sequence[bytes]) -> bytes:
    """Return the root of the trie that maps rlp(index) to item, as for transactions and receipts."""
    if not items:
        return EMPTY_TRIE_ROOT
    trie = HexaryTrie({})
    for index, item in enumerate(items):
        trie[rlp.encode(index)] = item
    return bytes(trie.root_hash)


def logs_bloom(entries: Iterable[bytes]) -> bytes:
    """Return the 256-byte bloom over addresses and topics."""
    bloom = BloomFilter()
    for entry in entries:
        bloom.add(entry)
    return int(bloom).to_bytes(256, "big")


def contract_address(sender: bytes, nonce: int) -> bytes:
    """Return the address of a contract that CREATE deploys."""
    return keccak(rlp.encode([sender, nonce]))[12:]
