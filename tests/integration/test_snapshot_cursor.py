"""The cursor of a snapshot: the changes after it are those that the snapshot does not have."""

import pytest

from tests.support.registry import apply, assert_registry_sound, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.catalog import EVERYTHING, Catalog
from trace_dagster.registry.changes import ChangeLog

pytestmark = pytest.mark.integration

ONE = "blocks: {cryo_dataset_name: blocks}"


@pytest.fixture
def stream(database):
    return apply(database, job_text(streams=ONE))["blocks"]


def commit(ingest, stream, number):
    block_range = BlockRange(100 * number, 100 * number + 100)
    return ingest.commit(ingest.start(ingest.claim(stream, block_range, "run", wait_seconds=0)))


def later(database, cursor):
    return [change.block_range.start // 100 for change in ChangeLog(database).after(cursor)[0]]


def test_changes_that_are_committed_while_a_snapshot_is_open_come_after_its_cursor(database, store, stream):
    with ingesting(database, store) as ingest:
        commit(ingest, stream, 0)
        with Catalog(database).snapshot([stream.dataset_uuid]) as opened:
            commit(ingest, stream, 1)
            cursor = opened.header.cursor
            assert opened.header.relations[0].last_block == 99
        assert later(database, cursor) == [1]
        assert cursor != ChangeLog(database).now()
    assert_registry_sound(database, store)


def test_what_a_snapshot_has_may_come_again_but_nothing_is_left_out(database, store, stream):
    """The log holds back what was committed while an older transaction was open. The snapshot has its files."""
    with ingesting(database, store) as ingest:
        commit(ingest, stream, 0)
        with database.connection() as early:
            early.execute("select pg_current_xact_id()")
            commit(ingest, stream, 1)
            with Catalog(database).snapshot([stream.dataset_uuid]) as opened:
                cursor = opened.header.cursor
                assert opened.header.relations[0].last_block == 199
        commit(ingest, stream, 2)
        assert later(database, cursor) == [1, 2]
        assert len(Catalog(database).files(stream.dataset_uuid, EVERYTHING)) == 3
    assert_registry_sound(database, store)


def test_an_empty_log_has_a_cursor(database, stream):
    with Catalog(database).snapshot([]) as opened:
        assert opened.header.cursor == ChangeLog(database).now()
    assert later(database, opened.header.cursor) == []
