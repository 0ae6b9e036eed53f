"""The limit of failed logins: by address, for a minute, with a bounded memory."""

from __future__ import annotations

import pytest

from trace_dagster.service import failed_logins
from trace_dagster.service.failed_logins import MOST_PER_MINUTE, FailedLogins


@pytest.fixture
def now(monkeypatch):
    moment = [600.0]
    monkeypatch.setattr(failed_logins.time, "monotonic", lambda: moment[0])
    return moment


def test_an_address_waits_after_many_failures_and_others_do_not(now):
    failed = FailedLogins()
    for _ in range(MOST_PER_MINUTE):
        assert failed.may_try("10.0.0.1")
        failed.note("10.0.0.1")
    assert not failed.may_try("10.0.0.1")
    assert failed.may_try("10.0.0.2")
    now[0] += 60
    assert failed.may_try("10.0.0.1")


def test_many_addresses_take_bounded_memory(now, monkeypatch):
    monkeypatch.setattr(failed_logins, "_MOST_ADDRESSES", 100)
    failed = FailedLogins()
    for number in range(1000):
        failed.may_try(str(number))
        failed.note(str(number))
    assert len(failed._failures) == 100
