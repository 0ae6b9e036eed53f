"""Hash indexes of layouts: every hash is found with its block, few bytes are read, memory does not grow with rows."""

import re
import subprocess
import sys
from hashlib import sha256
from itertools import product
from random import Random
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trace_dagster.compaction.hash_index import FILE_NAME, HashIndexWriter
from trace_dagster.errors import Unavailable
from trace_dagster.query.hash_lookup import blocks_of, hash_prefix
from trace_dagster.query.session import QuerySession, _secret

pytestmark = pytest.mark.integration
SCHEMA = pa.schema([("block_number", pa.int64()), ("transaction_hash", pa.binary(32)), ("block_hash", pa.binary(32))])


def a_hash(*parts):
    return sha256(repr(parts).encode()).digest()


def rows(blocks, each=3):
    """Return rows as logs have them: a transaction has two of them, and some have no transaction."""
    return pa.Table.from_pylist(
        [
            {
                "block_number": block,
                "transaction_hash": a_hash("transaction", block, row // 2) if row % 5 != 4 else None,
                "block_hash": a_hash("block", block),
            }
            for block in blocks
            for row in range(each)
        ],
        schema=SCHEMA,
    )


def write(store, tables, key=FILE_NAME):
    writer = HashIndexWriter()
    try:
        for table in tables:
            writer.add(table)
        return writer.finish(store, key)
    finally:
        writer.close()


def local(store, folder, key=FILE_NAME):
    path = folder / uuid4().hex
    path.write_bytes(store.read(key))
    return str(path)


def look_up(paths, *hashes):
    return blocks_of(duckdb.default_connection(), paths, hashes)


def test_every_hash_is_found_with_its_block(store, tmp_path):
    written = write(store, [rows(range(100)), rows([]), rows(range(100, 150), each=6)])
    path = local(store, tmp_path)
    assert written.sha256 == sha256(store.read(FILE_NAME)).hexdigest()
    assert (written.key, written.bytes) == (FILE_NAME, len(store.read(FILE_NAME)))
    for block in range(150):
        assert look_up([path], a_hash("block", block)) == [block]
        assert look_up([path], a_hash("transaction", block, 1)) == [block]
    assert look_up([path], a_hash("block", 3), a_hash("transaction", 7, 0), a_hash("block", 150)) == [3, 7]
    assert look_up([path], a_hash("block", 150)) == look_up([path]) == look_up([], a_hash("block", 3)) == []


def test_rows_are_sorted_and_without_repeats_in_small_groups(store, tmp_path, monkeypatch):
    monkeypatch.setattr("trace_dagster.compaction.hash_index._GROUP_ROWS", 64)
    written = write(store, [rows(range(100), each=6), rows(range(90, 200), each=6)])
    file = pq.ParquetFile(local(store, tmp_path))
    found = list(zip(*file.read().to_pydict().values(), strict=True))
    blocks = {(hash_prefix(a_hash("block", block)), block) for block in range(200)}
    transactions = {(hash_prefix(a_hash("transaction", *of)), of[0]) for of in product(range(200), range(3))}
    assert found == sorted(blocks | transactions)
    assert written.rows == len(found) == file.metadata.num_rows
    assert file.metadata.num_row_groups == -(-len(found) // 64)
    group = file.metadata.row_group(0)
    assert [each.column_index for each in group.sorting_columns] == [0, 1]
    assert all(group.column(place).statistics.has_min_max for place in range(2))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 20), st.integers(0, 3)), max_size=60), st.data()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
def test_no_block_of_a_hash_is_missed_wherever_tables_are_cut(store, tmp_path, drawn, data):
    values = [
        {
            "block_number": block,
            "transaction_hash": None if one is None else a_hash(one),
            "block_hash": a_hash("b", other),
        }
        for block, one, other in drawn
    ]
    cut = data.draw(st.integers(0, len(values)))
    table = pa.Table.from_pylist(values, schema=SCHEMA)
    written = write(store, [table.slice(0, cut), table.slice(cut)])
    assert (written is None) == (not values)
    if written is None:
        return
    path = local(store, tmp_path)
    for value in [*(a_hash(number) for number in range(21)), *(a_hash("b", number) for number in range(4))]:
        blocks = {row["block_number"] for row in values if value in row.values()}
        assert look_up([path], value) == sorted(blocks)


def test_rows_without_hashes_have_no_index(store):
    assert write(store, [rows([])]) is None
    assert write(store, [rows([1]).select(["block_number"])]) is None
    assert list(store.keys("")) == []


def test_tables_with_other_columns_share_an_index(store, tmp_path):
    write(store, [rows([1]).drop(["block_hash"]), rows([2]).drop(["transaction_hash"])])
    path = local(store, tmp_path)
    hashes = [a_hash("block", 1), a_hash("transaction", 1, 0), a_hash("block", 2), a_hash("transaction", 2, 0)]
    assert [look_up([path], value) for value in hashes] == [[], [1], [2], []]


