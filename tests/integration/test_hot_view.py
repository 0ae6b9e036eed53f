"""Queries over hot and committed blocks together: each visible row once, in every moment, and few rows are read."""

import random
import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.support.hot_chain import THREE, hashes_of
from tests.support.hot_view import CHUNK, HotLake
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.errors import InvalidInput
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.query.opening import Opening
from trace_dagster.query.protocol import QueryLimits
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.as_of import AsOf
from trace_dagster.registry.conditions import Conditions, Reads
from trace_dagster.registry.hot import HotRows
from trace_dagster.registry.hot_rows import HotReader

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LOGS = "logs: {cryo_dataset_name: logs}"


@pytest.fixture
def ask(lake):
    with lake.asking() as found:
        yield found


@pytest.fixture
def lake(database, store):
    """Thirty blocks; of logs twenty are committed, of blocks ten."""
    found = HotLake(database, store, THREE)
    found.grow(0, 30)
    for key, number in (("logs", 0), ("logs", 1), ("blocks", 0)):
        found.commit(key, number)
    return found


def test_each_row_of_hot_and_committed_blocks_is_in_the_answer_once(lake, ask):
    for table, rows in (("blocks", 30), ("logs", 60), ("transactions", 60)):
        assert ask(f"select count(*), count(distinct block_number) from {table}") == [(rows, 30)]
        opened = lake.opened(f"select * from {table}")
        hot = pa.concat_tables(opened.hot.values())
        assert hot.schema.equals(dataset(table).schema(lake.streams[table].columns))
        assert sorted(set(hot["block_number"].to_pylist())) == list(
            range({"blocks": 10, "logs": 20, "transactions": 0}[table], 30)
        )
    sql = (
        "select count(*) from logs l join blocks b using (block_hash) join transactions t"
        " on t.block_hash = l.block_hash and t.transaction_index = l.log_index"
    )
    assert ask(sql) == [(60,)]
    with QueryRunner() as runner:
        opening = Opening(lake.catalog, lake.store.access, CommittedObjects(lake.database, lake.store))
        answer = opening.query(runner, "select block_number, log_index, data from logs order by all")
        assert [row[:2] for row in answer.rows] == [(block, index) for block in range(30) for index in range(2)]
        assert answer.snapshot is not None
        described = opening.query(runner, "describe logs").rows
        assert [(name, kind) for name, kind, *_ in described] == [
            (name, kind) for name, kind in answer_types(lake, "logs")
        ]
        assert opening.query(runner, "show all tables").rows
        shown = opening.query(
            runner, "select table_schema, table_name from information_schema.tables order by all"
        ).rows
        names = ("blocks", "heads", "logs", "transactions")
        assert shown == [(schema, name) for schema in ("chain_99", "main") for name in names]


def answer_types(lake, table):
    from trace_dagster.query.relations import duckdb_type

    return [(field.name, duckdb_type(str(field.type))) for field in dataset(table).schema(lake.streams[table].columns)]


def test_a_cut_is_of_hot_and_committed_rows(lake, ask):
    for block in (5, 9, 10, 15, 20, 27):
        expected = [(2 * (block + 1), block)]
        assert ask("select count(*), max(block_number) from logs", AsOf(block=block)) == expected
        time = lake.chain.block(block, []).timestamp + timedelta(milliseconds=500)
        assert ask("select count(*), max(block_number) from logs", AsOf(time=time)) == expected
    assert ask("select count(*) from logs where block_number > 20", AsOf(block=15)) == [(0,)]
    opened = lake.opened("select * from logs", AsOf(block=9))
    assert [each.names.count("\n") + 1 for each in opened.files.values()] == [1]
    assert [each.num_rows for each in opened.hot.values()] == [0]


def test_only_rows_that_can_be_needed_are_read(lake, ask):
    """Of blocks, times and indexed columns, and of the columns that the query names."""
    (log,) = ask(
        "select address, topic0, transaction_hash, block_hash from logs where block_number = 25 and log_index = 1"
    )
    address, topic0, transaction_hash, block_hash = (f"unhex('{value.hex()}')" for value in log)
    time = lake.chain.block(25, []).timestamp
    for condition, rows, columns in (
        ("block_number = 25", 2, {"block_number", "data"}),
        ("block_number between 3 and 21", 4, {"block_number", "data"}),
        ("block_number < 4", 0, {"block_number", "data"}),
        (f"block_timestamp = '{time}'", 2, {"block_number", "block_timestamp", "data"}),
        (f"address = {address}", 1, {"block_number", "address", "data"}),
        (
            f"address = {address} and block_timestamp > '{time}'",
            0,
            {"block_number", "block_timestamp", "address", "data"},
        ),
        (f"topic0 in ({topic0}, unhex('00'))", 1, {"block_number", "topic0", "data"}),
        (
            f"transaction_hash = {transaction_hash} and log_index = 1",
            1,
            {"block_number", "transaction_hash", "log_index", "data"},
        ),
        (f"block_hash = {block_hash}", 2, {"block_number", "block_hash", "data"}),
        ("true", 20, {"block_number", "data"}),
    ):
        (hot,) = lake.opened(f"select data from logs where {condition}").hot.values()
        assert (hot.num_rows, {*hot.column_names}) == (rows, columns), condition
    sql = f"select 1 from logs a, logs b where a.address = {address} and b.block_number = 21"
    (hot,) = lake.opened(sql).hot.values()
    assert {(25, *log[:1])} < {*zip(hot["block_number"].to_pylist(), hot["address"].to_pylist(), strict=True)}


