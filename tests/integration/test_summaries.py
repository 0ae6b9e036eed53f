"""Summaries of layout files: they never deny a value that is there, and Postgres decides as Python does."""

import time
from hashlib import sha256
from random import Random

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trace_dagster.compaction.summaries import FileSummaries
from trace_dagster.registry.layouts import FileSummary
from trace_dagster.registry.summaries import (
    MAX_BYTES,
    MAX_VALUES,
    files_that_may_contain,
    may_contain,
    summary_of,
    value_hashes,
)

pytestmark = pytest.mark.integration


def address(number):
    return sha256(b"address %d" % number).digest()[:20]


def register(database, key, summaries):
    """Register a file of a layout and its summaries, nothing else."""
    with database.connection() as connection:
        connection.execute(
            "insert into trace.files (file_key, bytes, sha256, row_count) values (%s, 1, %s, 1)", (key, "0" * 64)
        )
    with database.transaction() as session:
        for each in summaries:
            session.run(
                "insert_file_summary",
                file_key=key,
                column_name=each.column,
                hashes=each.hashes,
                summary=each.summary,
            )


def left(database, keys, **wanted):
    with database.transaction() as session:
        return files_that_may_contain(session, keys, wanted)


def in_postgres(connection, found, value):
    (answer,) = (
        connection.execute(
            "select trace.may_contain(%s, %s::smallint, %s, %s) as it",
            (found.summary, found.hashes, *value_hashes(value)),
        )
        .fetchone()
        .values()
    )
    return answer


values = st.binary(max_size=32)


@given(st.sets(values, max_size=60), st.sets(values, max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_every_value_is_found_and_postgres_agrees_about_all(database, present, others):
    found = summary_of("address", present)
    assert all(may_contain(found, value) for value in present)
    with database.connection() as connection:
        for value in present | others:
            assert in_postgres(connection, found, value) == may_contain(found, value)


@pytest.mark.parametrize("count", [0, 1, 100, 43_690, 50_000, 100_000, MAX_VALUES])
def test_no_size_of_a_file_loses_a_value_or_exceeds_64_kib(count):
    found = summary_of("topic0", {address(number) for number in range(count)})
    assert len(found.summary) <= MAX_BYTES
    assert all(may_contain(found, address(number)) for number in range(0, count, 7))


@pytest.mark.parametrize(
    ("count", "most"), [(100, 0.006), (10_000, 0.006), (50_000, 0.015), (100_000, 0.1), (MAX_VALUES, 0.5)]
)
def test_few_absent_values_seem_present(count, most):
    found = summary_of("address", {address(number) for number in range(count)})
    rate = sum(may_contain(found, address(-number)) for number in range(1, 20_001)) / 20_000
    print(f"{count:,} values: {len(found.summary):,} bytes, {found.hashes} hashes, {rate:.2%} seem present")
    assert rate <= most


def test_a_summary_of_too_many_values_is_given_up():
    assert summary_of("address", range(MAX_VALUES + 1)) is None


def test_summaries_cover_all_tables_of_a_file_and_leave_nulls_out():
    schema = pa.schema([("address", pa.binary(20)), ("topic0", pa.binary(32)), ("data", pa.large_binary())])
    found = FileSummaries()
    topic = bytes(32)
    for rows in ([(address(1), topic), (address(2), None), (address(1), topic)], [], [(address(3), None)]):
        table = pa.Table.from_pylist(
            [{"address": one, "topic0": other, "data": b"x"} for one, other in rows], schema=schema
        )
        found.add(table)
    addresses, topics = found.finish()
    assert (addresses, topics) == (
        summary_of("address", {address(1), address(2), address(3)}),
        summary_of("topic0", {topic}),
    )


def test_columns_that_a_file_lacks_have_no_summary():
    found = FileSummaries()
    found.add(pa.table({"block_number": [1], "address": pa.array([address(1)], pa.binary(20))}))
    assert [each.column for each in found.finish()] == ["address"]


def test_a_column_with_too_many_values_is_given_up_while_it_is_written(monkeypatch):
    for place in ("compaction", "registry"):
        monkeypatch.setattr(f"trace_dagster.{place}.summaries.MAX_VALUES", 10)
    monkeypatch.setattr("trace_dagster.compaction.summaries._LEAST_MERGED", 8)
    found = FileSummaries()
    for start in range(0, 4000, 5):
        found.add(pa.table({"address": pa.array([address(start + number) for number in range(5)], pa.binary(20))}))
    assert len(found._columns["address"].values()) < 30
    assert found.finish() == ()


def test_values_that_come_again_are_merged(monkeypatch):
    monkeypatch.setattr("trace_dagster.compaction.summaries._LEAST_MERGED", 8)
    found = FileSummaries()
    for start in range(100):
        found.add(
            pa.table({"address": pa.array([address((start + number) % 20) for number in range(5)], pa.binary(20))})
        )
    assert sum(map(len, found._columns["address"]._known)) < 60
    assert found.finish() == (summary_of("address", {address(number) for number in range(20)}),)


def test_files_are_left_out_only_if_their_summary_denies_every_value(database):
    register(database, "both", [summary_of("address", {address(1)}), summary_of("topic0", {bytes(32)})])
    register(database, "other", [summary_of("address", {address(2)}), summary_of("topic0", {bytes(32)})])
    register(database, "none", [])
    keys = ["other", "none", "unregistered", "both"]
    assert left(database, keys) == keys
    assert left(database, [], address=[address(1)]) == []
    assert left(database, keys, address=[address(1)]) == ["none", "unregistered", "both"]
    assert left(database, keys, address=[address(1), address(2)]) == keys
    assert left(database, keys, address=[]) == ["none", "unregistered"]
    assert left(database, keys, address=[address(1)], topic0=[b"\x01" * 32]) == ["none", "unregistered"]
    assert left(database, keys, topic0=[bytes(32)], address=[address(2)]) == ["other", "none", "unregistered"]
    assert left(database, keys, data=[b"x"]) == keys


def test_the_summaries_of_a_file_go_with_it(database):
    register(database, "a", [summary_of("address", {address(1)})])
    with database.connection() as connection:
        connection.execute("delete from trace.files where file_key = 'a'")
        assert connection.execute("select count(*) from trace.file_summaries").fetchone() == {"count": 0}


def test_a_rare_address_over_100_files_reads_at_most_5(database):
    """Each file has 20,000 addresses, 1,000 of which are in all files."""
    random = Random(11)
    keys = [f"file {number}" for number in range(100)]
    common = {address(number) for number in range(1_000)}
    first = 1_000
    for key in keys:
        own = {address(number) for number in range(first, first + 50_000, 50)}
        filled = own | common | {random.randbytes(20) for _ in range(18_000)}
        register(database, key, [summary_of("address", filled)])
        first += 50_000
    started = time.perf_counter()
    found = [left(database, keys, address=[address(1_000 + 50_000 * number)]) for number in range(0, 100, 5)]
    seconds = (time.perf_counter() - started) / 20
    print(f"files read for one that has it: {[len(each) for each in found]}, {1000 * seconds:.1f} ms each")
    assert all(keys[5 * number] in each for number, each in enumerate(found))
    assert max(map(len, found)) <= 5
    assert left(database, keys, address=[address(5)]) == keys


def test_a_summary_is_stored_plain(database):
    """A byte of it is read without the rest."""
    register(database, "a", [FileSummary("address", 1, bytes(MAX_BYTES))])
    with database.connection() as connection:
        row = connection.execute("select pg_column_compression(summary) as how from trace.file_summaries").fetchone()
    assert row == {"how": None}
