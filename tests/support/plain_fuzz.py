"""Compares the compiled proof and Python's proof on answers with bytes changed, cut and doubled.

    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=<an empty folder> python -m tests.support.plain_fuzz <rounds> <seed>

Because bounds are checked, an index outside of its array raises IndexError.
"""

from __future__ import annotations

import json
import random
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from msgspec.structs import replace as replaced

from tests.support.imitated.chain import Recipe, build
from tests.support.imitated.chains import ARBITRUM, BASE
from tests.support.proven import DEVCHAIN, DEVCHAIN_ROW, devchain
from tests.support.resealed import Answers, with_call_of_arbitrum, with_deposit
from trace_dagster.datasets.chain import CLAIMED_COLUMNS, Chain
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import TraceError
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts
from trace_dagster.verify.fast_path import await_compiled, prove_compiled
from trace_dagster.verify.model import Header, Receipt, Transaction

_ODD = (b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"n", b"0", b"x", b"f", b"F", b"g", b" ", b"\x00", b"\xff")
_WORDS = (b"null", b'"0x"', b'"0x0"', b"[]", b"{}", b"1e400", b'"\\u0030"', b'"0x' + b"f" * 65 + b'"', b'"0x1_0"')

Found = tuple[list[Header], list[list[Transaction]], list[list[Receipt]]]


@dataclass(frozen=True)
class Piece:
    """Consecutive blocks of a chain, with their receipts."""

    chain: Chain
    answers: list[Answers]
    first: int = DEVCHAIN.start

    def texts(self, start: int, end: int) -> list[bytes]:
        """Return answers for some of the blocks, counted from the first."""
        chosen = self.answers[start:end]
        return [json.dumps(block).encode() for block, _ in chosen] + [
            json.dumps(receipts).encode() for _, receipts in chosen
        ]


@cache
def pieces() -> dict[str, Piece]:
    """Return the devchain's blocks as they are, and with transactions of other chains in place of some of them."""
    rows = {name: replace(chain_of(number), forks={}) for name, number in (("op", 10), ("arbitrum", 42161))}
    honest = devchain().answers
    return {
        "devchain": Piece(DEVCHAIN_ROW, honest),
        "op": Piece(rows["op"], [_with_deposits(*each, place) for place, each in enumerate(honest)]),
        "arbitrum": Piece(rows["arbitrum"], [_with_calls(*each, place) for place, each in enumerate(honest)]),
        "imitated base": _imitated(BASE.recipe),
        "imitated arbitrum": _imitated(ARBITRUM.recipe),
    }


def _imitated(recipe: Recipe) -> Piece:
    blocks = build(recipe)[:12]
    return Piece(chain_of(recipe.chain_id), [(each.block, each.receipts) for each in blocks], recipe.first)


_DEPOSITS: list[dict[str, Any]] = [
    {},
    {"mint": None, "version": None, "isSystemTx": True},
    {"mint": "0x56bc75e2d63100000", "to": None, "gasPrice": None},
    {"isSystemTx": False, "v": None, "r": None, "s": None},
]
_ARBOS = "0x" + "0" * 34 + "0a4b05"
_CALLS: list[dict[str, Any]] = [
    {"type": "0x6a", "from": _ARBOS, "to": _ARBOS, "gas": "0x0", "gasPrice": "0x0", "nonce": "0x0", "value": "0x0"},
    {"type": "0x64", "input": "0x", "requestId": "0x" + "7d" * 32},
    {"type": "0x65"},
    {"type": "0x66", "requestId": "0x" + "7d" * 32, "nonce": None},
    {
        "type": "0x68", "maxFeePerGas": "0x5f5e101", "ticketId": "0x" + "71" * 32, "refundTo": "0x" + "72" * 20,
        "maxRefund": "0x77", "submissionFeeRefund": "0x0",
    },
]  # fmt: skip


def _with_deposits(block: dict[str, Any], receipts: list[dict[str, Any]], place: int) -> Answers:
    return with_deposit(block, receipts, 0, **_DEPOSITS[place % len(_DEPOSITS)]) if receipts else (block, receipts)


def _with_calls(block: dict[str, Any], receipts: list[dict[str, Any]], place: int) -> Answers:
    members = _CALLS[place % len(_CALLS)]
    return with_call_of_arbitrum(block, receipts, 0, **members) if receipts else (block, receipts)


def in_python(answers: list[bytes], first: int, chain: Chain = DEVCHAIN_ROW) -> Found | None:
    """Return what ``verify/commitments/prove.py`` proves of the answers, or None if it refuses them."""
    half = len(answers) // 2
    try:
        blocks = [decode_block(answer, full=True) for answer in answers[:half]]
        headers = [prove.prove_header(block, first + place, chain) for place, block in enumerate(blocks)]
        transactions = [prove.prove_transactions(*pair, chain) for pair in zip(blocks, headers, strict=True)]
        receipts = [
            prove.receipts_of(decode_receipts(answer), header, chain, transactions=inside)
            for answer, header, inside in zip(answers[half:], headers, transactions, strict=True)
        ]
    except TraceError:
        return None
    return headers, transactions, receipts


def compiled(answers: list[bytes], first: int, chain: Chain = DEVCHAIN_ROW) -> Found | None:
    """Return what the compiled code proves, or None."""
    if (found := prove_compiled(answers, first, chain)) is None:
        return None
    parts = EvidenceParts.in_columns(*found)
    assert parts.transactions is not None
    assert parts.receipts is not None
    assert found[1].transactions.num_rows == sum(map(len, parts.transactions))
    assert found[1].logs.num_rows == sum(len(each.logs) for block in parts.receipts for each in block)
    return list(found[0]), [list(each) for each in parts.transactions], [list(each) for each in parts.receipts]


