"""Finds out which failed call a panic report of Cryo belongs to. All calls of a worker print to one stderr.

Cryo raises an error without a text, and prints the cause to stderr without the name of a call. Only the order is
certain: the worker marks the beginning and the end of each call on the same pipe, and a call that fails has printed its
report between its marks. A report is used for a call if no other report can be that call's. If several can, none is
used: a report that may be another call's must not decide what happens to this one.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

from trace_dagster.engine.worker import MARK
from trace_dagster.messages.redaction import redact

MOST_LINE_BYTES = 65_536
"""Bytes kept of one line that Cryo printed; much more than an error shows."""

_HEADLINE = re.compile(rb"thread '.*' (\(\d+\) )?panicked at ")
_MARK = re.compile(re.escape(MARK) + rb"(begun|done|failed) (\d+)$")


@dataclass(slots=True, eq=False)
class _Report:
    """The message of one panic, redacted."""

    text: str


@dataclass(slots=True, eq=False)
class _Call:
    """A call from its first mark until its report was asked for."""

    reports: list[_Report] = field(default_factory=list)
    """Reports that were printed during the call and are not known to be another call's."""
    has_failed: bool = False


class CallOutput:
    """What a worker printed, by call. One thread feeds it, any thread asks it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: dict[int, _Call] = {}
        self._cut_line = b""
        """The beginning of a line into which a mark was written."""
        self._printing: list[_Call] | None = None
        """The calls that ran when the headline of a report was read; None between reports."""

    def feed(self, line: bytes) -> None:
        """Read the next line of stderr."""
        line = line.removesuffix(b"\n")
        mark = _MARK.search(line)
        text = line[: mark.start()] if mark else line
        with self._changed:
            whole = self._cut_line + text[:MOST_LINE_BYTES]
            if mark is None:
                self._cut_line = b""
                self._note_line(whole.strip())
            else:
                self._cut_line = whole
                self._note_mark(mark[1], int(mark[2]))

    def report_of(self, identity: int, timeout: float) -> str:
        """Return the report of a call that failed, or an empty text if none is certain to be its own.

        Wait up to ``timeout`` seconds until the end of the call was read. A call is forgotten when it was asked for.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_failed(identity), timeout)
            call = self._calls.pop(identity, None)
            if call is None or not call.has_failed or len({report.text for report in call.reports}) != 1:
                return ""
            if len(call.reports) == 1:
                self._claim(call.reports[0])
            return call.reports[0].text

    def _claim(self, report: _Report) -> None:
        """Record that a report is a certain call's, so that it is no other's."""
        for call in self._calls.values():
            call.reports = [each for each in call.reports if each is not report]

    def _has_failed(self, identity: int) -> bool:
        call = self._calls.get(identity)
        return call is not None and call.has_failed

    def _note_mark(self, mark: bytes, identity: int) -> None:
        if mark == b"begun":
            self._calls[identity] = _Call()
        elif mark == b"done":
            self._calls.pop(identity, None)
        elif identity in self._calls:
            self._calls[identity].has_failed = True
            self._changed.notify_all()

    def _note_line(self, line: bytes) -> None:
        if _HEADLINE.match(line):
            self._printing = [call for call in self._calls.values() if not call.has_failed]
        elif line and self._printing is not None:
            report = _Report(redact(line.decode(errors="replace")))
            for call in self._printing:
                if not call.has_failed:
                    call.reports.append(report)
            self._printing = None
