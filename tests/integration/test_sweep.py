"""Sweep removes what no commit needs, and nothing else. A dry run reports the same and removes nothing."""

from __future__ import annotations

import pytest

from tests.support.clock import advance
from tests.support.registry import apply, assert_registry_sound, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import LeaseLost
from trace_dagster.ingest.commit import CommitTarget
from trace_dagster.maintenance.sweep import sweep
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.tasks import Tasks

pytestmark = pytest.mark.integration

ONE = "blocks: {cryo_dataset_name: blocks}"
FIRST = BlockRange(0, 100)
HOUR = 3600.0


@pytest.fixture
def stream(database):
    return apply(database, job_text(streams=ONE))["blocks"]


def orphan(database, store, stream, monkeypatch):
    """Return the lease of an attempt that wrote Parquet and manifest and died before its registry commit."""

    class Died(BaseException):
        pass

    def dies(*_args, **_values):
        raise Died

    with ingesting(database, store) as ingest, monkeypatch.context() as patched:
        patched.setattr(Publications, "commit", dies)
        patched.setattr(Tasks, "release", lambda *_: None)
        work = ingest.claim(stream, FIRST, "run", wait_seconds=0)
        with pytest.raises(Died):
            ingest.commit(ingest.start(work))
    return work


def swept(database, store, grace=HOUR):
    """Sweep dry, then for real; both must report the same."""
    before = sorted(store.keys(""))
    dry = sweep(database, store, grace_seconds=grace, dry_run=True)
    assert sorted(store.keys("")) == before
    real = sweep(database, store, grace_seconds=grace, dry_run=False)
    assert {**dry.to_json(), "dry_run": False} == real.to_json()
    return real


def test_a_dead_attempts_objects_go_after_the_grace_period_and_not_before(database, store, stream, monkeypatch):
    orphan(database, store, stream, monkeypatch)
    assert len(list(store.keys(""))) == 2
    advance(database, HOUR - 10)
    assert swept(database, store).objects_removed == 0
    advance(database, 300)
    found = swept(database, store)
    assert (found.attempts_fenced, found.objects_removed) == (1, 1)
    assert [key.rsplit("/", 1)[1] for key in store.keys("")] == ["_manifest.json"]  # the next attempt replaced it
    assert swept(database, store).objects_removed == 0


def test_a_fenced_attempt_cannot_commit_any_more(database, store, stream):
    with ingesting(database, store) as ingest:
        work = ingest.claim(stream, FIRST, "sleeper", wait_seconds=0)
        advance(database, 2 * HOUR)
        assert swept(database, store).attempts_fenced == 1
        with pytest.raises(LeaseLost):
            ingest.commit(ingest.start(work))
    assert Catalog(database).committed_ranges(stream.dataset_uuid) == []


def test_a_range_someone_works_on_is_left_alone(database, store, stream, monkeypatch):
    orphan(database, store, stream, monkeypatch)
    advance(database, 2 * HOUR)
    with ingesting(database, store) as ingest:
        work = ingest.claim(stream, FIRST, "second", wait_seconds=0)
        assert swept(database, store).objects_removed == 0
        published = ingest.commit(ingest.start(work))
    assert published.created
    advance(database, 2 * HOUR)
    assert swept(database, store).objects_removed == 1  # the first attempt's Parquet; its manifest was replaced
    assert_registry_sound(database, store)


def test_a_live_version_stays_and_a_replaced_one_goes(database, store, stream):
    with ingesting(database, store) as ingest:
        first = ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
        store.delete([file.key for file in Publications(database).files(first)])
        second = ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0, refresh=True)))
    assert second.generation == 1
    assert swept(database, store).generations_retired == 0
    advance(database, 2 * HOUR)
    found = swept(database, store)
    assert (found.generations_retired, found.objects_removed) == (1, 1)  # the manifest, because its Parquet was gone
    assert len(list(store.keys(""))) == 2
    assert_registry_sound(database, store)
    with ingesting(database, store) as ingest:
        again = ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0, refresh=True)))
    assert again.dataset_version == second.dataset_version


def test_what_this_registry_does_not_know_is_left_alone_and_counted(database, store, stream, s3):
    strange = [
        "readme.txt",
        f"cryo/99/{'0' * 8}-0000-4000-8000-{'0' * 12}/0_100/{'0' * 8}-0000-4000-8000-{'0' * 12}/_manifest.json",
        f"cryo/99/{stream.dataset_uuid}/500_600/{'0' * 8}-0000-4000-8000-{'0' * 12}/x-00000000-a1.parquet",
        f"cryo/99/{stream.dataset_uuid}/9_3/{'0' * 8}-0000-4000-8000-{'0' * 12}/x.parquet",
    ]
    for key in strange:
        store.put_if_absent(key, b"not ours")
    assert swept(database, store, grace=0).objects_not_ours == 4
    assert sorted(store.keys("")) == sorted(strange)


def test_objects_of_an_attempt_this_registry_never_gave_stay(database, store, stream, monkeypatch):
    """A second registry over the same bucket has the same datasets: sweep must keep its objects."""
    work = orphan(database, store, stream, monkeypatch)
    with database.connection() as connection:
        connection.execute("delete from trace.attempts")
        connection.execute("update trace.tasks set state = 'queued', lease_token = null, lease_expires_at = null")
    advance(database, 2 * HOUR)
    assert swept(database, store).objects_removed == 0
    assert work.lease.attempt == 1


def test_unfinished_uploads_are_aborted(database, store, stream):
    with ingesting(database, store) as ingest:
        work = ingest.claim(stream, FIRST, "slow", wait_seconds=0)
        key = CommitTarget.of_stream(stream, FIRST).parquet_key(work.lease, 0)
        for name in (key, "someone/elses"):
            store.upload(name).write(b"x" * (9 * 1024 * 1024))
        assert swept(database, store, grace=0).uploads_aborted == 0  # its attempt is still running
        advance(database, 2 * HOUR)
        assert swept(database, store, grace=0).uploads_aborted == 1
    assert [key for key, _ in store.stale_uploads(0)] == ["someone/elses"]


def test_rows_of_dead_attempts_go_and_numbers_never_go_back(database, store, stream, monkeypatch):
    orphan(database, store, stream, monkeypatch)
    advance(database, 100)
    with ingesting(database, store) as ingest:
        ingest.commit(ingest.start(ingest.claim(stream, FIRST, "run", wait_seconds=0)))
    advance(database, 4 * HOUR)
    swept(database, store)
    with database.connection() as connection:
        assert [row["attempt"] for row in connection.execute("select attempt from trace.attempts").fetchall()] == [2]
    with ingesting(database, store) as ingest:
        work = ingest.claim(stream, FIRST, "run", wait_seconds=0, refresh=True)
        assert work.lease.attempt == 3
        ingest.commit(ingest.start(work))
    assert_registry_sound(database, store)
