"""Compaction moves rows into few files and changes nothing that a reader sees."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.clock import advance
from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.compaction import files_of, visible_rows, window_of
from tests.support.registry import apply, assert_registry_sound, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import CompactionOutcome, Compactor
from trace_dagster.compaction.due import DueWindows
from trace_dagster.compaction.lease import LeaseKeeper
from trace_dagster.errors import Corrupt, LeaseLost, OutcomeUnknown, Unavailable
from trace_dagster.layout_manifest import decode_layout
from trace_dagster.registry import publications
from trace_dagster.registry.catalog import EVERYTHING, Catalog
from trace_dagster.registry.connection import Session
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.layouts import Layouts, Unleased
from trace_dagster.store.objects import Upload

pytestmark = pytest.mark.integration

STREAMS = "logs: {cryo_dataset_name: logs}"


@pytest.fixture
def stream(database):
    return apply(database, job_text(streams=STREAMS, chunk=20))["logs"]


def committed(database, store, stream, count, first=0):
    for number in range(first, first + count):
        commit(database, store, stream, number)


def commit(database, store, stream, number, rows=None):
    span = BlockRange(number * 20, number * 20 + 20)
    return commit_rows(database, store, stream, span, FULL, rows)


def changed(stream, number, address=b"\x11" * 20):
    return made_up_rows(stream, BlockRange(number * 20, number * 20 + 20), address=address)


def test_a_window_becomes_one_file_with_the_same_rows(database, store, stream):
    committed(database, store, stream, 5)
    before = visible_rows(database, store, stream)
    result = Compactor(database, store).compact(window_of(stream, 0, 100))
    assert (result.outcome, result.versions, result.files_before, result.files_after) == (
        CompactionOutcome.COMPACTED,
        5,
        5,
        1,
    )
    assert result.rows == before.num_rows > 0
    assert visible_rows(database, store, stream).equals(before)
    assert len(files_of(database, stream)) == 1
    assert_registry_sound(database, store)


def test_the_layouts_manifest_names_the_versions(database, store, stream):
    committed(database, store, stream, 3)
    result = Compactor(database, store).compact(window_of(stream, 0, 60))
    manifest = decode_layout(store.get(result.manifest_key)[0])
    (file,) = manifest.files
    assert [(version.range_start, version.range_end) for version in file.versions] == [(0, 20), (20, 40), (40, 60)]
    assert file.key == files_of(database, stream)[0]
    assert result.manifest_key == (f"cryo/99/{stream.dataset_uuid}/layout/0_60/{result.layout_id}/_manifest.json")


def test_files_end_between_versions_near_the_target(database, store, stream):
    committed(database, store, stream, 10)
    before = visible_rows(database, store, stream)
    sizes = [row["bytes"] for row in rows(database, "select bytes from trace.files")]
    result = Compactor(database, store).compact(window_of(stream, 0, 200, target_bytes=3 * max(sizes)))
    assert 2 <= result.files_after <= 5
    assert visible_rows(database, store, stream).equals(before)
    assert_registry_sound(database, store)


def test_a_window_with_a_hole_is_left_alone(database, store, stream):
    committed(database, store, stream, 2)
    committed(database, store, stream, 2, first=3)
    result = Compactor(database, store).compact(window_of(stream, 0, 100))
    assert result.outcome is CompactionOutcome.NOT_WHOLE
    assert "[40, 60)" in result.reason
    commit(database, store, stream, 2)
    assert Compactor(database, store).compact(window_of(stream, 0, 100)).outcome is CompactionOutcome.COMPACTED


def test_a_range_that_reaches_over_the_border_keeps_its_file(database, store, stream):
    committed(database, store, stream, 5)
    before = visible_rows(database, store, stream)
    result = Compactor(database, store).compact(window_of(stream, 0, 70))
    assert result.versions == 3
    assert len(files_of(database, stream)) == 3
    (state,) = Layouts(database).states(stream.dataset_uuid, [BlockRange(0, 70)])
    assert (state.whole, state.versions, state.uncompacted) == (True, 3, 0)
    assert visible_rows(database, store, stream).equals(before)
    assert_registry_sound(database, store)


def test_a_compacted_window_is_not_compacted_again(database, store, stream):
    committed(database, store, stream, 5)
    compactor = Compactor(database, store)
    compactor.compact(window_of(stream, 0, 100))
    for window in (window_of(stream, 0, 100), window_of(stream, 0, 60)):
        assert compactor.compact(window).outcome is CompactionOutcome.NOTHING_TO_GAIN
    (state,) = Layouts(database).states(stream.dataset_uuid, [BlockRange(0, 100)])
    assert (state.whole, state.versions, state.uncompacted, state.files, state.due) == (True, 5, 0, 1, False)


def test_a_try_by_hand_that_gains_nothing_delays_no_later_one(database, store, stream):
    """Check that people who look at a window do not stop the sensor, which would wait an hour."""
    committed(database, store, stream, 5)
    compactor, window = Compactor(database, store), window_of(stream, 0, 100)
    compactor.compact(window)
    assert compactor.compact(window, manual=True).outcome is CompactionOutcome.NOTHING_TO_GAIN
    for number in range(5):
        commit(database, store, stream, number, changed(stream, number))
    assert compactor.compact(window).outcome is CompactionOutcome.COMPACTED
    assert_registry_sound(database, store)


def test_a_refreshed_range_is_masked_and_then_compacted_again(database, store, stream):
    committed(database, store, stream, 5)
    compactor = Compactor(database, store)
    compactor.compact(window_of(stream, 0, 100))
    for number in (1, 3):
        commit(database, store, stream, number, changed(stream, number))
    seen = visible_rows(database, store, stream)
    assert seen.filter(pa.compute.equal(seen["address"], b"\x11" * 20)).num_rows > 0
    (state,) = Layouts(database).states(stream.dataset_uuid, [BlockRange(0, 100)])
    assert (state.uncompacted, state.files, state.masked_blocks) == (2, 3, 40)
    assert compactor.compact(window_of(stream, 0, 100)).outcome is CompactionOutcome.COMPACTED
    after = visible_rows(database, store, stream)
    assert sorted(map(str, after.to_pylist())) == sorted(map(str, seen.to_pylist()))
    assert after["block_number"].to_pylist() == sorted(after["block_number"].to_pylist())
    assert len(files_of(database, stream)) == 1
    assert_registry_sound(database, store)


def test_versions_that_leave_a_file_are_masked_in_it(database, store, stream):
    """Check that a window that cuts a layout's file moves its part, and no reader sees a row twice."""
    committed(database, store, stream, 6)
    compactor = Compactor(database, store)
    compactor.compact(window_of(stream, 0, 120))
    for number in (0, 1):
        commit(database, store, stream, number, changed(stream, number))
    before = visible_rows(database, store, stream)
    assert compactor.compact(window_of(stream, 0, 60)).outcome is CompactionOutcome.COMPACTED
    after = visible_rows(database, store, stream)
    assert sorted(map(str, after.to_pylist())) == sorted(map(str, before.to_pylist()))
    assert len(files_of(database, stream)) == 2
    assert_registry_sound(database, store)


