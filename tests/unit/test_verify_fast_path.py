"""The compiled proof accepts a block with the same result as Python's proof, or does not accept it."""

import gc
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import weakref
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import sha3

import trace_dagster
from tests.support.left_out import REAL_BLOCKS, leave_out
from tests.support.plain_fuzz import agree, changed, in_python, pieces, texts
from tests.support.proven import DEVCHAIN, REAL, devchain, real, real_folder
from trace_dagster.datasets.chains import DEVCHAIN_ID, chain_of
from trace_dagster.evidence.parts import EvidenceParts, joined
from trace_dagster.verify import fast_path
from trace_dagster.verify.commitments import trie
from trace_dagster.verify.fast_path import await_compiled, prove_compiled
from trace_dagster.verify.native import keccak as native_keccak
from trace_dagster.verify.native import trie as native_trie
from trace_dagster.verify.native.blocks import room

FIRST = DEVCHAIN.start
ROW = chain_of(DEVCHAIN_ID)


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    await_compiled()


def whole():
    return texts(0, len(DEVCHAIN))


def test_keccak():
    out, state = np.zeros(40, np.uint8), np.zeros(25, np.uint64)
    data = np.frombuffer(random.Random(1).randbytes(600), np.uint8)
    for end in range(500):
        native_keccak.keccak(data, 3, 3 + end, out, 5, state)
        assert out[5:37].tobytes() == sha3.keccak_256(data[3 : 3 + end].tobytes()).digest()


@pytest.mark.parametrize("count", [*range(20), 127, 128, 129, 130, 255, 256, 257, 300, 700])
def test_roots(count):
    pick = random.Random(count)
    items = [pick.randbytes(pick.choice((1, 2, 20, 31, 33, 55, 56, 300))) for _ in range(count)]
    text = np.frombuffer(b"".join(items) or b" ", np.uint8).copy()
    ends = np.cumsum([len(item) for item in items], dtype=np.int64) if items else np.zeros(0, np.int64)
    frames, state = np.zeros((native_trie.DEEPEST, 6), np.int64), np.zeros(25, np.uint64)
    out = np.zeros(len(text) + 4096, np.uint8)
    at = native_trie.list_root(text, ends, count, out, frames, state)
    assert out[at : at + 32].tobytes() == trie.list_root(items)
    for some in range(0, 400, 7):  # a full buffer is reported at every size
        at = native_trie.list_root(text, ends, count, out[:some], frames, state)
        assert at == -1 or out[at : at + 32].tobytes() == trie.list_root(items)


def test_blocks_apart_and_together():
    headers, rows = prove_compiled(whole(), FIRST, ROW)
    one = EvidenceParts.in_columns(headers, rows)
    each = [
        EvidenceParts.in_columns(*prove_compiled(texts(at, at + 1), FIRST + at, ROW)) for at in range(len(DEVCHAIN))
    ]
    for found in (joined(each), joined([one.slice(0, 5), one.slice(5, 6), one.slice(6, len(DEVCHAIN))])):
        assert found.rows.transactions.equals(rows.transactions)
        assert found.rows.logs.equals(rows.logs)
        assert (found.rows.transaction_ends, found.rows.log_ends) == (rows.transaction_ends, rows.log_ends)
        assert list(found.receipts) == list(one.receipts)
    assert list(one.slice(3, 7).transactions) == list(one.transactions)[3:7]


@pytest.mark.parametrize("number", REAL)
def test_real_blocks_are_plain(number):
    if real_folder() is None:
        leave_out(REAL_BLOCKS)
    block, receipts = real(number).answers[0]
    answers = [json.dumps(block, indent=1).encode(), json.dumps(receipts, separators=(",", ":")).encode()]
    assert agree(answers, number)


def test_another_number_than_asked_for_is_not_plain():
    assert prove_compiled(whole(), FIRST + 1, ROW) is None
    assert prove_compiled(whole()[1:] + whole()[:1], FIRST, ROW) is None


def objects(answers):
    """Yield every object of a block's answers: header, transactions, entries of their lists, receipts, logs."""
    found = [answers]
    while found:
        each = found.pop()
        if isinstance(each, dict):
            yield each
        found.extend(each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())


OTHERS = [None, "0x", "0x0", "0x01", "0x" + "f" * 65, "0xzz", 7, ["0x1"], "0x1_0"]


