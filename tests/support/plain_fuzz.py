"""Compares the compiled proof and Python's proof on answers with bytes changed, cut and doubled.

    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=<an empty folder> python -m tests.support.plain_fuzz <rounds> <seed>

Because bounds are checked, an index outside of its array raises IndexError.
"""

from __future__ import annotations

import json
import random
import sys
from contextlib import suppress

from msgspec.structs import replace

from tests.support.proven import DEVCHAIN_ROW, devchain
from trace_dagster.datasets.chains import DEVCHAIN_ID, chain_of
from trace_dagster.errors import TraceError
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts
from trace_dagster.verify.fast_path import await_compiled, prove_compiled
from trace_dagster.verify.model import Header, Receipt, Transaction

_ODD = (b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"n", b"0", b"x", b"f", b"F", b"g", b" ", b"\x00", b"\xff")
_WORDS = (b"null", b'"0x"', b'"0x0"', b"[]", b"{}", b"1e400", b'"\\u0030"', b'"0x' + b"f" * 65 + b'"', b'"0x1_0"')

Found = tuple[list[Header], list[list[Transaction]], list[list[Receipt]]]


def in_python(answers: list[bytes], first: int) -> Found | None:
    """Return what ``verify/commitments/prove.py`` proves of the answers, or None if it refuses them."""
    half = len(answers) // 2
    try:
        blocks = [decode_block(answer, full=True) for answer in answers[:half]]
        headers = [prove.prove_header(block, first + place, DEVCHAIN_ROW) for place, block in enumerate(blocks)]
        transactions = [prove.prove_transactions(*pair, DEVCHAIN_ROW) for pair in zip(blocks, headers, strict=True)]
        receipts = [
            prove.receipts_of(decode_receipts(answer), header, DEVCHAIN_ROW)
            for answer, header in zip(answers[half:], headers, strict=True)
        ]
    except TraceError:
        return None
    return headers, transactions, receipts


def compiled(answers: list[bytes], first: int) -> Found | None:
    """Return what the compiled code proves, or None."""
    if (found := prove_compiled(answers, first, chain_of(DEVCHAIN_ID))) is None:
        return None
    parts = EvidenceParts.in_columns(*found)
    assert parts.transactions is not None
    assert parts.receipts is not None
    assert found[1].transactions.num_rows == sum(map(len, parts.transactions))
    assert found[1].logs.num_rows == sum(len(each.logs) for block in parts.receipts for each in block)
    return list(found[0]), [list(each) for each in parts.transactions], [list(each) for each in parts.receipts]


def agree(answers: list[bytes], first: int, honest: list[bytes] | None = None) -> bool:
    """Return whether the compiled code accepted the blocks. Raise if it proves something that Python does not.

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
    """Return the items without members that only the node claims."""
    headers, transactions, receipts = found
    return headers, [[replace(each, sender=None) for each in block] for block in transactions], receipts


def _named(found: Found) -> Found:
    """Return receipts with their transaction's hash, which an answer may omit."""
    headers, transactions, receipts = found
    pairs = [list(zip(*each, strict=True)) for each in zip(transactions, receipts, strict=True)]
    return headers, transactions, [[replace(each, transaction_hash=of.hash) for of, each in block] for block in pairs]


def texts(start: int, end: int) -> list[bytes]:
    """Return answers for blocks of the devchain's piece, counted from its first block."""
    chosen = devchain().answers[start:end]
    return [json.dumps(block).encode() for block, _ in chosen] + [json.dumps(found).encode() for _, found in chosen]


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
