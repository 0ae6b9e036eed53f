"""Opening a query: which files the registry gives, what of them a session shows, and what parameters do."""

import io
import random
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.cli.parameters import given
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.query import session as session_module
from trace_dagster.query.protocol import MaskedFiles, Relation, Uris, lines
from trace_dagster.query.relations import relation
from trace_dagster.query.session import QuerySession
from trace_dagster.registry.catalog import LakeFile

pytestmark = pytest.mark.integration
COLUMNS = (("block_number", "BIGINT"), ("block_timestamp", "TIMESTAMP WITH TIME ZONE"), ("address", "BLOB"))
SCHEMA = pa.schema(
    [("block_number", pa.int64()), ("block_timestamp", pa.timestamp("us", tz="UTC")), ("address", pa.binary(20))]
)


def row(block):
    return {
        "block_number": block,
        "block_timestamp": datetime(2024, 1, 1, 0, 0, block % 60, tzinfo=UTC),
        "address": bytes([block % 256]) * 20,
    }


def put(store, key, blocks):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row(block) for block in blocks], schema=SCHEMA), sink)
    store.put_if_absent(key, sink.getvalue())
    return key


@pytest.fixture
def ask(store, runner):
    def run(sql, relations, parameters=None, resolve=None):
        return runner.query(sql, relations, store.access, 1000, resolve, parameters).rows

    return run


def test_masked_blocks_of_a_file_are_in_no_answer(store, ask):
    """A block is masked in the file that it left, and not in the file that holds it now."""
    files = [
        LakeFile(put(store, "a", range(10)), (BlockRange(2, 4), BlockRange(7, 8)), BlockRange(0, 10)),
        LakeFile(put(store, "b", range(10, 20)), (BlockRange(10, 11),), BlockRange(10, 20)),
        LakeFile(put(store, "c", range(20, 30)), (), BlockRange(20, 30)),
        LakeFile(put(store, "d", [2, 3, 10]), (), BlockRange(2, 11)),
    ]
    logs = relation("logs", COLUMNS, files, store.access)
    assert [len(each.uris) for each in logs.masked] == [2]  # one scan for both masked files
    assert ask("select block_number from logs order by 1", [logs]) == [(n,) for n in range(30) if n != 7]
    assert ask("select count(*) from logs where block_number between 2 and 10", [logs]) == [(8,)]
    assert ask("select count(*), count(distinct address) from logs", [logs]) == [(29, 29)]


def test_random_masks_show_what_a_plain_reader_shows(store, ask):
    source = random.Random(5)
    for turn in range(12):
        files, expected = [], []
        for number in range(5):
            start = source.randrange(0, 60)
            span = BlockRange(start, start + source.randrange(1, 30))
            cuts = sorted(source.sample(range(span.start, span.end + 1), min(4, len(span) // 2 * 2)))
            masks = tuple(BlockRange(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=True))[: source.randrange(3)]
            key = put(store, f"{turn}/{number}", range(span.start, span.end))
            files.append(LakeFile(key, masks, source.choice([span, None])))
            expected += [n for n in range(span.start, span.end) if not any(n in mask for mask in masks)]
        logs = relation("logs", COLUMNS, files, store.access)
        assert ask("select block_number from logs order by 1", [logs]) == [(n,) for n in sorted(expected)]


def test_only_the_files_that_resolve_returns_can_be_read(store, ask):
    files = [store.access.uri(put(store, key, range(3))) for key in ("a", "b")]
    seen = {}

    def resolve(scans):
        seen.update(scans)
        return [Relation("logs", COLUMNS, files[:1])]

    shapes = [Relation("logs", COLUMNS, ()), Relation("blocks", COLUMNS, ())]
    sql = "select count(*) from logs where block_number >= 1 and block_timestamp < '2024-01-01 00:00:09'"
    assert ask(sql, shapes, resolve=resolve) == [(2,)]
    assert list(seen) == ["logs"]
    (conditions,) = seen["logs"].conditions
    assert conditions.blocks[0][0] == 1
    assert conditions.times[0][1] == datetime(2024, 1, 1, 0, 0, 9, tzinfo=UTC).timestamp() * 10**6 - 1


def test_a_time_without_a_zone_is_in_utc(ask):
    assert ask("select timestamptz '2024-01-01 00:00:00' = timestamptz '2024-01-01 00:00:00+00'", []) == [(True,)]
    assert ask("select current_setting('TimeZone')", []) == [("UTC",)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, 5),
        (-5, -5),
        (2**70, str(2**70)),
        (1.5, 1.5),
        (-0.0, -0.0),
        (Decimal("-1.250"), "-1.250"),
        (Decimal("0.001"), "0.001"),
        (Decimal("1e3"), "1000"),
        (True, True),
        (None, None),
        ("it's $x -- ?", "it's $x -- ?"),
        ("", ""),
        ("'); drop table logs; --", "'); drop table logs; --"),
        ("\\'\n\u212a", "\\'\n\u212a"),
        (b"\x00\xab'", "0x00ab27"),
        (date(2024, 2, 29), "2024-02-29"),
        (datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC), "2024-02-29T01:02:03.000004+00:00"),
        ([1, 2, 3], [1, 2, 3]),
        (["a'", None], ["a'", None]),
        ([], []),
    ],
)
def test_a_parameter_is_the_value_that_was_given(ask, value, shown):
    assert ask("select $x, '$x', ? is null".replace("?", "$X") + " -- $x", [], {"x": value}) == [
        (shown, "$x", value is None)
    ]
    assert ask("select ? /* ? */, '?'", [], [value]) == [(shown, "?")]


