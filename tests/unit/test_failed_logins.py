"""The limit of failed logins: by address, for a minute, with a bounded memory."""

from __future__ import annotations

import pytest

from trace_dagster.service import failed_logins
from trace_dagster.service.failed_logins import MOST_PER_MINUTE, FailedLogins


@pytest.fixture
def now():
    return [600.0]


@pytest.fixture
def failed(now):
    return FailedLogins(lambda: now[0])


def test_after_many_failures_an_address_has_one_try_a_second_and_others_are_free(now, failed):
    for _ in range(MOST_PER_MINUTE):
        assert failed.may_try("10.0.0.1")
        failed.note("10.0.0.1")
    for _ in range(3):
        assert [failed.may_try("10.0.0.1") for _ in range(100)] == [True] + [False] * 99
        failed.note("10.0.0.1")
        now[0] += 1
    assert all(failed.may_try("10.0.0.2") for _ in range(100))
    now[0] += 60
    assert all(failed.may_try("10.0.0.1") for _ in range(100))


def test_many_addresses_take_bounded_memory(failed, monkeypatch):
    monkeypatch.setattr(failed_logins, "_MOST_ADDRESSES", 100)
    for number in range(1000):
        for _ in range(MOST_PER_MINUTE + 1):
            failed.may_try(str(number))
            failed.note(str(number))
        failed.may_try(str(number))
    assert len(failed._failures) == 100
    assert len(failed._last_second) == 100
