"""Run groups: which streams of a job share a Dagster run."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.planning.run_groups import active_run_groups, all_run_groups, sharing


def stream(job, key, chunk_size, *, enabled=True, job_enabled=True):
    return SimpleNamespace(
        job_name=job, dataset_key=key, chunk_size=chunk_size, enabled=enabled, job_enabled=job_enabled
    )


def test_the_most_common_chunk_size_is_the_main_grid_and_the_others_run_alone():
    streams = [stream("a", "logs", 100), stream("a", "blocks", 100), stream("a", "traces", 10), stream("b", "logs", 5)]
    found = [
        (group.name, group.partitions_name, [s.dataset_key for s in group.streams]) for group in all_run_groups(streams)
    ]
    assert found == [
        ("chain_sync__a", "a__100", ["blocks", "logs"]),
        ("chain_sync__a__traces", "a__10", ["traces"]),
        ("chain_sync__b", "b__5", ["logs"]),
    ]


def test_disabled_streams_and_paused_jobs_are_in_no_active_group():
    streams = [
        stream("a", "logs", 100, enabled=False),
        stream("a", "blocks", 100),
        stream("b", "logs", 5, job_enabled=False),
    ]
    assert [[s.dataset_key for s in group.streams] for group in active_run_groups(streams)] == [["blocks"]]
    assert len(list(all_run_groups(streams))) == 2


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 4), min_size=1))
def test_each_stream_is_in_one_group_and_the_order_of_the_streams_does_not_matter(sizes):
    groups = sharing(sizes)
    assert sorted(key for group in groups for key in group) == sorted(sizes)
    assert all(len({sizes[key] for key in group}) == 1 for group in groups)
    assert groups == sharing(dict(reversed(list(sizes.items()))))
    counts = [list(sizes.values()).count(size) for size in sizes.values()]
    assert len(groups[0]) == max(counts)
