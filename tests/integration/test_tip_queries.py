"""The last blocks by a subquery, over hot and committed blocks: few rows are read, and all are of one moment."""

import pytest

from tests.support.hot_chain import THREE
from tests.support.hot_view import HotLake
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.query.opening import Opening
from trace_dagster.registry.as_of import AsOf
from trace_dagster.registry.catalog import LakeSnapshot
from trace_dagster.registry.connection import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def lake(database, store):
    """Sixty blocks; of logs forty are committed, of blocks thirty. The final one is 44."""
    found = HotLake(database, store, THREE)
    found.grow(0, 60)
    for number in range(4):
        found.commit("logs", number)
    for number in range(3):
        found.commit("blocks", number)
    found.hot.observe(found.lease, {"safe": (50, None), "finalized": (44, None)})
    return found


@pytest.fixture
def opening(lake):
    return Opening(lake.catalog, lake.store.access, CommittedObjects(lake.database, lake.store))


@pytest.fixture
def opened(monkeypatch):
    """What queries opened, in their order."""
    found, real = [], LakeSnapshot.open
    monkeypatch.setattr(LakeSnapshot, "open", lambda snapshot, reads: found.append(real(snapshot, reads)) or found[-1])
    return found


def read_of(lake, opened, key):
    """Return the number of files of a stream that a query opened, and the hot blocks whose rows it read."""
    dataset = lake.streams[key].dataset_uuid
    files, hot = opened.files[dataset], opened.hot[dataset]
    return len(files.all_keys()), sorted(set(hot["block_number"].to_pylist()))


@pytest.mark.parametrize(
    ("condition", "as_of", "first", "last", "files"),
    [
        ("block_number > (select max(block_number) from blocks) - 5", AsOf(), 55, 59, 0),
        ("block_number > (select max(block_number) from chain_99.blocks) - 25", AsOf(), 35, 59, 1),
        ("block_number > (select max(number) from heads) - 5", AsOf(), 55, 59, 0),
        ("block_number > (select number from chain_99.heads where tag = 'finalized') - 10", AsOf(), 35, 59, 1),
        ("block_number > (select max(block_number) from blocks) - 5", AsOf(block=45), 41, 45, 0),
        ("block_number > (select max(block_number) - 5 from blocks)", AsOf(block=24), 20, 24, 1),
        ("block_number > (select max(number) from heads) - 25", AsOf(block=45), 35, 45, 1),
        ("block_number > (select max(block_number) from blocks) - 5", AsOf(finalized_only=True), 40, 44, 0),
    ],
)
def test_the_last_blocks_are_all_that_is_opened(lake, opening, opened, runner, condition, as_of, first, last, files):
    sql = f"with recent as (select * from logs where {condition}) select * from recent"
    counted = f"select count(*), min(block_number), max(block_number) from ({sql})"
    (row,) = opening.query(runner, counted, as_of=as_of).rows
    assert row == (2 * (last - first + 1), first, last)
    assert read_of(lake, opened[0], "logs") == (files, list(range(max(first, 40), last + 1)))
    if "blocks" in condition:
        hot = [last] if last >= 30 else []
        assert read_of(lake, opened[0], "blocks") == (1 - len(hot), hot)


class Moving:
    """A runner during whose queries the lake moves on, after they got their tips."""

    def __init__(self, runner, move):
        self.runner, self.move = runner, move

    def query(self, *given, **named):
        *others, tips = given

        def moving(named, wanted):
            found = tips(named, wanted)
            self.move()
            return found

        return self.runner.query(*others, moving, **named)


def test_tips_files_and_hot_rows_are_of_one_moment(lake, opening, runner):
    """While the query is planned, a chunk is committed, and a fork replaces the last blocks by more of them."""
    sql = (
        "select block_number, block_hash, count(*), (select max(block_number) from blocks),"
        " (select number from heads where tag = 'latest') from logs"
        " where block_number > (select max(block_number) from blocks) - 25 group by all order by all"
    )
    before = [(n, f"0x{lake.chain.hash(n).hex()}", 2, 59, 59) for n in range(35, 60)]

    def move():
        lake.commit("logs", 4)
        lake.commit("blocks", 3)
        lake.fork(55, 75, "b")

    assert opening.query(Moving(runner, move), sql).rows == before
    after = [(n, f"0x{lake.chain.hash(n).hex()}", 2, 74, 74) for n in range(50, 75)]
    assert opening.query(runner, sql).rows == after


def test_a_query_without_such_a_subquery_asks_the_registry_as_often(lake, opening, runner, monkeypatch):
    asked = []
    for name in ("one", "all"):
        real = getattr(Session, name)
        monkeypatch.setattr(Session, name, lambda *given, _real=real, **v: asked.append(given[1]) or _real(*given, **v))
    opening.query(runner, "select count(*) from logs where block_number > 54")
    plain = list(asked)
    asked.clear()
    opening.query(runner, "select count(*) from logs where block_number > (select max(number) - 5 from heads)")
    assert asked == plain
    assert asked.count("relations_in_snapshot") == 1
