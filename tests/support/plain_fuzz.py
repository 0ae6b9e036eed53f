"""Answers with bytes changed, cut and doubled, through the compiled proof and through Python's: they must agree.

    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=<a folder of its own> python -m tests.support.plain_fuzz <rounds> <seed>

With bounds checked an index that leaves its array ends this with IndexError.
"""

from __future__ import annotations

import json
import random
import sys

from msgspec.structs import replace

from tests.support.proven import devchain
from trace_dagster.errors import TraceError
from trace_dagster.shared import Parts
from trace_dagster.verify import prove
from trace_dagster.verify.evidence import Header, Receipt, Transaction
from trace_dagster.verify.plain import await_compiled, prove_plain
from trace_dagster.verify.raw import decode_block, decode_receipts

_ODD = (b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"n", b"0", b"x", b"f", b"F", b"g", b" ", b"\x00", b"\xff")
_WORDS = (b"null", b'"0x"', b'"0x0"', b"[]", b"{}", b"1e400", b'"\\u0030"', b'"0x' + b"f" * 65 + b'"', b'"0x1_0"')

Found = tuple[list[Header], list[list[Transaction]], list[list[Receipt]]]


def in_python(answers: list[bytes], first: int) -> Found | None:
    """What ``verify/prove.py`` proves of the answers; None where it refuses them."""
    half = len(answers) // 2
    try:
        blocks = [decode_block(answer, full=True) for answer in answers[:half]]
        headers = [prove.prove_header(block, first + place) for place, block in enumerate(blocks)]
        transactions = [prove.prove_transactions(*pair) for pair in zip(blocks, headers, strict=True)]
        receipts = [
            prove.receipts_of(decode_receipts(answer), header)
            for answer, header in zip(answers[half:], headers, strict=True)
        ]
    except TraceError:
        return None
    return headers, transactions, receipts


def compiled(answers: list[bytes], first: int) -> Found | None:
    """What the compiled code proves."""
    if (found := prove_plain(answers, first)) is None:
        return None
    parts = Parts.plain(*found)
    assert parts.transactions is not None
    assert parts.receipts is not None
    return list(found[0]), [list(each) for each in parts.transactions], [list(each) for each in parts.receipts]


def agree(answers: list[bytes], first: int, honest: list[bytes] | None = None) -> bool:
    """Whether the compiled code found the blocks plainly right; raises where it proves something that is not so.

    Python refuses some answers for the form of members that nothing hashes, such as a legacy transaction's chainId:
    what is proven of those must be what ``honest`` answers say. Senders are hearsay.
    """
    if (found := compiled(answers, first)) is None:
        return False
    if (expected := in_python(answers, first)) is not None:
        assert found == _named(expected)
    else:
        expected = in_python(honest or [], first)
        assert expected is not None
        assert _proven(found) == _proven(_named(expected))
    return True


def _proven(found: Found) -> Found:
    """Without what only the node says."""
    headers, transactions, receipts = found
    return headers, [[replace(each, sender=None) for each in block] for block in transactions], receipts


def _named(found: Found) -> Found:
    """With the hash of its transaction in each receipt: an answer may leave it out."""
    headers, transactions, receipts = found
    pairs = [list(zip(*each, strict=True)) for each in zip(transactions, receipts, strict=True)]
    return headers, transactions, [[replace(each, transaction_hash=of.hash) for of, each in block] for block in pairs]


def texts(start: int, end: int) -> list[bytes]:
    """Answers to blocks of the devchain's piece, counted from its first."""
    chosen = devchain().answers[start:end]
    return [json.dumps(block).encode() for block, _ in chosen] + [json.dumps(found).encode() for _, found in chosen]


def changed(text: bytes, pick: random.Random) -> bytes:
    """One change somewhere."""
    start = pick.randrange(len(text))
    end = min(len(text), start + pick.choice((1, 1, 2, 70, len(text))))
    match pick.randrange(5):
        case 0:
            return text[:start] + pick.choice(_ODD) + text[start + 1 :]
        case 1:
            return text[:start] + text[end:]
        case 2:
            return text[:end] + text[start:]
        case 3:
            return text[:start]
    place = text.find(b": ", start) + 2
    behind = text.find(b",", place)
    return text[:place] + pick.choice(_WORDS) + text[behind:] if behind > place > 1 else text + pick.choice(_ODD)


def main(rounds: int, seed: int) -> None:
    """Change answers, one to three times each."""
    await_compiled()
    pick = random.Random(seed)
    plain = 0
    for _ in range(rounds):
        start = pick.randrange(len(devchain().answers))
        end = min(start + pick.randint(1, 3), len(devchain().answers))
        honest = texts(start, end)
        answers = list(honest)
        for _ in range(pick.randint(1, 3)):
            which = pick.randrange(len(answers))
            answers[which] = changed(answers[which], pick) or b" "
        plain += agree(answers, devchain().piece.start + start, honest)
    print(f"{rounds} changed answers, {plain} still plainly right")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