def test_parameters_stand_where_values_stand(store, ask):
    logs = relation("logs", COLUMNS, [LakeFile(put(store, "a", range(9)))], store.access)
    count = "select count(*) from logs where "
    address = "0x" + bytes([3]).hex() * 20
    assert ask(count + "block_number between $a and $b", [logs], {"a": 2, "b": 4}) == [(3,)]
    assert ask(count + "block_number > -$a", [logs], {"a": -7}) == [(1,)]
    assert ask(count + "block_number in (?, ?) or block_number in ?", [logs], [1, 2, [5, 6]]) == [(4,)]
    assert ask(count + "address = $a", [logs], {"a": address}) == [(1,)]
    assert ask(count + "address = $1", [logs], {"1": bytes([3]) * 20}) == [(1,)]
    assert ask(count + "block_timestamp >= $t", [logs], {"t": "2024-01-01 00:00:05"}) == [(4,)]
    assert ask("select block_number from logs order by 1 limit $n", [logs], {"n": 2}) == [(0,), (1,)]
    assert ask("explain select * from logs where block_number = $n", [logs], {"n": 2})


@pytest.mark.parametrize(
    ("sql", "parameters", "message"),
    [
        ("select $x", {}, r"parameter \$x has no value: give it one$"),
        ("select ?, ?", [1], r"parameter \$2 has no value"),
        ("select 1", {"x": 1}, r"no parameter \$x: write it in the SQL, or leave out its value$"),
        ("select $x", {"x": {}}, r"parameter \$x must be"),
        ("select $x", {"x": float("nan")}, r"parameter \$x is not a text"),
        ("select $x", {"x": 1 << 128}, "longer number as a text"),
        ("select $x", {"x": Decimal("1e39")}, "longer number as a text"),
        ("select $x", {"x": "a\0b"}, "NUL"),
        ("select * from $x", {"x": "/etc/passwd"}, "not valid SQL"),
        ("select date $x", {"x": "2024-01-01"}, "not valid SQL"),
    ],
)
def test_a_parameter_that_cannot_be_set_is_refused(ask, sql, parameters, message):
    with pytest.raises(InvalidInput, match=message):
        ask(sql, [], parameters)


def test_a_parameter_prunes_as_its_value_does(store, ask):
    seen = {}

    def resolve(scans):
        seen.update(scans)
        return [Relation("logs", COLUMNS, ())]

    ask("select * from logs where block_number = $n", [Relation("logs", COLUMNS, ())], {"n": 7}, resolve)
    assert seen["logs"].conditions[0].blocks == ((7, 7),)


def test_parameters_of_the_command_line_are_json_or_text():
    assert given(["a=5", "$B=0xab", 'c="5"', "d=[1, null]", "e=1.10", "f=x=y", "g=", "h=NaN"]) == {
        "a": 5,
        "b": "0xab",
        "c": "5",
        "d": [1, None],
        "e": Decimal("1.10"),
        "f": "x=y",
        "g": "",
        "h": "NaN",
    }
    for wrong in (["a"], ["=5"], ["a=1", "A=2"]):
        with pytest.raises(InvalidInput):
            given(wrong)


def test_a_list_of_uris_is_what_it_was_made_of():
    assert list(Uris("s3://b/", "")) == []
    assert len(Uris("s3://b/", "")) == 0
    found = Uris("s3://b/", "x\ny")
    assert (list(found), len(found), found[1], lines(found)) == (
        ["s3://b/x", "s3://b/y"],
        2,
        "s3://b/y",
        "s3://b/x\ns3://b/y",
    )
    given_relation = Relation("a", [("n", "BIGINT")], found, (MaskedFiles(["s3://b/z"], ((1, 2), (4, 4))),))
    again = Relation.from_json(given_relation.to_json(), lines(given_relation.uris))
    assert list(again.all_uris()) == ["s3://b/x", "s3://b/y", "s3://b/z"]
    assert again.masked[0].blocks == ((1, 2), (4, 4))


def test_of_a_very_long_list_the_folder_is_allowed_and_nothing_else(store, monkeypatch):
    """The gate refuses these names before; here the session is alone."""
    monkeypatch.setattr(session_module, "MAX_PATHS", 2)
    inside = [store.access.uri(put(store, f"cryo/1/d/{n}_{n + 1}/v/a.parquet", [n])) for n in range(4)]
    hidden = store.access.uri(put(store, "cryo/1/d/9_10/v/a.parquet", [9]))
    outside = store.access.uri(put(store, "cryo/1/e/0_1/v/a.parquet", [5]))
    with QuerySession.over([Relation("logs", COLUMNS, inside)], store.access) as session:
        session.select("select count(*) from logs")
        assert session.fetch(2) == [(4,)]
        session.select(f"select count(*) from '{hidden}'")  # of the same dataset: this is what a long list costs
        assert session.fetch(2) == [(1,)]
        for name in (
            outside,
            "s3://other/cryo/1/d/0_1/v/a.parquet",
            inside[0] + "?s3_endpoint=127.0.0.1:9",
            inside[0].replace("0_1", "*"),
            inside[0].replace("/d/", "/d/../e/"),
            inside[0].replace("/d/", "/d2/"),
        ):
            with pytest.raises((InvalidInput, Unavailable)):
                session.select(f"select * from '{name}'")