def test_rows_of_another_configuration_are_no_rows_of_the_stream(lake, ask):
    with lake.database.connection() as connection:
        connection.execute(
            "update trace.streams set config_hash = 'other' where dataset_uuid = %s",
            [lake.streams["logs"].dataset_uuid],
        )
    assert ask("select count(*) from logs") == [(40,)]


COMMITS = 6


def test_no_query_sees_a_block_twice_or_not_at_all_while_blocks_move_and_forks_replace_them(database, store):
    """A committer moves chunks while the chain grows and forks; each answer is of one fork, without a gap."""
    lake = HotLake(database, store, "blocks: {cryo_dataset_name: blocks}\n  " + LOGS)
    lake.grow(0, 15)
    forks = [lake.chain]
    failures, answers = [], []
    done = threading.Event()

    def read():
        sql = (
            "select l.block_number, l.block_hash, count(*), count(distinct log_index), any_value(b.block_hash)"
            " from logs l full join blocks b on b.block_number = l.block_number group by all order by all"
        )
        with lake.asking() as ask:
            while not done.is_set():
                try:
                    answers.append(ask(sql))
                except Exception as error:
                    failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for each in readers:
        each.start()
    source = random.Random(3)
    head = 15
    for number in range(COMMITS):
        for step in range(6):
            lake.grow(head, head + 1 + step % 2)
            head += 1 + step % 2
            if step % 2:
                depth = source.randrange(1, min(8, head - number * CHUNK))
                lake.fork(head - depth, head + 1, f"{number}-{step}")
                head += 1
                forks.append(lake.chain)
        lake.commit("logs", number)
        lake.grow(head, head + 1)
        head += 1
        lake.commit("blocks", number)
    done.set()
    for each in readers:
        each.join()
    assert failures == []
    assert len(answers) > 2
    for rows in answers:
        assert [row[0] for row in rows] == list(range(len(rows)))
        assert all(row[2:4] == (2, 2) and row[4] == row[1] for row in rows)
        found = [row[1] for row in rows]
        assert any(found == [chain.hash(block) for block in range(len(rows))] for chain in forks)
    with lake.asking() as ask:
        assert ask("select count(*) from logs") == [(2 * head,)]


def test_blocks_are_read_once_and_never_those_that_a_fork_removed(lake, ask):
    sql = "select block_number, block_hash, data from logs where block_number >= 20 order by all"
    before = ask(sql)
    with lake.database.connection() as connection:
        connection.execute("create table kept as select * from hot.logs")
        connection.execute("delete from hot.logs")  # no follower does this: the answer tells where rows come from
    assert ask(sql) == before
    assert ask(sql.replace(">= 20", "= 22")) == before[4:6]
    assert ask(sql.replace(", data", ", topic1")) == []  # other columns are other rows
    with lake.database.connection() as connection:
        connection.execute("insert into hot.logs select * from kept")
    lake.fork(25, 32, "b")
    after = ask(sql)
    assert after[:10] == before[:10]
    assert [row[1] for row in after[10::2]] == [lake.chain.hash(block) for block in range(25, 32)]


def test_a_query_reads_at_most_so_many_hot_rows(lake):
    stream = lake.streams["logs"].dataset_uuid
    with lake.database.snapshot() as session:
        for reads in (Reads(), Reads((Conditions(values={"address": frozenset({b"x" * 20})}),))):
            assert HotReader().read(session, stream, reads) is not None
        reader = HotReader(cache_bytes=1_000, max_bytes=2_000)
        assert reader.read(session, stream, Reads((Conditions(blocks=((20, 21),)),))).num_rows == 4
        with pytest.raises(InvalidInput, match="rows that are not in files yet: name fewer columns or blocks"):
            reader.read(session, stream, Reads())


def test_large_and_odd_values_arrive_as_they_are(database, store):
    """An input of 16 MiB, bytes that no text can hold, and every null that a column allows."""
    lake = HotLake(database, store, "transactions: {cryo_dataset_name: transactions}")
    (stream,) = lake.streams.values()
    inputs = [b"\x00" * 5, bytes(range(256)) * 65_536, b"", b"\xff'\"\\"]
    blocks = []
    for number, each in enumerate(inputs):
        block = lake.blocks(number, number + 1)[0]
        rows = block.rows[stream.dataset_uuid]
        values = dict(zip(rows.columns, rows.rows[0], strict=True))
        values |= {
            "input": each,
            "gas_price": Decimal(10**38 - 1 - number),
            "to_address": None,
            "max_fee_per_gas": None,
        }
        blocks.append(replace(block, rows={stream.dataset_uuid: HotRows(rows.columns, [tuple(values.values())])}))
    lake.hot.store(lake.lease, hashes_of(lake.streams), blocks)
    with QueryRunner(QueryLimits(memory_mib=512)) as runner:
        opening = Opening(lake.catalog, store.access, CommittedObjects(database, store))
        columns = "octet_length(input), md5(input), gas_price, to_address, max_fee_per_gas"
        sql = f"select {columns} from transactions order by block_number"
        rows = opening.query(runner, sql).rows
        assert [row[0] for row in rows] == [len(each) for each in inputs]
        assert [row[2] for row in rows] == [str(10**38 - 1 - number) for number in range(4)]
        assert all(row[3:] == (None, None) for row in rows)
        sql = "select input from transactions where block_number <> 1 and input >= ''::blob order by block_number"
        assert [row[0] for row in opening.query(runner, sql).rows] == [f"0x{inputs[n].hex()}" for n in (0, 2, 3)]
        with pytest.raises(InvalidInput, match="larger than 16 MiB"):
            opening.query(runner, "select input from transactions where block_number = 1")
