"""Following changes by HTTP: no change is lost or repeated when a connection is, and errors that stay are raised."""

from __future__ import annotations

from itertools import islice
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.scripted_service import refusal, reply, scripted_service
from trace_dagster.client.changes import ChangeFeed, LakeChange
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import CursorGone, NoAccess, Unavailable


def change(number):
    return {
        "cursor": f"{number}-0-ab",
        "kind": "hot",
        "chain_id": 1,
        "dataset_key": "blocks",
        "dataset_uuid": "u",
        "range_start": number,
        "range_end": number + 1,
        "generation": None,
        "dataset_version": None,
        "layout_id": None,
        "block_hash": None,
        "reason": None,
        "changed_at": "2024-05-01T12:00:00.000000+00:00",
        "a_later_member": 1,
    }


def page(numbers, cursor):
    return reply(200, {"changes": [change(number) for number in numbers], "cursor": cursor})


def feed(server, *, follow, after="0", pauses=None):
    pauses = [] if pauses is None else pauses
    return ChangeFeed(ServiceHttp(server.url, None, timeout_seconds=5), after, follow=follow, sleep=pauses.append)


def afters(server):
    return [parse_qs(urlsplit(each.path).query)["after"][0] for each in server.asked]


def numbers(changes):
    return [each.range_start for each in changes]


def test_all_pages_are_read_and_the_end_is_the_end():
    answers = {"0": page([1, 2], "2-0-ab"), "2-0-ab": page([3], "3-0-ab"), "3-0-ab": page([], "3-0-ab")}
    with scripted_service(lambda asked: answers[parse_qs(urlsplit(asked.path).query)["after"][0]]) as server:
        found = feed(server, follow=False)
        assert numbers(found) == [1, 2, 3]
        assert found.cursor == "3-0-ab"
        assert all("wait=0" in each.path for each in server.asked)


def test_a_follower_goes_on_where_it_was_when_the_service_is_back():
    answers = [
        page([1, 2], "2-0-ab"),
        b"",
        b"",
        refusal(503, "away", "away"),
        refusal(429, "x", "x"),
        page([3], "3-0-ab"),
    ]
    pauses: list[float] = []
    with scripted_service(lambda _: answers.pop(0)) as server:
        assert numbers(islice(feed(server, follow=True, pauses=pauses), 3)) == [1, 2, 3]
        assert set(afters(server)[1:]) == {"2-0-ab"}
    assert pauses == [0.5, 1.0, 2.0]


def test_a_follower_goes_on_after_an_answer_that_was_cut_anywhere():
    whole = page([1], "1-0-ab")
    answers = [whole[:cut] for cut in range(len(whole))]
    with scripted_service(lambda _: answers.pop(0) if answers else whole) as server:
        pauses: list[float] = []
        assert numbers(islice(feed(server, follow=True, pauses=pauses), 1)) == [1]
        assert answers == []
        assert pauses


def test_the_cursor_moves_over_changes_that_the_token_may_not_see():
    answers = [page([], "5-0-ab"), page([6], "6-0-ab")]
    with scripted_service(lambda _: answers.pop(0)) as server:
        found = feed(server, follow=True)
        assert numbers(islice(found, 1)) == [6]
        assert afters(server) == ["0", "5-0-ab"]


def test_the_cursor_is_that_of_the_last_change_that_was_taken():
    with scripted_service(lambda _: page([1, 2, 3], "3-0-ab")) as server:
        found = feed(server, follow=True)
        iterator = iter(found)
        next(iterator)
        assert found.cursor == "1-0-ab"


@pytest.mark.parametrize(("status", "kind"), [(410, CursorGone), (401, NoAccess)])
def test_an_error_that_stays_ends_a_follower(status, kind):
    with scripted_service(lambda _: refusal(status, "x", "take a new cursor")) as server:
        with pytest.raises(kind):
            next(iter(feed(server, follow=True)))
        assert len(server.asked) == 1


def test_without_follow_a_service_that_is_away_is_an_error():
    with scripted_service(lambda _: refusal(503, "away", "away")) as server, pytest.raises(Unavailable):
        list(feed(server, follow=False))


def test_a_change_keeps_its_time():
    assert LakeChange.from_json(change(1)).changed_at.isoformat() == "2024-05-01T12:00:00+00:00"