def test_ranges_without_rows_are_compacted_too(database, store, stream):
    empty = made_up_rows(stream, BlockRange(0, 20)).slice(0, 0)
    for number in range(3):
        commit(database, store, stream, number, empty)
    assert Compactor(database, store).compact(window_of(stream, 0, 60)).files_after == 1
    assert visible_rows(database, store, stream).num_rows == 0
    assert_registry_sound(database, store)


def test_a_version_replaced_while_it_is_compacted_keeps_its_files(database, store, stream, monkeypatch):
    committed(database, store, stream, 4)
    swap = Layouts.swap

    def after_a_refresh(self, lease, layout):
        commit(database, store, stream, 2, changed(stream, 2))
        return swap(self, lease, layout)

    monkeypatch.setattr(Layouts, "swap", after_a_refresh)
    result = Compactor(database, store).compact(window_of(stream, 0, 80))
    assert (result.outcome, result.versions) == (CompactionOutcome.COMPACTED, 3)
    seen = visible_rows(database, store, stream)
    assert seen.num_rows == len({(row["block_number"], row["log_index"]) for row in seen.to_pylist()})
    in_range = visible_rows(database, store, stream, BlockRange(40, 60))
    assert set(in_range["address"].to_pylist()) <= {b"\x11" * 20}
    assert_registry_sound(database, store)


