"""The conditions that are read from a query: intervals of blocks and times, and values. The bounds are exact."""

from datetime import UTC, datetime

import pytest

from trace_dagster.query.planner import add_tables, planner
from trace_dagster.query.pruning import reads_of
from trace_dagster.registry.conditions import (
    HIGHEST,
    LOWEST,
    MAX_INTERVALS,
    Conditions,
    block_ranges,
    block_span,
    both,
    either,
    time_ranges,
    united,
)

TIME = ("block_timestamp", "TIMESTAMP WITH TIME ZONE")
SHAPES = {
    "blocks": [("block_hash", "BLOB"), ("block_number", "BIGINT"), TIME, ("gas_used", "BIGINT")],
    "logs": [("address", "BLOB"), ("topic0", "BLOB"), TIME, ("block_number", "BIGINT"), ("log_index", "INTEGER")],
    "chain_1.logs": [("block_number", "BIGINT"), TIME, ("address", "BLOB")],
    "days": [("block_number", "DATE"), ("block_timestamp", "VARCHAR")],
}


@pytest.fixture(scope="module")
def connection():
    with planner() as opened:
        add_tables(SHAPES, opened)
        yield opened


def micro(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**6


def conditions_of(sql, connection):
    """Return the conditions of each scan, by table."""
    return {name: list(found.conditions) for name, found in reads_of(sql, connection).items()}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("block_number = 7", ((7, 7),)),
        ("7 = block_number", ((7, 7),)),
        ("block_number < 7", ((LOWEST, 6),)),
        ("7 > block_number", ((LOWEST, 6),)),
        ("block_number <= 7", ((LOWEST, 7),)),
        ("block_number > 7", ((8, HIGHEST),)),
        ("block_number >= 7", ((7, HIGHEST),)),
        ("block_number between 3 and 7", ((3, 7),)),
        ("block_number in (3, 9, 4)", ((3, 4), (9, 9))),
        ("block_number in (3, null)", None),
        ("block_number in [3, 9, 4]", ((3, 4), (9, 9))),
        ("list_contains([3, 4]::bigint[], block_number)", ((3, 4),)),
        ("block_number in [3, null]", None),
        ("block_number in []::bigint[]", None),
        ("block_number in null::bigint[]", "whole"),
        ("block_number in [gas_used, 3]", None),
        ("not block_number in [3, 4]", None),
        ("gas_used in [3, 4]", None),
        ("contains([3, 4]::double[], block_number::double)", ((3, 4),)),
        ("block_number = 2 + 3 * 4", ((14, 14),)),
        ("block_number = '7'", ((7, 7),)),
        ("block_number + 3 = 10", ((7, 7),)),
        ("block_number < 7.5", ((LOWEST, 7),)),
        ("block_number <= 7.5", ((LOWEST, 7),)),
        ("block_number > 7.5", ((8, HIGHEST),)),
        ("block_number >= 7.5", ((8, HIGHEST),)),
        ("block_number > 7e0", ((8, HIGHEST),)),
        ("block_number < 7e0", ((LOWEST, 6),)),
        ("block_number <= -7.5", ((LOWEST, -8),)),
        ("block_number < 2e16", None),
        ("block_number < 'nan'::double", None),
        ("block_number < 18446744073709551616", ((LOWEST, HIGHEST),)),
        ("block_number = 7::utinyint", ((7, 7),)),
        ("block_number is not distinct from 7", ((7, 7),)),
        ("block_number is distinct from 7", None),
        ("block_number <> 7", None),
        ("block_number not in (3, 9)", None),
        ("block_number::varchar = '7'", None),
        ("block_number % 2 = 1", None),
        ("block_number = 7 and gas_used > 5", ((7, 7),)),
        ("block_number > 7 and block_number < 10", ((8, 9),)),
        ("block_number < 3 or block_number > 8", ((LOWEST, 2), (9, HIGHEST))),
        ("block_number < 3 or gas_used > 8", None),
        ("(block_number < 3 and gas_used > 8) or block_number = 5", ((LOWEST, 2), (5, 5))),
        ("block_number = gas_used", None),
        ("block_number < 100 * random()", None),
        ("block_number = 7 and now() is not null", "whole"),
        ("block_number = extract(epoch from current_timestamp)::bigint", "whole"),
        ("block_number = 3 and block_number = 4", "whole"),
    ],
)
def test_conditions_on_block_numbers(connection, condition, expected):
    found = conditions_of(f"select 1 from blocks where {condition}", connection)
    assert found == ({} if expected == "whole" else {"blocks": [Conditions(blocks=expected)]})


