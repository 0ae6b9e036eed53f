"""The soak test, short enough for every test run: each kind of process is killed, and every row is there at the end."""

import pytest

from tests.faults.soak import Options, run_soak, summary

pytestmark = [pytest.mark.faults, pytest.mark.acceptance, pytest.mark.timeout(300)]


def test_nothing_is_lost_or_doubled_while_everything_is_killed():
    report = run_soak(Options(ranges=120, seed=3, minutes=4, strikes=9, chaos_until=0.8, every_seconds=(2.0, 5.0)))
    print(summary(report))
    assert report.ok, report.problems
    assert sum(report.kills.values()) >= 3
    assert sum(report.rpc_faults.values()) >= 3
