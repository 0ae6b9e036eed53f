"""Structural checks: a correct answer passes, and each broken rule raises an error with its block."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import catalogue, dataset
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import VerificationFailed
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.rows.calltree import check_shape, frames_of, require_shape
from trace_dagster.verify.rows.structure import check_structure
from trace_dagster.verify.rows.uint256_columns import check_uint256_columns

SPAN = BlockRange(10, 14)


def run(name, table):
    return check_structure(dataset(name), table, SPAN, 1)


def table(name, rows, columns):
    return pa.Table.from_pylist(rows, schema=dataset(name).engine_schema(columns))


def blocks(numbers, *, chain_id=1, broken_link=None):
    rows = [
        {
            "block_number": n,
            "block_hash": bytes([n]) * 32,
            "parent_hash": b"\xee" * 32 if n == broken_link else bytes([n - 1]) * 32,
            "chain_id": chain_id,
        }
        for n in numbers
    ]
    return table("blocks", rows, ["block_hash", "parent_hash", "block_number", "chain_id"])


def test_whole_blocks_pass():
    assert run("blocks", blocks([10, 11, 12, 13])) == [
        "block_number in range", "chain_id", "one row per block", "parent_hash links rows", "rows in block order",
    ]  # fmt: skip
    bare = blocks([10, 11, 12, 13]).select(["block_number"])
    assert run("blocks", bare) == ["block_number in range", "one row per block", "rows in block order"]


@pytest.mark.parametrize(
    ("numbers", "more", "said"),
    [
        ([10, 11, 13], {}, "missing or doubled block=12 expected=1 row got=0 rows"),
        ([10, 11, 11, 12, 13], {}, "missing or doubled block=11 expected=1 row got=2 rows"),
        ([10, 11, 12], {}, "missing or doubled block=13"),
        ([], {}, "missing or doubled block=10"),
        ([9, 10, 11, 12, 13], {}, r"outside the range block=9 range=\[10, 14\)"),
        ([10, 11, 12, 13, 14], {}, "outside the range block=14"),
        ([10, 12, 11, 13], {}, "not in block order block=11"),
        ([10, 11, 12, 13], {"chain_id": 2}, "another chain block=10 expected=1 got=2"),
        ([10, 11, 12, 13], {"chain_id": None}, "a null in a column that allows none column=chain_id block=10"),
        ([10, 11, 12, 13], {"broken_link": 12}, f"the block before block=12 expected=0x{'0b' * 32} got=0x{'ee' * 32}"),
        ([10, 11, 12, 13], {"broken_link": 11}, "the block before block=11"),
    ],
)
def test_broken_blocks_are_named(numbers, more, said):
    with pytest.raises(VerificationFailed, match=said):
        run("blocks", blocks(numbers, **more))


def test_the_first_parent_is_for_the_evidence_to_say():
    assert run("blocks", blocks([10, 11, 12, 13], broken_link=10))


def test_a_row_without_a_block_number():
    with pytest.raises(VerificationFailed, match="column=block_number block=-1"):
        run("logs", table("logs", [{"block_number": None, "log_index": 0}], ["block_number", "log_index"]))


def indexed(name, pairs, index):
    rows = [{"block_number": block, index: position, "chain_id": 1} for block, position in pairs]
    return table(name, rows, ["block_number", index, "chain_id"])


DENSE = [("logs", "log_index"), ("transactions", "transaction_index")]
SPARSE = [("erc20_transfers", "log_index"), ("native_transfers", "transfer_index"), ("contracts", "create_index")]


@pytest.mark.parametrize(("name", "index"), [*DENSE, *SPARSE])
def test_indices_in_order_pass_and_so_does_nothing(name, index):
    pairs = [(10, 0), (10, 1), (12, 0)]
    assert run(name, indexed(name, pairs, index)) == run(name, indexed(name, [], index))
    assert "unique natural key" in run(name, indexed(name, pairs, index))


@pytest.mark.parametrize(("name", "index"), DENSE)
@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([(10, 1)], "block=10 expected=0 got=1"),
        ([(10, 0), (10, 2)], "block=10 expected=1 got=2"),
        ([(10, 0), (11, 0), (11, 0)], "block=11 expected=1 got=0"),
        ([(10, None)], "a null in a column that allows none column={index} block=10"),
        ([(11, 0), (10, 0)], "rows are not in block order block=10"),
        ([(14, 0)], "outside the range block=14"),
    ],
)
def test_broken_indices_are_named(name, index, pairs, said):
    with pytest.raises(VerificationFailed, match=said.format(index=index)):
        run(name, indexed(name, pairs, index))
    assert f"{index} contiguous per block" in run(name, indexed(name, [], index))


@pytest.mark.parametrize(("name", "index"), SPARSE)
def test_sparse_indices_only_rise(name, index):
    run(name, indexed(name, [(10, 3), (10, 7), (11, 2)], index))
    for pairs in ([(10, 3), (10, 3)], [(10, 3), (10, 2)]):
        with pytest.raises(
            VerificationFailed,
            match=f"not in order of block_number, {index} block=10 expected=above 3 got={pairs[1][1]}",
        ):
            run(name, indexed(name, pairs, index))


def test_transaction_hashes_are_unique_over_blocks():
    columns = ["block_number", "transaction_index", "transaction_hash"]
    rows = [{"block_number": 10 + n, "transaction_index": 0, "transaction_hash": bytes([n]) * 32} for n in range(3)]
    assert "transaction_hash unique" in run("transactions", table("transactions", rows, columns))
    rows[2]["transaction_hash"] = rows[0]["transaction_hash"]
    with pytest.raises(VerificationFailed, match="a key occurs twice block=12 key=transaction_hash"):
        run("transactions", table("transactions", rows, columns))


def frames(name, rows):
    columns = ["block_number", "transaction_index", "trace_address", "chain_id"]
    more = ["action_type"] if name == "traces" else []
    given = [
        {
            "block_number": b,
            "transaction_index": t,
            "trace_address": a,
            "chain_id": 1,
            "action_type": (*kind, "call")[0],
        }
        for b, t, a, *kind in rows
    ]
    return table(name, given, [*columns, *more])


@pytest.mark.parametrize(("name", "gap"), [("geth_calls", " "), ("traces", "_")])
def test_call_trees_pass(name, gap):
    deep = [(10, 0, ""), (10, 0, "0"), (10, 0, f"0{gap}0"), (10, 0, f"0{gap}1"), (10, 0, "1"), (10, 1, ""), (12, 0, "")]
    many = [(11, 0, ""), *[(11, 0, str(n)) for n in range(12)], *[(11, 0, f"10{gap}{n}") for n in range(11)]]
    for rows in (deep, many, []):
        assert "call frames form one tree per transaction" in run(name, frames(name, sorted(rows)))


@pytest.mark.parametrize(("name", "gap"), [("geth_calls", " "), ("traces", "_")])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(10, 0, ""), (10, 0, "")], "occurs twice"),
        ([(10, 0, "0")], "no root frame block=10 transaction=0"),
        ([(10, 0, ""), (10, 0, "0~0")], "no parent block=10 got='0~0'"),
        ([(10, 0, ""), (10, 0, "1")], "lacks the sibling before it block=10 got='1'"),
        ([(10, 0, ""), (10, 0, "0"), (10, 0, "0~1")], "lacks the sibling before it block=10 got='0~1'"),
        ([(10, 0, ""), (10, 0, "0"), (10, 0, "2")], "lacks the sibling"),
        ([(10, 1, "")], "a transaction has no call frames block=10 expected=0 got=1"),
        ([(10, 0, ""), (10, 2, "")], "has no call frames block=10 expected=1 got=2"),
        ([(10, 0, ""), (10, 0, "00")], "malformed block=10 got='00'"),
        ([(10, 0, ""), (10, 0, "x")], "malformed"),
        ([(10, 0, ""), (10, 0, "-1")], "malformed"),
        ([(10, 0, ""), (10, 0, "0,0")], "malformed"),
        ([(10, 0, ""), (10, 0, "²")], "malformed"),
        ([(10, 0, ""), (10, 0, "~0")], "malformed|has no parent|occurs twice"),
        ([(10, 0, ""), (10, 0, "9999999999")], "malformed"),
        ([(10, None, "")], "a call frame has no transaction_index block=10|null"),
        ([(10, 0, None)], "a null in a column that allows none column=trace_address"),
    ],
)
def test_broken_trees_are_named(name, gap, rows, said):
    rows = [(b, t, a.replace("~", gap) if a else a) for b, t, a in rows]
    if rows[-1][2] == f"{gap}0":
        return  # an empty step: its parent is the root, and so is that of "0"
    with pytest.raises(VerificationFailed, match=said.replace("~", gap)):
        run(name, frames(name, rows))


ADDRESSES = st.sampled_from(["", "", "0", "0", "0 0", "0 1", "1", "1 0", "00", " 0", "x"])
POSITIONS = st.sampled_from([0, 0, 0, 1, 1, 2, 2**32 - 1, 2**32, 2**32 + 1, 2**63])
ROOTED = st.lists(st.sampled_from(["0", "0 0", "0 1", "1", "2"]), max_size=4, unique=True).map(lambda more: ["", *more])


@st.composite
def trees(draw):
    """Draw transactions that mostly count from 0, with frames that often form a tree."""
    rows = []
    for block in draw(st.lists(st.integers(10, 13), unique=True, max_size=3).map(sorted)):
        for position in range(draw(st.integers(0, 3))):
            rows += [(block, position, address) for address in draw(ROOTED)]
    return rows


@given(trees() | st.lists(st.tuples(st.integers(10, 13), POSITIONS, ADDRESSES), max_size=8))
def test_trees_seen_at_a_glance_are_those_looked_at_frame_by_frame(rows):
    """The result does not depend on the order of rows or on the size of positions."""
    names = ("block_number", "transaction_index", "trace_address")
    kinds = (pa.uint32(), pa.uint64(), pa.large_string())
    given_rows = pa.table([pa.array([row[at] for row in rows], kind) for at, kind in enumerate(kinds)], names)

    def verdict(look):
        try:
            look()
        except VerificationFailed as error:
            return str(error)
        return "a tree each"

    expected = verdict(lambda: check_shape(frames_of(given_rows), " "))
    assert verdict(lambda: require_shape(given_rows, " ")) == expected


def test_a_deep_tree_is_looked_at_but_not_remembered():
    rows = [(10, 0, " ".join("0" * depth)) for depth in range(100)]
    require_shape(frames("geth_calls", rows), " ")
    with pytest.raises(VerificationFailed, match="no parent"):
        require_shape(frames("geth_calls", [*rows[:50], *rows[51:]]), " ")


def test_block_rewards_are_no_frames():
    run("traces", frames("traces", [(10, 0, ""), (10, None, "", "reward"), (10, None, "", "reward")]))


FACES = ["block_number", "transfer_index", "value_binary", "value_string", "value_f64"]


def valued(binary, string, double, columns=FACES):
    row = {"block_number": 10, "transfer_index": 0, "value_binary": binary, "value_string": string, "value_f64": double}
    return table("native_transfers", [row], columns)


BIG = 2**255 + 1


def test_faces_that_agree():
    for number in (0, 5, 2**53 + 1, BIG):
        assert "faces of value agree" in run(
            "native_transfers", valued(number.to_bytes(32, "big"), str(number), float(number))
        )
    assert "faces of value agree" in run("native_transfers", valued(None, None, None))
    assert "faces of value agree" in run("native_transfers", valued(None, None, None, [*FACES[:2], *FACES[3:]]))
    assert "faces of value agree" in run("native_transfers", valued(None, "5", 5.0, [*FACES[:2], *FACES[3:]]))
    assert "faces of value agree" not in run(
        "native_transfers", valued(None, "5", 5.0, [*FACES[:4:3], "transfer_index"])
    )


@pytest.mark.parametrize(
    ("binary", "string", "double"),
    [
        (bytes(32), "1", 0.0), (bytes(32), "0", 1.0), (bytes(31) + b"\x01", "0", 0.0), (bytes(31), "0", 0.0),
        (bytes(33), "0", 0.0), (b"\x01" + bytes(32), "0", 0.0), (None, "0", 0.0), (bytes(32), None, 0.0),
        (bytes(32), "0", None), (bytes(32), "00", 0.0), (bytes(32), "0x0", 0.0),
        (BIG.to_bytes(32, "big"), str(BIG), 5e76),
    ],
)  # fmt: skip
def test_faces_that_do_not_agree(binary, string, double):
    with pytest.raises(VerificationFailed, match="does not agree with the value's other columns block=10 expected="):
        run("native_transfers", valued(binary, string, double))


@pytest.mark.parametrize("string", ["", "-1", "1.0", "x", "٣", "1" * 79, str(2**256)])
def test_decimal_text_that_is_no_number(string):
    with pytest.raises(VerificationFailed, match="value_string is no uint256 block=10"):
        run("native_transfers", valued(None, string, 1.0, [*FACES[:2], *FACES[3:]]))
    run("native_transfers", valued(None, str(2**256 - 1), float(2**256 - 1), [*FACES[:2], *FACES[3:]]))


COUNTS = ["block_number", "transaction_index", "input", "n_input_bytes", "n_input_zero_bytes", "n_input_nonzero_bytes"]


def counted(data, *counts):
    row = dict(zip(COUNTS, (11, 0, data, *counts), strict=True))
    return table("transactions", [row], COUNTS)


def test_input_counts():
    assert "n_input counts the input" in run("transactions", counted(b"\x00\x01\x00", 3, 2, 1))
    assert "n_input counts the input" in run("transactions", counted(b"", 0, 0, 0))
    assert "n_input counts the input" not in run("transactions", counted(b"", 0, 0, 0).drop_columns(["input"]))
    bare = counted(b"", 0, 0, 0).drop_columns(COUNTS[3:])
    assert "n_input counts the input" not in run("transactions", bare)
    for wrong in ((2, 2, 1), (3, 1, 1), (3, 2, 2), (3, 2, None)):
        with pytest.raises(VerificationFailed, match=r"does not count the input block=11 expected=. got="):
            run("transactions", counted(b"\x00\x01\x00", *wrong))
    with pytest.raises(VerificationFailed, match="a transaction has no input block=11"):
        run("transactions", counted(None, 0, 0, 0))


@pytest.mark.parametrize("name", catalogue())
def test_the_fake_engine_has_the_form_of_a_right_answer(name):
    known = dataset(name)
    span = BlockRange(5, 60)
    request = ExtractRequest(known, span, 7, known.engine_schema(tuple(known.all_columns)), Endpoint("none", 1, ""))
    found = FakeCryo().extract(request)
    assert "chain_id" in check_structure(known, found, span, 7)


NUMBERS = st.one_of(
    st.integers(0, 2**256 - 1),
    st.sampled_from([0, 1, 2**53 + 1, 2**63, 2**64 - 1, 2**127 - 1, 2**127, 2**128, 2**256 - 1]),
)
WRONG_TEXT = st.sampled_from([None, "", "-1", "-0", "+5", "05", " 5", "5 ", "5.0", "0x5", "\u0665", "1e3", str(2**256)])
WRONG_DOUBLE = st.sampled_from([None, float("nan"), float("inf"), -1.0, 0.5])


@st.composite
def rows_of_faces(draw):
    """Draw (binary, string, f64), mostly right, some with one wrong column."""
    value = draw(NUMBERS)
    row = [value.to_bytes(32, "big"), str(value), float(value)]
    match draw(st.integers(0, 7)):
        case 0:
            row[0] = draw(st.sampled_from([None, b"", row[0][1:], b"\0" + row[0], row[0][16:], b"\1" + row[0][1:]]))
        case 1:
            row[1] = draw(st.one_of(WRONG_TEXT, NUMBERS.map(str)))
        case 2:
            row[2] = draw(st.one_of(WRONG_DOUBLE, NUMBERS.map(float)))
        case 3:
            row = [None, None, None]
    return tuple(row)


def is_right(binary, string, double):
    if binary is None:
        return string is None and double is None
    value = int.from_bytes(binary, "big")
    return len(binary) == 32 and string == str(value) and double == float(value)


def passes(rule, *arguments):
    try:
        rule(*arguments)
    except VerificationFailed:
        return False
    return True


@given(st.lists(rows_of_faces(), min_size=1, max_size=8))
def test_columns_of_faces_are_judged_as_each_value_alone(rows):
    whole = table("native_transfers", [dict(zip(FACES[2:], row, strict=True)) for row in rows], FACES[2:])
    whole = whole.append_column("block_number", pa.array([10] * len(rows)))
    assert passes(check_uint256_columns, whole) == all(is_right(*row) for row in rows)


def test_a_column_of_another_kind_is_refused():
    strange = blocks([10, 11, 12, 13]).set_column(2, "block_number", pa.array([10, 11, 12, 13], pa.int64()))
    assert "rows in block order" in run("blocks", strange), "another width of number is none"
    for name, values in (("chain_id", ["1"] * 4), ("parent_hash", [1, 2, 3, 4])):
        place = strange.column_names.index(name)
        with pytest.raises(VerificationFailed, match="another kind"):
            run("blocks", strange.set_column(place, name, pa.array(values)))