@pytest.mark.parametrize(
    ("condition", "first", "last"),
    [
        (">= '2024-01-02'", "2024-01-02", None),
        ("> timestamp '2024-01-02 03:04:05'", "2024-01-02 03:04:05.000001", None),
        ("< timestamptz '2024-01-02 01:00:00+01'", None, "2024-01-01 23:59:59.999999"),
        (" between '2024-01-02' and '2024-01-03'", "2024-01-02", "2024-01-03"),
        (">= timestamptz '2024-01-02' + interval 1 day", "2024-01-03", None),
        (">= date '2024-01-02'", "2024-01-02", None),
        ("::date = '2024-01-02'", "2024-01-02", "2024-01-02 23:59:59.999999"),
        ("::date > '2024-01-02'", "2024-01-03", None),
        ("::date < '2024-01-02'", None, "2024-01-01 23:59:59.999999"),
        ("::date <= '2024-01-02'", None, "2024-01-02 23:59:59.999999"),
        ("::date >= '2024-01-02'", "2024-01-02", None),
        ("= to_timestamp(1704153600)", "2024-01-02", "2024-01-02"),
    ],
)
def test_conditions_on_times(connection, condition, first, last):
    def exact(text):
        whole, _, part = text.partition(".")
        return micro(whole) + int(part or 0)

    (found,) = conditions_of(f"select 1 from blocks where block_timestamp{condition}", connection)["blocks"]
    assert found.times == ((exact(first) if first else LOWEST, exact(last) if last else HIGHEST),)


def test_conditions_on_values(connection):
    (found,) = conditions_of(
        "select 1 from logs where address in (unhex('5c78'), 'a\\x00'::blob) and topic0 = unhex('ff')",
        connection,
    )["logs"]
    assert found.values == {"address": {b"\x5cx", b"a\x00"}, "topic0": {b"\xff"}}
    (found,) = conditions_of(
        "select 1 from logs where address in [unhex('ab'), unhex('cd')] and contains('ab', 'a')", connection
    )["logs"]
    assert found.values == {"address": {b"\xab", b"\xcd"}}
    for nothing in ("address > unhex('ff')", "address <> unhex('ff')", "not address = unhex('ff')", "topic0 is null"):
        (found,) = conditions_of(f"select 1 from logs where {nothing}", connection)["logs"]
        assert found.values == {}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("from chain_1.logs l where l.block_number = 1", {"chain_1.logs": [((1, 1),)]}),
        ("from logs a, logs b where a.block_number = 1", {"logs": [((1, 1),), None]}),
        (
            "from logs l left join blocks b on b.block_number = l.block_number and l.block_number < 5",
            {"blocks": [None]},
        ),
        ("from logs l left join blocks b on b.log_index", {}),
        (
            "from logs l left join blocks b on b.gas_used = l.log_index and b.block_number < 5",
            {"blocks": [((LOWEST, 4),)]},
        ),
        ("from logs l left join blocks b on b.gas_used = l.log_index and l.block_number < 5", {"logs": [None]}),
        ("from logs l right join blocks b on b.gas_used = l.log_index and b.block_number < 5", {"blocks": [None]}),
        ("from logs l full join blocks b on b.gas_used = l.log_index and b.block_number < 5", {"blocks": [None]}),
        ("from logs l anti join blocks b on b.gas_used = l.log_index and l.block_number < 5", {"logs": [None]}),
        ("from (from logs limit 5) where block_number = 1", {"logs": [None]}),
        ("from logs tablesample 50% where block_number = 1", {"logs": [None]}),
        ("from (select *, row_number() over () n from logs) where block_number = 1", {"logs": [None]}),
        ("from logs qualify row_number() over (order by block_number) = 1", {"logs": [None]}),
        ("select max(block_number) from logs having max(block_number) = 1", {"logs": [None]}),
        ("with t as (from logs) from t where block_number = 1", {"logs": [((1, 1),)]}),
        ("with t as (from logs) (from t where block_number = 1) union all (from t)", {"logs": [None]}),
        (
            "from blocks where block_number = 1 union all select 1 from blocks where block_number = 3",
            {"blocks": [((1, 1),), ((3, 3),)]},
        ),
        ("from blocks where exists (from logs where logs.block_number = 3)", {"blocks": [None], "logs": [((3, 3),)]}),
        ("from days where block_number = '2024-01-01' and block_timestamp = '2024-01-01'", {"days": [None]}),
    ],
)
def test_conditions_of_each_scan(connection, sql, expected):
    found = conditions_of(sql if sql.startswith(("select", "with")) else f"select 1 {sql}", connection)
    shown = {name: sorted((each.blocks for each in scans), key=repr) for name, scans in found.items()}
    assert {name: shown[name] for name in expected} == {
        name: sorted(blocks, key=repr) for name, blocks in expected.items()
    }


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1 from logs", {"logs": set()}),
        ("select count(*) from logs where block_number > 5", {"logs": {"block_number"}}),
        ("select topic0 from logs where address = unhex('ab')", {"logs": {"topic0", "address"}}),
        ("select topic0 from logs order by log_index limit 3", {"logs": {"topic0", "log_index"}}),
        ("with t as (from logs) select address from t", {"logs": {"address"}}),
        ("with t as materialized (from logs) select a.address from t a, t b", {"logs": {"address"}}),
        (
            "select l.address from logs l left join blocks b using (block_number) where b.gas_used is null",
            {"logs": {"address", "block_number"}, "blocks": {"gas_used", "block_number"}},
        ),
        ("select a.address from logs a, logs b where b.topic0 is null", {"logs": {"address", "topic0"}}),
        (
            "select 1 from blocks where exists (from logs where logs.log_index = blocks.gas_used)",
            {"logs": {"log_index"}, "blocks": {"gas_used"}},
        ),
        (
            "select b.gas_used from blocks b group by all having max(block_number) > 1",
            {"blocks": {"gas_used", "block_number"}},
        ),
        ("select now() from logs", {}),
    ],
)
def test_columns_that_a_query_reads(connection, sql, expected):
    found = {name: set(reads.columns) for name, reads in reads_of(sql, connection).items()}
    assert found == expected