def test_a_refresh_that_meets_a_swap_waits_and_is_masked(database, store, stream, monkeypatch):
    committed(database, store, stream, 4)
    locked, waited = threading.Event(), threading.Event()
    run = Session.run

    def slow(self, name, /, **values):
        if name == "mask_moved_versions":
            locked.set()
            waited.wait(20)
        return run(self, name, **values)

    monkeypatch.setattr(Session, "run", slow)
    with ThreadPoolExecutor() as threads:
        swapping = threads.submit(Compactor(database, store).compact, window_of(stream, 0, 80))
        assert locked.wait(20)
        refreshing = threads.submit(commit, database, store, stream, 2, changed(stream, 2))
        with pytest.raises(TimeoutError):
            refreshing.result(timeout=2)
        waited.set()
        assert swapping.result(20).versions == 4
        refreshing.result(20)
    (mask,) = [file.masked for file in Catalog(database).files(stream.dataset_uuid, EVERYTHING) if file.masked]
    assert mask == (BlockRange(40, 60),)
    assert_registry_sound(database, store)


def test_a_swap_that_meets_a_refresh_waits_and_leaves_it(database, store, stream, monkeypatch):
    committed(database, store, stream, 4)
    hidden, waited = threading.Event(), threading.Event()
    hide = publications._hide_replaced

    def slow(*args, **values):
        hide(*args, **values)
        hidden.set()
        waited.wait(20)

    monkeypatch.setattr(publications, "_hide_replaced", slow)
    with ThreadPoolExecutor() as threads:
        refreshing = threads.submit(commit, database, store, stream, 2, changed(stream, 2))
        assert hidden.wait(20)
        swapping = threads.submit(Compactor(database, store).compact, window_of(stream, 0, 80))
        with pytest.raises(TimeoutError):
            swapping.result(timeout=3)
        waited.set()
        refreshing.result(20)
        assert swapping.result(20).versions == 3
    assert_registry_sound(database, store)


def test_rows_that_differ_fail_the_window_and_touch_nothing(database, store, stream):
    committed(database, store, stream, 3)
    key = files_of(database, stream)[1]
    table = pq.read_table(pa.BufferReader(store.get(key)[0]))
    sink = pa.BufferOutputStream()
    pq.write_table(table.slice(1), sink)
    store.delete([key])
    store.put_if_absent(key, sink.getvalue().to_pybytes())
    before = files_of(database, stream)
    with pytest.raises(Corrupt, match="trace-lite verify") as raised:
        Compactor(database, store).compact(window_of(stream, 0, 60))
    assert str(raised.value.facts["range"]) == "[20, 40)"
    assert files_of(database, stream) == before
    assert not [key for key in store.keys("") if "/layout/" in key]
    (state,) = Layouts(database).states(stream.dataset_uuid, [BlockRange(0, 60)])
    assert (state.failures, state.due, state.held) == (1, False, False)
    assert "not those that were committed" in state.error
    assert Compactor(database, store).compact(window_of(stream, 0, 60)).outcome is CompactionOutcome.NOT_DUE


def test_a_missing_object_is_named(database, store, stream):
    committed(database, store, stream, 3)
    key = files_of(database, stream)[2]
    store.delete([key])
    with pytest.raises(Corrupt, match="is missing") as raised:
        Compactor(database, store).compact(window_of(stream, 0, 60))
    assert raised.value.facts["file"] == key