def test_several_indexes_are_read_as_one(store, tmp_path):
    paths = []
    for number in range(3):
        write(store, [rows(range(100 * number, 100 * number + 100))], key=f"{number}.parquet")
        paths.append(local(store, tmp_path, f"{number}.parquet"))
    assert look_up(paths, a_hash("block", 250), a_hash("block", 10)) == [10, 250]
    assert look_up(paths[:2], a_hash("block", 250)) == []


def test_a_look_up_reads_the_footer_and_one_row_group(store, s3):
    """The index has 320,000 hashes in 20 row groups."""
    random = Random(5)
    hashes = [random.randbytes(32) for _ in range(320_000)]
    columns = [pa.array(range(160_000)), pa.array(hashes[::2], pa.binary(32)), pa.array(hashes[1::2], pa.binary(32))]
    written = write(store, [pa.Table.from_arrays(columns, schema=SCHEMA)])
    assert written.bytes < 9 * written.rows
    for wanted, most in ((1, 0.1), (3, 0.25)):
        with QuerySession() as session:
            session._connection.execute(_secret(s3))
            (plan,) = blocks_of(Explained(session._connection), [s3.uri(written.key)], hashes[777 : 777 + wanted])
        received, unit, requests = re.search(r"in: ([\d.]+) (\w+) .*#GET: (\d+)", plan, re.DOTALL).groups()
        print(f"{wanted} hashes: {received} {unit} of {written.bytes // 1024} KiB in {requests} requests")
        assert float(received) * {"KiB": 1024, "MiB": 1 << 20}[unit] < most * written.bytes
        assert int(requests) <= 1 + 2 * wanted


def test_a_look_up_leaves_the_number_of_threads_as_it_was(store, tmp_path):
    write(store, [rows([1])])
    paths = [local(store, tmp_path) for _ in range(12)]
    with duckdb.connect(config={"threads": "2"}) as connection:
        assert blocks_of(connection, paths, [a_hash("block", 1)]) == [1]
        with pytest.raises(duckdb.Error):
            blocks_of(connection, [*paths, "absent.parquet"], [a_hash("block", 1)])
        assert connection.execute("select current_setting('threads')").fetchone() == (2,)


class Explained:
    """A connection that says what reading took, instead of the rows."""

    def __init__(self, connection):
        self._connection = connection

    def execute(self, sql, values=None):
        if values is None:
            return self._connection.execute(sql)
        self._plan = self._connection.execute(f"explain analyze {sql}", values).fetchall()[0][1]
        return self

    def fetchall(self):
        return [(self._plan,)]


def test_memory_does_not_grow_with_the_rows_of_a_window(s3):
    """Eight million hashes are 128 MB before they are sorted."""
    few, many = (_memory(s3, tables) for tables in (1, 80))
    print(f"peak memory: {few} MiB for one table, {many} MiB for 80")
    assert many - few < 200


def _memory(s3, tables):
    code = f"""
import os, re
from pathlib import Path
import pyarrow as pa
from trace_dagster.compaction.hash_index import HashIndexWriter
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

rows = 100_000
writer = HashIndexWriter()
for number in range({tables}):
    hashes = pa.Array.from_buffers(pa.binary(32), rows, [None, pa.py_buffer(os.urandom(32 * rows))])
    blocks = pa.array(range(number * rows, number * rows + rows))
    writer.add(pa.table({{"block_number": blocks, "transaction_hash": hashes}}))
access = S3Access({s3.bucket!r}, {s3.access_key!r}, {s3.secret_key!r}, {s3.endpoint!r})
found = writer.finish(ObjectStore(access), "hashes.parquet")
writer.close()
assert found.rows == rows * {tables}
status = Path("/proc/self/status").read_text()  # ru_maxrss counts the memory of the parent before exec too
print(int(re.search("VmHWM: *\\t* *([0-9]+) kB", status)[1]) // 1024)
"""
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_a_full_disk_is_an_error_that_says_what_to_do(store, monkeypatch):
    monkeypatch.setattr("trace_dagster.compaction.hash_index._MEMORY", "8MiB")
    writer = HashIndexWriter()
    writer._connection.execute("set max_temp_directory_size = '0B'")
    hashes = pa.array([a_hash(number) for number in range(100_000)], pa.binary(32))
    table = pa.Table.from_arrays([pa.array(range(100_000)), hashes, hashes], schema=SCHEMA)
    with pytest.raises(Unavailable, match="make room in the temporary directory"):
        _fill(writer, table, store)
    writer.close()
    writer.close()
    assert list(store.keys("")) == []


def _fill(writer, table, store):
    for _ in range(50):
        writer.add(table)
    writer.finish(store, FILE_NAME)
