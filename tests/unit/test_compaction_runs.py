"""Compaction groups and runs: which streams share one, and which windows it carries."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import UUID

import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.config.compact import Compact
from trace_dagster.planning.compactions import (
    WINDOWS_PER_RUN,
    CompactionGroup,
    compaction_groups,
    is_compaction,
    next_run,
)
from trace_dagster.planning.run_groups import is_grid


def stream(job, key, chunk_size=10, *, files=10, enabled=True):
    return SimpleNamespace(
        job_name=job,
        dataset_key=key,
        dataset_uuid=UUID(int=sum(map(ord, key))),
        chunk_size=chunk_size,
        enabled=enabled,
        compact=Compact(after_files=files) if files else None,
    )


def test_streams_with_windows_of_one_size_share_runs():
    streams = [
        stream("a", "logs"),
        stream("a", "blocks", 20, files=5),
        stream("a", "traces", 10, files=3),
        stream("a", "off", files=0),
        stream("a", "gone", enabled=False),
        stream("b", "logs", 50),
    ]
    found = [
        (group.name, group.partitions_name, [s.dataset_key for s in group.streams])
        for group in compaction_groups(streams)
    ]
    assert found == [
        ("compact__a", "a__100__windows", ["blocks", "logs"]),
        ("compact__a__traces", "a__30__windows", ["traces"]),
        ("compact__b", "b__500__windows", ["logs"]),
    ]
    assert all(is_compaction(name) and is_grid(partitions) for name, partitions, _ in found)
    assert not is_compaction("chain_sync__compact")


LOGS, BLOCKS = stream("a", "logs"), stream("a", "blocks")
GROUP = CompactionGroup("compact__a", "a__100__windows", (BLOCKS, LOGS))


def windows(*numbers: int) -> list[BlockRange]:
    return [BlockRange(100 * n, 100 * n + 100) for n in numbers]


POSITIONS = {window.key: number - 40 for number, window in enumerate(windows(*range(40)))}


@pytest.mark.parametrize(
    ("blocks", "logs", "carried", "keys"),
    [
        ([0, 1, 2], [0, 1, 2], [0, 1, 2], ("blocks", "logs")),
        ([0, 1, 2], [0, 1], [0, 1], ("blocks", "logs")),
        ([2], [1, 2], [1], ("logs",)),
        ([0, 2], [], [0], ("blocks",)),
        ([], [7, 8], [7, 8], ("logs",)),
        (range(40), [], range(WINDOWS_PER_RUN), ("blocks",)),
    ],
)
def test_a_run_carries_neighbouring_windows_that_are_due_for_the_same_streams(blocks, logs, carried, keys):
    due = {BLOCKS.dataset_uuid: windows(*blocks), LOGS.dataset_uuid: windows(*logs)}
    run = next_run(GROUP, due, POSITIONS)
    assert run is not None
    assert (list(run.windows), run.dataset_keys) == (windows(*carried), keys)


def test_windows_between_which_dagster_has_another_key_are_two_runs():
    due = {LOGS.dataset_uuid: windows(0, 1)}
    positions = {window.key: 5 * number for number, window in enumerate(windows(0, 1))}
    run = next_run(GROUP, due, positions)
    assert run is not None
    assert list(run.windows) == windows(0)


def test_no_window_is_no_run():
    assert next_run(GROUP, {}, {}) is None
    assert next_run(GROUP, {LOGS.dataset_uuid: []}, {}) is None