def test_one_of_two_compactors_works(database, store, stream):
    committed(database, store, stream, 4)
    layouts = Layouts(database)
    lease = layouts.claim(stream.dataset_uuid, BlockRange(0, 80))
    assert layouts.claim(stream.dataset_uuid, BlockRange(60, 140)) is Unleased.HELD
    assert Compactor(database, store).compact(window_of(stream, 0, 80)).outcome is CompactionOutcome.HELD
    layouts.end(lease)
    assert Compactor(database, store).compact(window_of(stream, 0, 80)).outcome is CompactionOutcome.COMPACTED


def test_a_window_whose_compactions_die_waits_longer_each_time(database, store, stream):
    committed(database, store, stream, 4)
    window = window_of(stream, 0, 80)
    layouts = Layouts(database)
    waits = []
    for _ in range(4):
        waits.append(0)
        while layouts.claim(stream.dataset_uuid, window.block_range) is Unleased.NOT_DUE:
            advance(database, 30)
            waits[-1] += 30
        advance(database, 61)  # nobody renews the lease
    assert waits == [0, 0, 60, 120]
    assert layouts.claim(stream.dataset_uuid, window.block_range) is Unleased.NOT_DUE
    (state,) = layouts.states(stream.dataset_uuid, [window.block_range])
    assert (state.failures, state.due, state.held) == (4, False, False)
    assert Compactor(database, store).compact(window, manual=True).outcome is CompactionOutcome.COMPACTED


@pytest.mark.parametrize("other", [(0, 80), (20, 80)])
def test_a_zombie_swaps_nothing(database, store, stream, monkeypatch, other):
    committed(database, store, stream, 4)
    swap = Layouts.swap

    def after_another_claim(self, lease, layout):
        monkeypatch.setattr(Layouts, "swap", swap)
        advance(database, 100)
        assert Compactor(database, store).compact(window_of(stream, *other)).outcome is CompactionOutcome.COMPACTED
        return swap(self, lease, layout)

    monkeypatch.setattr(Layouts, "swap", after_another_claim)
    before = visible_rows(database, store, stream)
    with pytest.raises(LeaseLost):
        Compactor(database, store).compact(window_of(stream, 0, 80))
    assert visible_rows(database, store, stream).equals(before)
    assert len(rows(database, "select * from trace.layouts")) == 1
    assert_registry_sound(database, store)


def test_what_a_killed_compaction_wrote_counts(database, stream):
    layouts = Layouts(database, lease_ttl_seconds=60)
    lease = layouts.claim(stream.dataset_uuid, BlockRange(0, 80))
    with LeaseKeeper(layouts, lease) as keeper:
        keeper.written_bytes = lambda: 12345
        deadline = time.monotonic() + 20
        while layouts.written_bytes(stream.dataset_uuid)[1] < 12345:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_lost_answer_is_looked_up(database, store, stream, monkeypatch):
    committed(database, store, stream, 4)
    before = visible_rows(database, store, stream)
    swap = Layouts.swap

    def without_an_answer(self, lease, layout):
        swap(self, lease, layout)
        raise OutcomeUnknown("lost")

    monkeypatch.setattr(Layouts, "swap", without_an_answer)
    assert Compactor(database, store).compact(window_of(stream, 0, 80)).versions == 4
    assert visible_rows(database, store, stream).equals(before)
    assert_registry_sound(database, store)


def test_a_swap_that_did_not_take_effect_is_tried_again_later(database, store, stream, monkeypatch):
    committed(database, store, stream, 4)

    def lost(self, lease, layout):
        raise OutcomeUnknown("lost")

    with monkeypatch.context() as patched:
        patched.setattr(Layouts, "swap", lost)
        with pytest.raises(OutcomeUnknown):
            Compactor(database, store).compact(window_of(stream, 0, 80))
    assert Compactor(database, store).compact(window_of(stream, 0, 80)).outcome is CompactionOutcome.NOT_DUE
    advance(database, 70)
    assert Compactor(database, store).compact(window_of(stream, 0, 80)).outcome is CompactionOutcome.COMPACTED
    assert_registry_sound(database, store)


