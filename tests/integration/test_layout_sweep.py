"""Sweep of layouts: objects go when no reader can need them, and not before. A dry run reports the same."""

from __future__ import annotations

import pytest

from tests.integration.test_compaction import changed, commit, committed, rows
from tests.integration.test_sweep import swept
from tests.support.clock import advance
from tests.support.compaction import files_of, visible_rows, window_of
from tests.support.registry import apply, assert_registry_sound, job_text
from trace_dagster.compaction.compactor import CompactionOutcome, Compactor
from trace_dagster.errors import LeaseLost
from trace_dagster.registry.catalog import EVERYTHING, Catalog
from trace_dagster.registry.layouts import Layouts

pytestmark = pytest.mark.integration

STREAMS = "logs: {cryo_dataset_name: logs}"
HOUR = 3600.0


@pytest.fixture
def stream(database):
    return apply(database, job_text(streams=STREAMS, chunk=20))["logs"]


def keys(store, part):
    return sorted(key for key in store.keys("") if part in key)


def test_replaced_files_go_after_the_grace_period_and_versions_manifests_stay(database, store, stream):
    committed(database, store, stream, 4)
    manifests = keys(store, "_manifest.json")
    pinned = [file.key for file in Catalog(database).files(stream.dataset_uuid, EVERYTHING)]
    before = visible_rows(database, store, stream)
    Compactor(database, store).compact(window_of(stream, 0, 80))
    advance(database, HOUR - 60)
    assert swept(database, store).objects_removed == 0
    assert set(pinned) <= set(store.keys(""))
    advance(database, 120)
    found = swept(database, store)
    assert (found.replaced_links_dropped, found.objects_removed) == (4, 4)
    assert not set(pinned) & set(store.keys(""))
    assert set(manifests) <= set(store.keys(""))
    assert visible_rows(database, store, stream).equals(before)
    assert swept(database, store).objects_removed == 0
    assert_registry_sound(database, store)


def test_a_layout_goes_when_none_of_its_files_is_linked(database, store, stream):
    committed(database, store, stream, 4)
    compactor = Compactor(database, store)
    first = compactor.compact(window_of(stream, 0, 80))
    for number in range(3):
        commit(database, store, stream, number, changed(stream, number))
    assert compactor.compact(window_of(stream, 0, 80)).outcome is CompactionOutcome.COMPACTED
    advance(database, 2 * HOUR)
    assert len(keys(store, str(first.layout_id))) == 3
    swept(database, store)
    assert keys(store, str(first.layout_id)) == []
    assert len(keys(store, "/layout/")) == 3
    assert len(rows(database, "select * from trace.layouts")) == 2  # its bytes still count as written
    assert_registry_sound(database, store)


def test_a_file_with_one_version_left_stays(database, store, stream):
    committed(database, store, stream, 4)
    first = Compactor(database, store).compact(window_of(stream, 0, 80))
    for number in range(3):
        commit(database, store, stream, number, changed(stream, number))
    advance(database, 2 * HOUR)
    swept(database, store)
    assert len(keys(store, str(first.layout_id))) == 3
    assert_registry_sound(database, store)


def test_objects_of_a_dead_compaction_go_after_the_grace_period(database, store, stream, monkeypatch):
    committed(database, store, stream, 3)
    zombie = []

    class Died(BaseException):
        pass

    def dies(self, lease, layout):
        zombie.append((lease, layout))
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Layouts, "swap", dies)
        patched.setattr(Layouts, "end", lambda *_, **__: True)
        with pytest.raises(Died):
            Compactor(database, store).compact(window_of(stream, 0, 60))
    assert len(keys(store, "/layout/")) == 3
    advance(database, HOUR)
    assert swept(database, store).objects_removed == 0  # the lease lapsed less than an hour ago
    advance(database, 120)
    found = swept(database, store)
    assert (found.compactions_fenced, found.objects_removed) == (1, 3)
    with pytest.raises(LeaseLost):
        Layouts(database).swap(*zombie[0])
    assert len(files_of(database, stream)) == 3
    assert_registry_sound(database, store)


def test_layouts_that_this_registry_never_gave_stay_and_are_counted(database, store, stream):
    committed(database, store, stream, 3)
    Compactor(database, store).compact(window_of(stream, 0, 60))
    strange = [
        f"cryo/99/{stream.dataset_uuid}/layout/0_60/{'0' * 8}-0000-4000-8000-{'0' * 12}/_manifest.json",
        f"cryo/99/{stream.dataset_uuid}/layout/60_90/{'0' * 8}-0000-4000-8000-{'0' * 12}/x.parquet",
    ]
    for key in strange:
        store.put_if_absent(key, b"not ours")
    advance(database, 2 * HOUR)
    assert swept(database, store).objects_not_ours == 2
    assert set(strange) <= set(store.keys(""))


def test_unfinished_uploads_of_a_dead_compaction_are_aborted(database, store, stream):
    committed(database, store, stream, 3)
    layouts = Layouts(database)
    lease = layouts.claim(stream.dataset_uuid, window_of(stream, 0, 60).block_range)
    key = window_of(stream, 0, 60).folder(lease.layout_id) + "x.parquet"
    store.upload(key).write(b"x" * (9 * 1024 * 1024))
    assert swept(database, store, grace=0).uploads_aborted == 0  # it is still running
    advance(database, 2 * HOUR)
    assert swept(database, store, grace=0).uploads_aborted == 1


def test_an_invalidated_version_of_a_layout_is_retired(database, store, stream):
    committed(database, store, stream, 3)
    Compactor(database, store).compact(window_of(stream, 0, 60))
    with database.connection() as connection:
        connection.execute(
            "update trace.dataset_versions set visible = false, hidden_at = now() where lower(block_range) = 20"
        )
    advance(database, 2 * HOUR)
    assert swept(database, store).generations_retired == 1
    blocks = set(visible_rows(database, store, stream)["block_number"].to_pylist())
    assert blocks
    assert not blocks & set(range(20, 40))
    assert len(files_of(database, stream)) == 1
