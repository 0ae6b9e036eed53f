"""Tests that need a thing this machine lacks: they are skipped, and the end of the run lists each thing one time.

    leave_out(EVM_NODE)

This module is a pytest plugin (tests/conftest.py loads it).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import pytest

_SKIPPED = "Skipped: "


@dataclass(frozen=True)
class Need:
    """A thing that some tests need, and how to get it. A test that lacks it fails if the variable ``required_by`` is
    set.
    """

    name: str
    remedy: str
    required_by: str | None = None


EVM_NODE = Need("a real EVM node", "install npm, then run `make node`", "TRACE_REQUIRE_NODE")
REAL_BLOCKS = Need("real mainnet blocks", "set TRACE_REAL_BLOCKS to a folder of recorded blocks")
REAL_CHAINS = Need("real blocks of other chains", "set TRACE_REAL_CHAINS to a folder of recorded blocks")
ETHEREUM_ETL = Need("ethereum-etl", "pip could not install it, see the reason")
BROWSER = Need("a browser", "install chromium", "TRACE_REQUIRE_BROWSER")
PGBOUNCER = Need("PgBouncer", "install it, on Debian with `apt-get install pgbouncer`")
NPM = Need("npm", "install it")
GIT = Need("git", "install it")


def leave_out(need: Need, reason: str = "") -> NoReturn:
    """Skip the running test, with ``reason`` if there is more to say. Fails it if the environment requires the need."""
    text = f"{need.name}: {need.remedy}{f' ({reason})' if reason else ''}"
    if need.required_by and os.environ.get(need.required_by):
        pytest.fail(f"{need.required_by} is set, and this machine lacks {text}", pytrace=False)
    pytest.skip(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write one line per reason of skipped tests, with their number."""
    reasons = Counter(_reasons(terminalreporter.stats.get("skipped", [])))
    if not reasons:
        return
    terminalreporter.section("tests left out on this machine", yellow=True)
    for reason, tests in reasons.most_common():
        terminalreporter.line(f"{tests:>5} {'test' if tests == 1 else 'tests'}: {reason}")


def _reasons(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> Iterable[str]:
    for report in reports:
        where = report.longrepr
        reason = str(where[2] if isinstance(where, tuple) else where)
        yield " ".join(reason.removeprefix(_SKIPPED).split())