def test_compactions_write_at_most_two_bytes_for_each_committed_byte(database, store, stream):
    committed(database, store, stream, 4)
    compactor = Compactor(database, store)
    for turn in range(8):
        for number in (0, 1):
            commit(database, store, stream, number, changed(stream, number, bytes([turn + 1]) * 20))
        compactor.compact(window_of(stream, 0, 80), manual=True)
        held, written = Layouts(database).written_bytes(stream.dataset_uuid)
        assert written <= 2 * held
    with database.connection() as connection:
        connection.execute("update trace.layout_attempts set written_bytes = 10 * written_bytes")
    commit(database, store, stream, 0)
    commit(database, store, stream, 1)
    assert compactor.compact(window_of(stream, 0, 80), manual=True).outcome is CompactionOutcome.OVER_BUDGET


def test_a_compaction_writes_no_more_than_it_reserved(database, store):
    """Else the budget is exceeded by it; the hash index is written as well."""
    streams = apply(database, job_text(streams="transactions: {cryo_dataset_name: transactions}", chunk=500))
    for number in range(2):
        span = BlockRange(number * 500, (number + 1) * 500)
        commit_rows(database, store, streams["transactions"], span, FULL)
    result = Compactor(database, store).compact(window_of(streams["transactions"], 0, 1000))
    (row,) = rows(database, "select planned_bytes, written_bytes from trace.layout_attempts")
    assert row["written_bytes"] > result.bytes_after
    assert row["written_bytes"] <= row["planned_bytes"]


def test_a_lake_that_is_refreshed_again_and_again_is_written_three_times_at_most(database, store, monkeypatch):
    """Count what the object store took: for commits, and for compactions of each window as soon as it is due."""
    streams = "logs: {cryo_dataset_name: logs, compact: {after_files: 5}}"
    stream = apply(database, job_text(streams=streams, chunk=20, to_block=200))["logs"]
    finish, written = Upload.finish, {"layout": 0, "version": 0}

    def counted(upload):
        digest = finish(upload)
        written["layout" if "/layout/" in upload._key else "version"] += upload.bytes_written
        return digest

    monkeypatch.setattr(Upload, "finish", counted)
    chance, compactor, outcomes = Random(7), Compactor(database, store), set()
    (row,) = Jobs(database).streams()
    for number in [*range(10), *(chance.randrange(10) for _ in range(30))]:
        commit(database, store, stream, number, changed(stream, number, chance.randbytes(20)))
        for state in DueWindows(database).due(row, limit=9):
            window = window_of(stream, state.block_range.start, state.block_range.end)
            outcomes.add(compactor.compact(window).outcome)
        advance(database, 3700)
    assert outcomes == {CompactionOutcome.COMPACTED, CompactionOutcome.OVER_BUDGET}
    assert written["layout"] <= 2 * written["version"]
    assert_registry_sound(database, store)


def test_a_change_is_recorded(database, store, stream):
    committed(database, store, stream, 3)
    result = Compactor(database, store).compact(window_of(stream, 0, 60))
    (change,) = rows(database, "select * from trace.changes where kind = 'compacted'")
    assert change["layout_id"] == result.layout_id
    assert (change["block_range"].lower, change["block_range"].upper) == (0, 60)


def test_a_store_that_fails_leaves_nothing_half_done(database, store, stream, monkeypatch):
    committed(database, store, stream, 3)

    def fails(self, key, data):
        raise Unavailable("down")

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "put_if_absent", fails)
        with pytest.raises(Unavailable):
            Compactor(database, store).compact(window_of(stream, 0, 60))
    assert not [key for key in store.keys("") if "/layout/" in key]
    assert len(files_of(database, stream)) == 3


def rows(database, statement):
    with database.connection() as connection:
        return connection.execute(statement).fetchall()