def agree(answers: list[bytes], first: int, honest: list[bytes] | None = None, chain: Chain = DEVCHAIN_ROW) -> bool:
    """Return whether the compiled code accepted the blocks. Raise if it proves something that Python does not.

    Python refuses some answers for the form of members that nothing hashes, such as a legacy transaction's chainId:
    what is proven of those must be what ``honest`` answers say. Senders are hearsay, unless the form contains them.
    """
    if (found := compiled(answers, first, chain)) is None:
        return False
    if (expected := in_python(answers, first, chain)) is not None:
        assert _without_tails(found) == _without_tails(_named(expected))
        _require_tails(found, expected)
    else:
        expected = in_python(honest or [], first, chain)
        assert expected is not None
        assert _proven(found) == _proven(_named(expected))
    return True


def _require_tails(found: Found, expected: Found) -> None:
    """Raise unless the rows give back a tail of each receipt that Python read from the answer."""
    for one, other in zip(found[2], expected[2], strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert set(mine.tails or (b"",)) & set(theirs.tails or (b"",))


def _without_tails(found: Found) -> Found:
    headers, transactions, receipts = found
    return headers, transactions, [[replaced(each, tails=()) for each in block] for block in receipts]


_COLUMNS = {"gas_limit": 0, "nonce": 0, "gas_price": 0, "max_fee_per_gas": None, "max_priority_fee_per_gas": None}
"""Members that a form may leave to the node's claim, and what takes their place."""


def _proven(found: Found) -> Found:
    """Return the items without members that only the node claims."""
    headers, transactions, receipts = _without_tails(found)
    return headers, [[_without_claims(each) for each in block] for block in transactions], receipts


def _without_claims(each: Transaction) -> Transaction:
    if each.form is None:
        return replaced(each, sender=None)
    return replaced(each, **{name: _COLUMNS[name] for name in CLAIMED_COLUMNS[each.form] if name in _COLUMNS})


def _named(found: Found) -> Found:
    """Return receipts with their transaction's hash, which an answer may omit."""
    headers, transactions, receipts = found
    pairs = [list(zip(*each, strict=True)) for each in zip(transactions, receipts, strict=True)]
    return headers, transactions, [[replaced(each, transaction_hash=of.hash) for of, each in block] for block in pairs]


def texts(start: int, end: int) -> list[bytes]:
    """Return answers for blocks of the devchain's piece, counted from its first block."""
    return pieces()["devchain"].texts(start, end)


def changed(text: bytes, pick: random.Random) -> bytes:
    """Make one random change."""
    start = pick.randrange(len(text))
    end = min(len(text), start + pick.choice((1, 1, 2, 70, len(text))))
    match pick.randrange(7):
        case 0:
            return text[:start] + pick.choice(_ODD) + text[start + 1 :]
        case 1:
            return text[:start] + text[end:]
        case 2:
            return text[:end] + text[start:]
        case 3:
            return text[:start]
        case 4:
            return _doubled(text, pick)
        case 5:
            return _no_list(text, pick)
    place = text.find(b": ", start) + 2
    behind = text.find(b",", place)
    return text[:place] + pick.choice(_WORDS) + text[behind:] if behind > place > 1 else text + pick.choice(_ODD)


def _members(text: bytes) -> list[tuple[int, int]]:
    """Return start and end of the members that contain a list."""
    found = []
    for name in (b'"transactions": [', b'"logs": [', b'"topics": [', b'"accessList": [', b'"authorizationList": ['):
        at = text.find(name)
        while at >= 0:
            with suppress(ValueError):  # not JSON any more after an earlier change
                _, size = json.JSONDecoder().raw_decode(text[at + len(name) - 1 :].decode("latin-1"))
                found.append((at, at + len(name) - 1 + size))
            at = text.find(name, at + 1)
    return found


def _doubled(text: bytes, pick: random.Random) -> bytes:
    """Repeat a list in its object, the first one from elsewhere or empty. The last one counts."""
    if not (lists := _members(text)):
        return text + b" "
    start, end = pick.choice(lists)
    name, _, value = text[start:end].partition(b": ")
    others = [text[one:other].partition(b": ")[2] for one, other in lists if text[one:].startswith(name)]
    return text[:start] + name + b": " + pick.choice([*others, b"[]", b"1", value]) + b", " + text[start:]


def _no_list(text: bytes, pick: random.Random) -> bytes:
    """Put another value in place of a list, and text that enlarges the buffers."""
    if not (lists := _members(text)):
        return text + b" "
    start, end = pick.choice(lists)
    name = text[start:end].partition(b": ")[0]
    extra = b', "more": ["cumulativeGasUsed", "topics"' + b', "cumulativeGasUsed", "topics"' * pick.randrange(40) + b"]"
    return text[:start] + name + b": " + pick.choice((b"1", b'"x"', b"null", b"{}", b"true")) + extra + text[end:]


def main(rounds: int, seed: int) -> None:
    """Change answers, each one to three times."""
    await_compiled()
    pick = random.Random(seed)
    plain = 0
    for _ in range(rounds):
        piece = pick.choice(list(pieces().values()))
        start = pick.randrange(len(piece.answers))
        end = min(start + pick.randint(1, 3), len(piece.answers))
        honest = piece.texts(start, end)
        answers = list(honest)
        for _ in range(pick.randint(1, 3)):
            which = pick.randrange(len(answers))
            answers[which] = changed(answers[which], pick) or b" "
        plain += agree(answers, piece.first + start, honest, piece.chain)
    print(f"{rounds} changed answers, {plain} still plainly right")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