def test_many_intervals_are_joined_where_the_gaps_are_small():
    found = ()
    for n in range(2 * MAX_INTERVALS):
        found = either(found, ((10 * n, 10 * n + (5 if n % 2 else 2)),))
    assert len(found) <= MAX_INTERVALS
    assert all(any(first <= 10 * n <= last for first, last in found) for n in range(2 * MAX_INTERVALS))
    assert both(((0, 5), (8, 20)), ((4, 9), (15, 30))) == ((4, 5), (8, 9), (15, 20))
    assert both(((0, 5),), ((6, 9),)) == ()


def test_united_conditions_hold_for_the_rows_of_each():
    one = Conditions(((1, 3),), ((0, 5),), {"address": frozenset({b"a"}), "topic0": frozenset({b"t"})})
    other = Conditions(((3, 9),), None, {"address": frozenset({b"b"})})
    assert united([one, other]) == Conditions(((1, 9),), None, {"address": frozenset({b"a", b"b"})})
    assert united([one]) == one


def test_intervals_are_written_for_postgres():
    assert block_ranges(None) == "{(,)}"
    assert block_ranges(()) == "{}"
    assert block_ranges(((LOWEST, 4), (7, HIGHEST))) == "{(,4],[7,)}"
    assert (block_span(((1, 4), (7, 9))), block_span(()), block_span(None)) == ("[1,9]", "empty", "(,)")
    assert time_ranges(((0, 1),)) == "{[1970-01-01T00:00:00+00:00,1970-01-01T00:00:00.000001+00:00]}"
    assert time_ranges(((LOWEST, 0),)) == "{(,1970-01-01T00:00:00+00:00]}"


def test_conditions_survive_json():
    given = Conditions(((LOWEST, 3),), ((0, 5),), {"address": frozenset({b"\x00\xff"})})
    assert Conditions.from_json(given.to_json()) == given
    for wrong in ({"blocks": [[5, 3]], "times": None, "values": {}}, {"blocks": None}, {"blocks": None, "times": 5}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            Conditions.from_json(wrong)
