"""Queries over a real registry with committed, compacted, replaced and hidden ranges: right rows, and few files."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.compaction import visible_rows, window_of
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.errors import Corrupt
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.query.opening import Opening
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.catalog import Catalog, LakeSnapshot
from trace_dagster.registry.conditions import Conditions, Reads
from trace_dagster.registry.connection import Session
from trace_dagster.registry.forks import Forks

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RARE = b"\x77" * 20
CHUNK = 20
COMPACTED = 8 * CHUNK


class Lake:
    """A stream of logs: eight compacted ranges in a few files, one of them replaced and one hidden, and three more."""

    def __init__(self, database, store):
        self.database, self.store = database, store
        self.stream = apply(database, job_text(streams="logs: {cryo_dataset_name: logs}", chunk=CHUNK))["logs"]
        for number in range(11):
            self.commit(number, RARE if number == 4 else None)
        Compactor(database, store).compact(window_of(self.stream, 0, COMPACTED, target_bytes=30_000))
        self.hide(1)
        self.commit(1)
        self.hide(6)
        self.catalog = Catalog(database)
        self.opening = Opening(self.catalog, store.access, CommittedObjects(database, store))
        self.rows = visible_rows(database, store, self.stream)

    def commit(self, number, address=None):
        span = BlockRange(number * CHUNK, (number + 1) * CHUNK)
        rows = made_up_rows(self.stream, span, address=address) if address else None
        commit_rows(self.database, self.store, self.stream, span, FULL, rows)

    def hide(self, number):
        with self.database.connection() as connection:
            (version,) = connection.execute(
                "select dataset_version from trace.dataset_versions where visible and dataset_uuid = %s"
                " and lower(block_range) = %s",
                [self.stream.dataset_uuid, number * CHUNK],
            ).fetchall()
        Forks(self.database).invalidate([version["dataset_version"]], "a test")

    def files(self, *conditions):
        dataset = self.stream.dataset_uuid
        return self.catalog.open({dataset: Reads(conditions)}).files[dataset]


@pytest.fixture
def lake(database, store):
    return Lake(database, store)


@pytest.fixture
def ask(lake, runner):
    return lambda sql, parameters=None: lake.opening.query(runner, sql, 1000, parameters).rows


def test_every_visible_row_is_in_the_answer_once(lake, ask):
    blocks = lake.rows["block_number"].to_pylist()
    assert 6 * CHUNK not in blocks
    assert CHUNK in blocks
    assert ask("select count(*), count(distinct block_number), sum(block_number)::bigint from logs") == [
        (len(blocks), len(set(blocks)), sum(blocks))
    ]
    for first, last in ((0, 5), (15, 45), (119, 141), (150, 205), (210, 300), (-5, -1)):
        expected = sum(first <= block <= last for block in blocks)
        assert ask(f"select count(*) from logs where block_number between {first} and {last}") == [(expected,)]


def test_a_window_of_blocks_or_times_opens_few_files(lake, ask):
    whole = lake.files()
    assert len(whole.layout_files) > 2
    assert len(whole.all_keys()) == len(whole.layout_files) + 4  # the replaced range and three later ones
    assert len(lake.files(Conditions(blocks=((0, 5),))).all_keys()) == 1
    assert lake.files(Conditions(blocks=((130, 132),))).all_keys() == []  # hidden, also in the layout's file
    assert len(lake.files(Conditions(blocks=((25, 25), (170, 170), (500, 600)))).all_keys()) == 2
    assert lake.files(Conditions(blocks=((9, 3),)[:0])).all_keys() == []
    scans = [Conditions(blocks=((0, 5),)), Conditions(blocks=((170, 170),)), Conditions(blocks=((3, 4),))]
    assert len(lake.files(*scans).all_keys()) == 2
    assert lake.files(*scans, Conditions()).all_keys() == whole.all_keys()
    at = pc.unique(lake.rows.filter(pc.equal(lake.rows["block_number"], 170))["block_timestamp"])[0].as_py()
    micro = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert len(lake.files(Conditions(times=((micro, micro),))).all_keys()) == 1
    expected = pc.sum(pc.equal(lake.rows["block_timestamp"], at)).as_py()
    assert ask("select count(*) from logs where block_timestamp = $at", {"at": at}) == [(expected,)]


def test_a_rare_address_opens_the_files_that_have_it(lake, ask):
    found = lake.files(Conditions(values={"address": frozenset({RARE})}))
    assert len(found.layout_files) == 1
    assert len(found.all_keys()) == 1 + 4  # files that are not compacted have no summary
    expected = pc.sum(pc.equal(lake.rows["address"], RARE)).as_py()
    assert expected > 0
    assert ask("select count(*) from logs where address = $a", {"a": "0x" + RARE.hex()}) == [(expected,)]


@pytest.mark.parametrize("column", ["transaction_hash", "block_hash"])
def test_every_row_is_found_by_its_hash(lake, ask, column):
    values = pc.unique(lake.rows[column]).to_pylist()
    picked = [values[0], values[len(values) // 3], values[len(values) // 2], values[-1]]
    for value in picked:
        rows = lake.rows.filter(pc.equal(lake.rows[column], value))
        sql = f"select count(*), min(block_number) from logs where {column} = $h"
        assert ask(sql, {"h": value}) == [(rows.num_rows, pc.min(rows["block_number"]).as_py())]
    expected = sum(value in picked for value in lake.rows[column].to_pylist())
    values = dict(zip("abcd", picked, strict=True))
    counted = f"select count(*) as n from logs where {column} in"
    sql = f"select sum(n)::bigint from ({counted} ($a, $b) union all {counted} ($c, $d))"
    assert ask(sql, values) == [(expected,)]
    assert ask(f"select count(*) from logs where {column} = $h", {"h": b"\x01" * 32}) == [(0,)]


def test_a_hash_in_one_scan_only_hides_no_row_of_another(lake, ask):
    value = lake.rows["transaction_hash"][0].as_py()
    total = lake.rows.num_rows
    mine = pc.sum(pc.equal(lake.rows["transaction_hash"], value)).as_py()
    assert ask(
        "select (select count(*) from logs), (select count(*) from chain_99.logs where transaction_hash = $h)",
        {"h": value},
    ) == [(total, mine)]


def test_a_row_of_a_hidden_range_is_not_found_by_its_hash(database, store, lake, ask):
    hidden = made_up_rows(lake.stream, BlockRange(6 * CHUNK, 7 * CHUNK))
    assert ask(
        "select count(*) from logs where transaction_hash = $h", {"h": hidden["transaction_hash"][0].as_py()}
    ) == [(0,)]


def test_a_query_by_hash_opens_one_file_of_the_layout(lake, monkeypatch):
    value = lake.rows["transaction_hash"][0].as_py()
    with QueryRunner() as runner:
        opened = []
        real = LakeSnapshot.open

        def seen(snapshot, reads):
            found = real(snapshot, reads)
            opened.extend(found.files.values())
            return found

        monkeypatch.setattr(LakeSnapshot, "open", seen)
        lake.opening.query(runner, "select 1 from logs where transaction_hash = $h", 5, {"h": value})
    assert [found.hashes for found in opened] == [{value}]
    assert all(file.index_key for found in opened for file in found.layout_files)


def test_a_damaged_file_is_named_although_it_is_looked_at_while_the_query_runs(lake, ask, store):
    key = lake.files(Conditions(blocks=((170, 170),))).all_keys()[0]
    data = store.read(key)
    store.delete([key])
    with pytest.raises(Corrupt, match=r"logs \[160, 180\): an object is missing"):
        ask("select count(*) from logs where block_number = 170")
    assert ask("select count(*) > 0 from logs where block_number = 5") == [(True,)]
    store.put_if_absent(key, data)
    assert ask("select count(*) > 0 from logs where block_number = 170") == [(True,)]


def test_many_scans_are_few_look_ups(lake, ask, monkeypatch):
    looked_up = []
    real = Session.all
    monkeypatch.setattr(
        Session, "all", lambda self, name, **values: looked_up.append(name) or real(self, name, **values)
    )
    arms = [f"select block_number from logs where block_number = {block}" for block in range(60)]
    expected = sum(block < 60 for block in lake.rows["block_number"].to_pylist())
    assert ask(f"select count(*) from ({' union all '.join(arms)})") == [(expected,)]
    assert looked_up.count("layout_files") <= 16
    files = lake.files(*(Conditions(blocks=((block, block),)) for block in range(60)))
    assert files.all_keys() == lake.files(Conditions(blocks=((0, 59),))).all_keys()


def index_of(database):
    with database.connection() as connection:
        (row,) = connection.execute("select object_key from trace.hash_indexes").fetchall()
    return row["object_key"]


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_damaged_index_is_named_and_hides_no_row(database, store, lake, ask, damage):
    key = index_of(database)
    rows = pq.read_table(pa.BufferReader(store.read(key)))
    store.delete([key])
    if damage == "altered":
        sink = pa.BufferOutputStream()
        pq.write_table(rows.slice(0, 0), sink)
        store.put_if_absent(key, sink.getvalue().to_pybytes())
    value = lake.rows["transaction_hash"][0].as_py()
    with pytest.raises(Corrupt, match=rf"an object is {damage}: `trace-lite verify --job .* --repair`"):
        ask("select count(*) from logs where transaction_hash = $h", {"h": value})
    assert ask("select count(*) from logs") == [(lake.rows.num_rows,)]
