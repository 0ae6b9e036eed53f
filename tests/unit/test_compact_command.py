"""What `trace-lite compact` and `status` print about files, and the exit codes."""

from __future__ import annotations

import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.cli.compaction import CompactedWindow, exit_code
from trace_dagster.cli.render import compacted_lines, files_table
from trace_dagster.compaction.status import StreamFiles

SPAN = BlockRange(0, 1000)
DONE = CompactedWindow("job", "logs", SPAN, "compacted", "10 ranges", 10, 1, 3 << 20, 2 << 20, 12_345, 0.84)


def window(outcome: str, reason: str = "why") -> CompactedWindow:
    return CompactedWindow("job", "logs", SPAN, outcome, reason)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        (["compacted", "nothing_to_gain"], 0),
        (["compacted", "held"], 3),
        (["over_budget"], 3),
        (["not_due"], 3),
        (["held", "failed"], 1),
    ],
)
def test_exit_codes(outcomes, code):
    assert exit_code([window(outcome) for outcome in outcomes]) == code


def test_each_window_is_a_line_and_several_have_a_sum():
    failed = window("failed", "a committed file is missing")
    assert list(compacted_lines([DONE, DONE, failed])) == [
        "job: logs [0, 1000): 10 files of 3.0 MiB became 1 of 2.0 MiB: 12,345 rows in 0.8 s",
        "job: logs [0, 1000): 10 files of 3.0 MiB became 1 of 2.0 MiB: 12,345 rows in 0.8 s",
        "job: logs [0, 1000): failed: a committed file is missing",
        "2 windows: 20 files became 2",
    ]
    due = CompactedWindow("job", "logs", SPAN, "due", "would be compacted", 10, 1, 3 << 20)
    assert list(compacted_lines([due])) == ["job: logs [0, 1000): due: 10 files of 3.0 MiB would become about 1"]
    (nothing,) = compacted_lines([])
    assert nothing == "no window is due: all are compacted, off, or not wholly committed (see `trace-lite status`)"
    assert DONE.to_json()["range_end"] == 1000


def test_the_status_shows_files_and_why_a_window_failed(capsys):
    files_table(
        [
            StreamFiles("job", "logs", 40, 10, 30 << 20, 3, 1, 1, "window [0, 1000): no answer", "when due"),
            StreamFiles("job", "empty", 0, 0, None, 0, 0, 0, None, "off"),
        ]
    )
    title, heading, row, reason = capsys.readouterr().out.splitlines()
    assert title == "files"
    assert heading.split()[:4] == ["job", "stream", "files", "uncompacted"]
    assert row.split() == ["job", "logs", "40", "10", "30.0", "MiB", "3", "1", "1", "when", "due"]
    assert reason == "logs: not compacted: window [0, 1000): no answer"
    files_table([])
    assert capsys.readouterr().out == ""
