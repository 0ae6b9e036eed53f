"""Random commits, refreshes, invalidations, compactions, zombies and sweeps over real Postgres and S3.

The model has the rows of each committed range. After every step readers see exactly these, `assert_registry_sound`
holds, and a reader that was pinned less than the grace period ago can still read what it was pinned to.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.clock import advance
from tests.support.committed import FULL, commit_rows, made_up_rows
from tests.support.compaction import visible_rows, window_of, without
from tests.support.registry import apply, assert_registry_sound, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.compaction.plan import MOST_PER_COMMITTED_BYTE
from trace_dagster.errors import LeaseLost
from trace_dagster.maintenance.sweep import sweep
from trace_dagster.registry.catalog import EVERYTHING, Catalog, LakeFile
from trace_dagster.registry.connection import Database
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.layouts import Layouts, NewLayout, WindowLease
from trace_dagster.store.objects import ObjectStore

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

CHUNK = 10
RANGES = 5
GRACE = 3600
EXAMPLES = max(8, int(os.environ.get("TRACE_FAULTS_EXAMPLES", "8")) // 4)
NUMBERS = st.integers(0, RANGES - 1)
VARIANTS = st.sampled_from([1, 2, 3])


class Stopped(BaseException):
    """Ends a compaction before its swap, as a frozen process would."""


@dataclass
class Frozen:
    """A compaction that is ready to swap, and whose process is frozen."""

    lease: WindowLease
    layout: NewLayout


@dataclass
class Pinned:
    """A reader with its snapshot: the files and masks that it resolved, and the rows that it must see."""

    files: list[LakeFile]
    rows: list[dict]
    age: float = 0


class Lake(RuleBasedStateMachine):
    """One stream of a few ranges."""

    url = ""
    store: ObjectStore
    happened: ClassVar[Counter[str]] = Counter()
    """What happened in all examples: a machine in which nothing happens proves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.database = Database(self.url)
        with self.database.connection() as connection:
            tables = connection.execute(
                "select string_agg(format('trace.%I', tablename), ', ') as all from pg_tables"
                " where schemaname = 'trace' and tablename <> 'migrations'"
            ).fetchone()
            connection.execute(f"truncate {tables['all']} cascade")
        self.store.delete(list(self.store.keys("")))
        text = job_text(streams="logs: {cryo_dataset_name: logs}", chunk=CHUNK, to_block=CHUNK * RANGES)
        self.stream = apply(self.database, text)["logs"]
        self.rows: dict[int, pa.Table] = {}
        self.frozen: list[Frozen] = []
        self.pinned: list[Pinned] = []
        for number in range(RANGES):
            self.commit(number, 0)

    def made(self, number: int, variant: int) -> pa.Table:
        return made_up_rows(self.stream, span(number), address=bytes([variant]) * 20)

    @rule(number=NUMBERS, variant=VARIANTS)
    def commit(self, number, variant):
        """Commit a range, or refresh it with the same or other rows."""
        rows = self.made(number, variant)
        commit_rows(self.database, self.store, self.stream, span(number), FULL, rows)
        self.rows[number] = rows

    @rule(variant=VARIANTS)
    def commit_what_is_missing(self, variant):
        for number in set(range(RANGES)) - set(self.rows):
            self.commit(number, variant)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def invalidate(self, data):
        number = data.draw(st.sampled_from(sorted(self.rows)))
        with self.database.connection() as connection:
            row = connection.execute(
                "select dataset_version from trace.dataset_versions where visible and lower(block_range) = %s",
                (number * CHUNK,),
            ).fetchone()
        assert Forks(self.database).invalidate([row["dataset_version"]], "because") == 1
        del self.rows[number]

    @rule(start=st.sampled_from([0, 0, 0, 2]), size=st.sampled_from([RANGES, RANGES, 3, 2]), small=st.booleans())
    def compact(self, start, size, small):
        result = Compactor(self.database, self.store).compact(self.window(start, size, small), manual=True)
        self.happened[result.outcome.value] += 1

    @rule(start=st.sampled_from([0, 0, 2]), size=st.sampled_from([RANGES, 3]))
    def a_compaction_freezes_before_its_swap(self, start, size):
        swap, end = Layouts.swap, Layouts.end

        def freeze(_, lease, layout):
            self.frozen.append(Frozen(lease, layout))
            raise Stopped

        Layouts.swap, Layouts.end = freeze, lambda self, lease, **kw: "error" in kw or end(self, lease, **kw)
        try:
            Compactor(self.database, self.store).compact(self.window(start, size, False), manual=True)
        except Stopped:
            pass
        finally:
            Layouts.swap, Layouts.end = swap, end

    @precondition(lambda self: self.frozen)
    @rule(data=st.data())
    def a_frozen_compaction_goes_on(self, data):
        frozen = self.frozen.pop(data.draw(st.integers(0, len(self.frozen) - 1)))
        try:
            Layouts(self.database).swap(frozen.lease, frozen.layout)
            self.happened["swapped late"] += 1
        except LeaseLost:
            self.happened["fenced"] += 1

    @rule(seconds=st.sampled_from([1, 70, GRACE - 100, 2 * GRACE]))
    def time_passes(self, seconds):
        advance(self.database, seconds)
        for reader in self.pinned:
            reader.age += seconds
        self.pinned = [reader for reader in self.pinned if reader.age < GRACE]

    @rule()
    def sweep_old(self):
        swept = sweep(self.database, self.store, grace_seconds=GRACE, dry_run=False)
        self.happened["objects removed"] += swept.objects_removed

    @precondition(lambda self: len(self.pinned) < 3)
    @rule()
    def a_reader_is_pinned(self):
        files = Catalog(self.database).files(self.stream.dataset_uuid, EVERYTHING)
        self.pinned.append(Pinned(files, self.expected().to_pylist()))

    @invariant()
    def readers_see_the_model(self):
        seen = visible_rows(self.database, self.store, self.stream)
        assert ordered(seen.to_pylist()) == ordered(self.expected().to_pylist())
        assert_registry_sound(self.database, self.store)

    @invariant()
    def pinned_readers_end_right(self):
        for reader in self.pinned:
            found = []
            for file in reader.files:
                table = pq.read_table(pa.BufferReader(self.store.get(file.key)[0]))
                found += without(table, file.masked).to_pylist()
            assert ordered(found) == ordered(reader.rows)

    @invariant()
    def compactions_stay_in_their_budget(self):
        committed, compacted = Layouts(self.database).written_bytes(self.stream.dataset_uuid)
        assert compacted <= MOST_PER_COMMITTED_BYTE * committed

    def window(self, start, size, small):
        end = min(start + size, RANGES)
        return window_of(self.stream, start * CHUNK, end * CHUNK, 20_000 if small else 2**28)

    def expected(self) -> pa.Table:
        return pa.concat_tables([self.made(0, 0).slice(0, 0), *(self.rows[number] for number in sorted(self.rows))])

    def teardown(self):
        self.database.close()


def span(number: int) -> BlockRange:
    return BlockRange(number * CHUNK, number * CHUNK + CHUNK)


def ordered(rows: list[dict]) -> list[str]:
    return sorted(map(str, rows))


def test_whatever_happens_readers_see_each_row_once(postgres_url, store):
    Lake.url, Lake.store = postgres_url, store
    run_state_machine_as_test(
        Lake,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            derandomize="TRACE_FAULTS_EXAMPLES" not in os.environ,  # `make faults` draws new examples
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    print(dict(Lake.happened))
    for event in ("compacted", "nothing_to_gain", "not_whole", "swapped late", "fenced", "objects removed"):
        assert Lake.happened[event], f"{event} never happened"