@pytest.mark.parametrize("name", pieces())
def test_blocks_of_other_chains_are_proven_as_in_python(name):
    piece = pieces()[name]
    assert agree(piece.texts(0, len(piece.answers)), piece.first, chain=piece.chain)


@pytest.mark.parametrize(
    ("which", "at"),
    [("devchain", at) for at in range(len(DEVCHAIN))] + [(each, at) for each in ("op", "arbitrum") for at in range(8)],
)
def test_any_member_changed_or_gone_is_judged_as_python_judges_it(which, at):
    piece = pieces()[which]
    answers, honest = list(deepcopy(piece.answers[at])), piece.texts(at, at + 1)
    seen = set()
    for each in objects(answers):
        for name in list(each):
            shape = (frozenset(each), name, each.get("type"))
            if shape in seen:
                continue
            seen.add(shape)
            value = each.pop(name)
            agree([json.dumps(answer).encode() for answer in answers], piece.first + at, honest, piece.chain)
            for other in OTHERS:
                each[name] = other
                agree([json.dumps(answer).encode() for answer in answers], piece.first + at, honest, piece.chain)
            each[name] = value
    assert agree([json.dumps(answer).encode() for answer in answers], piece.first + at, honest, piece.chain)


def test_what_a_hash_covers_cannot_differ():
    """The compiled proof accepts nothing that Python refuses: hostile changes of hashed fields, one at a time."""
    for at in range(len(DEVCHAIN)):
        answers = list(deepcopy(devchain().answers[at]))
        for each in objects(answers):
            for name in ("hash", "value", "nonce", "input", "cumulativeGasUsed", "status", "data", "address", "number"):
                if isinstance(each.get(name), str):
                    value = each[name]
                    each[name] = value[:-1] + ("1" if value[-1] != "1" else "2")
                    texts_ = [json.dumps(answer).encode() for answer in answers]
                    assert (prove_compiled(texts_, FIRST + at, ROW) is None) == (in_python(texts_, FIRST + at) is None)
                    each[name] = value


def test_white_space_order_and_unknown_members_do_not_matter():
    pick = random.Random(5)

    def shuffled(value):
        if isinstance(value, dict):
            members = [(name, shuffled(each)) for name, each in value.items()]
            members += [("odd", {"a": ["[", {"b": "}"}]}), ("more", 1.5e3), ("none", None), ("yes", True)]
            pick.shuffle(members)
            return dict(members)
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    for indent in (None, 0, 3):
        answers = [json.dumps(shuffled(json.loads(text)), indent=indent).encode() for text in whole()]
        assert agree(answers, FIRST)


def test_an_escape_is_left_to_python():
    answers = texts(1, 2)
    answers[0] = answers[0].replace(b'"0x', b'"\\u0030x', 1)
    assert prove_compiled(answers, FIRST + 1, ROW) is None
    assert in_python(answers, FIRST + 1) is not None


def test_a_second_list_of_logs_adds_no_rows():
    """Only one of two lists gives the root, so rows of the other would be taken as proven."""
    at, (block, receipts) = next(
        (at, answer) for at, answer in enumerate(devchain().answers) if any(each["logs"] for each in answer[1])
    )
    logs = next(json.dumps(each["logs"]) for each in receipts if each["logs"])
    forged = logs.replace(json.loads(logs)[0]["address"], "0x" + "ab" * 20)
    for first, second in ((forged, logs), (logs, forged), ("[]", logs), (logs, "[]"), (logs, logs)):
        text = json.dumps(receipts).replace(f'"logs": {logs}', f'"logs": {first}, "logs": {second}', 1)
        assert prove_compiled([json.dumps(block).encode(), text.encode()], FIRST + at, ROW) is None
    text = json.dumps(block).replace('"transactions": [', '"transactions": [], "transactions": [', 1)
    assert prove_compiled([text.encode(), json.dumps(receipts).encode()], FIRST + at, ROW) is None


@pytest.mark.parametrize("other", ["1", "17", '"x"', "null", "{}", "true"])
def test_what_is_no_list_is_no_number_of_rows(other):
    block, _ = devchain().answers[0]
    header = json.dumps({name: value for name, value in block.items() if name != "transactions"})
    for members in (f'{{"transactions": {other}, {header[1:]}', f'{header[:-1]}, "transactions": {other}}}'):
        for words in (b'["cumulativeGasUsed"', b'[{"logs": %s}, "topics"' % other.encode()):
            receipts = words + b', "cumulativeGasUsed", "topics"' * 3000 + b"]"
            assert prove_compiled([members.encode(), receipts], FIRST, ROW) is None


def test_rows_do_not_keep_the_room_they_were_found_in(monkeypatch):
    """Blocks with no row and with one row, because numpy does not copy such arrays unless forced."""
    rooms = []

    def kept(*sizes):
        arrays = room(*sizes)
        rooms.append(weakref.ref(arrays[0].base.base if arrays[0].base.base is not None else arrays[0].base))
        return arrays

    monkeypatch.setattr("trace_dagster.verify.native.columns.room", kept)
    for start in range(len(DEVCHAIN)):
        found = prove_compiled(texts(start, start + 1), FIRST + start, ROW)
        assert found is not None
        gc.collect()
        assert rooms[-1]() is None


def test_compiled_code_is_kept_by_what_it_was_compiled_from(tmp_path):
    """numba's own cache only checks the file of a function, not those of the functions it calls."""
    ask = "from trace_dagster.verify.native import jit; print(jit.config.CACHE_DIR)"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def folder(where, **more):
        done = subprocess.run(
            [sys.executable, "-c", ask], cwd=where, env={**environment, "PYTHONPATH": str(where), **more},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    root = Path(trace_dagster.__file__).parent
    shutil.copytree(root, tmp_path / "copy" / "trace_dagster", ignore=shutil.ignore_patterns("__pycache__"))
    same = folder(tmp_path / "copy")
    assert same == folder(tmp_path / "copy")
    assert same.startswith(str(tmp_path))
    assert folder(tmp_path / "copy", NUMBA_BOUNDSCHECK="1") != same
    with (tmp_path / "copy" / "trace_dagster" / "verify" / "native" / "encode.py").open("a") as source:
        source.write("\n")
    assert folder(tmp_path / "copy") != same


def test_answers_that_need_too_much_room_are_left_to_python(monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr("trace_dagster.verify.native.columns.room", full)
    assert prove_compiled(whole(), FIRST, ROW) is None


def test_changed_bytes():
    pick = random.Random(11)
    for _ in range(400):
        piece = pick.choice(list(pieces().values()))
        at = pick.randrange(len(piece.answers))
        honest = piece.texts(at, at + 1)
        answers = list(honest)
        which = pick.randrange(2)
        answers[which] = changed(answers[which], pick) or b" "
        agree(answers, piece.first + at, honest, piece.chain)


def test_no_index_leaves_its_array(tmp_path):
    """Run the same tests with every index checked, which needs a separate compilation."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.plain_fuzz", "600", "3"],
        env=environment, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "changed answers" in done.stdout


def test_the_first_proofs_wait_for_the_code_but_not_until_it_is_compiled(monkeypatch):
    """Loading the code takes less than the wait, compiling it takes longer."""
    read, slowly = fast_path.import_module, threading.Event()

    def late(name):
        slowly.wait(0.2)
        return read(name)

    monkeypatch.setattr(fast_path, "import_module", late)
    fast_path._compiled.cache_clear()
    try:
        assert prove_compiled(whole(), FIRST, ROW) is not None
        monkeypatch.setattr(fast_path, "READ_SECONDS", 0.0)
        fast_path._compiled.cache_clear()
        assert prove_compiled(whole(), FIRST, ROW) is None
        slowly.set()
        await_compiled()
        assert prove_compiled(whole(), FIRST, ROW) is not None
    finally:
        slowly.set()
        monkeypatch.undo()
        fast_path._compiled.cache_clear()
        await_compiled()


def test_python_proves_where_the_code_cannot_be_compiled(monkeypatch):
    def broken(name):
        raise OSError("not now")

    monkeypatch.setattr(fast_path, "import_module", broken)
    fast_path._compiled.cache_clear()
    try:
        assert prove_compiled(whole(), FIRST, ROW) is None
        with pytest.raises(OSError, match="not now"):
            await_compiled()
        assert prove_compiled(whole(), FIRST, ROW) is None
    finally:
        monkeypatch.undo()
        fast_path._compiled.cache_clear()
        await_compiled()
    assert prove_compiled(whole(), FIRST, ROW) is not None
