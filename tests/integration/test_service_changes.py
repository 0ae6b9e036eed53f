"""Changes by HTTP: pages, long polls and events have every change that a token may see once, in the log's order."""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.conftest import cloned_database, fresh_bucket
from tests.support.events import EventClient
from tests.support.registry import apply
from tests.support.service import running_service
from trace_dagster.blocks import BlockRange
from trace_dagster.registry.changes import ChangeLog, record_change
from trace_dagster.registry.connection import Database, Session
from trace_dagster.registry.retention import Retention
from trace_dagster.registry.tokens import Tokens
from trace_dagster.service import change_feed, change_stream, sending

pytestmark = pytest.mark.integration

JOB = """
kind: chain_sync
name: job_{chain_id}
chain_id: {chain_id}
mode: {{kind: fixed_target, from_block: 0, to_block: 1000000}}
defaults: {{rpc_pool: none}}
streams: {{blocks: {{cryo_dataset_name: blocks}}}}
"""
SHOWN, HIDDEN = 99, 98


class Lake:
    """A service over two chains, and what writes changes of them."""

    def __init__(self, database, service):
        self.database, self.service = database, service
        self.streams = {chain: apply(database, JOB.format(chain_id=chain))["blocks"] for chain in (SHOWN, HIDDEN)}
        self.limited = service.new_token("limited", f"chain_{SHOWN}.*")

    def record(self, *blocks, chain=SHOWN, session=None):
        """Record a change for each block, in a transaction of their own unless there is a session."""
        if session is None:
            with self.database.transaction() as session:
                self.record(*blocks, chain=chain, session=session)
            return
        for block in blocks:
            record_change(session, "committed", self.streams[chain].dataset_uuid, BlockRange(block, block + 1))

    def page(self, after="0", **more):
        token = more.pop("token", "")
        query = "&".join(f"{name}={value}" for name, value in {"after": after, **more}.items())
        return self.service.ask(f"/v1/changes?{query}", token=token)

    def now(self):
        return ChangeLog(self.database).now()


@pytest.fixture(scope="module")
def lake(postgres, template_database, s3_server):
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        database = Database(url)
        with running_service(url, access) as service:
            yield Lake(database, service)
        database.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Let an idle second be a long time."""
    monkeypatch.setattr(change_stream, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(change_feed, "_POLL_SECONDS", 0.05)


def numbers(changes):
    return [each["range_start"] for each in changes]


def all_pages(lake, cursor, **more):
    found = []
    while True:
        document = lake.page(cursor, **more).json()
        found += document["changes"]
        cursor = document["cursor"]
        if document["caught_up"]:
            return found, cursor


def test_pages_have_every_change_once_and_end_with_a_cursor(lake):
    start = lake.now()
    lake.record(1, 2)
    lake.record(3, 4, 5)
    document = lake.page(start, limit=2).json()
    assert numbers(document["changes"]) == [1, 2]
    assert not document["caught_up"]
    assert document["cursor"] == document["changes"][-1]["cursor"]
    expected, _ = ChangeLog(lake.database).after(start)
    found, cursor = all_pages(lake, start, limit=2)
    assert found == [each.to_json() for each in expected]
    assert lake.page(cursor).json() == {"changes": [], "cursor": cursor, "caught_up": True}
    assert lake.page("now").json()["cursor"] == cursor


def test_what_a_token_may_not_see_is_left_out_and_passed_by(lake, monkeypatch):
    monkeypatch.setattr(change_stream, "_LEAST_PAGE", 2)
    start = lake.now()
    lake.record(*range(10), chain=HIDDEN)
    lake.record(10)
    lake.record(*range(11, 14), chain=HIDDEN)
    found, cursor = all_pages(lake, start, token=lake.limited, limit=1)
    assert numbers(found) == [10]
    assert {each["chain_id"] for each in found} == {SHOWN}
    assert cursor == lake.now()


def test_a_search_through_much_that_is_hidden_ends_and_can_go_on(lake, monkeypatch):
    monkeypatch.setattr(change_stream, "_LEAST_PAGE", 2)
    monkeypatch.setattr(change_stream, "_SEARCH_SECONDS", 0)
    start = lake.now()
    lake.record(*range(4), chain=HIDDEN)
    lake.record(4)
    first = lake.page(start, token=lake.limited, limit=1).json()
    assert (first["changes"], first["caught_up"]) == ([], False)
    assert first["cursor"] != start
    found, _ = all_pages(lake, first["cursor"], token=lake.limited, limit=1)
    assert numbers(found) == [4]


def test_a_long_poll_waits_for_the_first_change(lake):
    start = lake.now()
    began = time.monotonic()
    document = lake.page(start, wait=0.5).json()
    assert (document["changes"], document["caught_up"]) == ([], True)
    assert time.monotonic() - began >= 0.5
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lake.page, start, wait=30, token=lake.limited)
        time.sleep(0.3)
        lake.record(6, chain=HIDDEN)
        time.sleep(0.3)
        assert not waiting.done()
        lake.record(7)
        assert numbers(waiting.result(10).json()["changes"]) == [7]


def test_events_have_ids_kinds_and_data_and_resume_after_the_last_one(lake):
    start = lake.now()
    lake.record(1, 2)
    with EventClient(lake.service, f"after={start}") as client:
        assert client.status == 200
        assert client.headers["content-type"].startswith("text/event-stream")
        first = client.changes(2)
        lake.record(3)
        (third,) = client.changes(1)
    assert [each.data["range_start"] for each in [*first, third]] == [1, 2, 3]
    assert {each.kind for each in first} == {"committed"}
    assert all(each.id == each.data["cursor"] for each in first)
    with EventClient(lake.service, "after=0", last_event_id=first[0].id) as client:
        assert [each.data["range_start"] for each in client.changes(2)] == [2, 3]


def test_an_id_never_stands_before_the_changes_that_it_passes(lake):
    """A client that leaves at any moment resumes after the last id that it has."""
    start = lake.now()
    lake.record(1, 2)
    lake.record(3, chain=HIDDEN)
    with EventClient(lake.service, f"after={start}", token=lake.limited) as client:
        events = client.events()
        ids = [next(events).id for _ in range(3)]
    (first, second), _ = all_pages(lake, start, token=lake.limited)
    assert ids == [start, first["cursor"], second["cursor"]]


def test_an_idle_stream_sends_heartbeats_whose_ids_pass_hidden_changes(lake):
    with EventClient(lake.service, "after=now", token=lake.limited) as client:
        beats = client.events()
        begun = next(beats)
        assert (begun.comment, begun.data) == ("heartbeat", None)
        lake.record(1, chain=HIDDEN)
        assert any(beat.id == lake.now() for beat in client.events(5))
    with EventClient(lake.service, last_event_id=lake.now(), token=lake.limited) as client:
        lake.record(2)
        assert client.changes(1)[0].data["range_start"] == 2


def test_an_open_transaction_holds_changes_back_and_none_is_lost(lake):
    with EventClient(lake.service, "after=now") as client:
        with lake.database.connection() as early:
            lake.record(1, session=Session(early))
            lake.record(2)
            with pytest.raises(AssertionError, match="0 of 1"):
                client.changes(1, 1)
        assert [each.data["range_start"] for each in client.changes(2)] == [1, 2]


def test_one_reader_asks_the_log_for_all_listeners(lake, monkeypatch):
    """Listeners that have caught up cost the registry nothing, and get each change from the one who reads."""
    asked = []
    after = ChangeLog.after
    monkeypatch.setattr(ChangeLog, "after", lambda log, *given: asked.append(1) or after(log, *given))
    clients = [EventClient(lake.service, "after=now", token=lake.limited) for _ in range(20)]
    try:
        time.sleep(1)
        asked.clear()
        lake.record(1)
        begun = time.monotonic()
        found = [client.changes(1)[0].data["range_start"] for client in clients]
        polls = (time.monotonic() - begun) / 0.05
        assert found == [1] * 20
        assert len(asked) <= polls + 2
        lake.record(2)
        assert {client.changes(1)[0].data["range_start"] for client in clients} == {2}
    finally:
        for client in clients:
            client.socket.close()
    wait_for_listeners(lake, 0)
    asked.clear()
    time.sleep(0.3)
    assert asked == []


def wait_for_listeners(lake, count):
    end = time.monotonic() + 60  # another worker's tests may have the machine
    while (found := listeners(lake)) != count:
        assert time.monotonic() < end, f"{found} listeners are left"
        time.sleep(0.02)


def listeners(lake):
    lines = lake.service.ask("/metrics").body.decode().splitlines()
    (found,) = [line for line in lines if line.startswith("trace_query_listeners ")]
    return float(found.split()[1])


def test_listeners_that_join_late_read_ahead_or_fall_behind_miss_nothing(lake, monkeypatch):
    """The feed keeps few changes here, so listeners meet it at every place: before, among and after what it keeps."""
    monkeypatch.setattr(change_feed, "_KEPT", 8)
    monkeypatch.setattr(change_feed, "PAGE", 3)
    start, results, stop = lake.now(), {}, threading.Event()

    def write():
        for number in range(300):
            lake.record(number, chain=SHOWN if number % 3 else HIDDEN)
            time.sleep(0.002)
        stop.set()

    def listen(name):
        cursor, seen = start, []
        while True:
            ended = stop.is_set()
            wait = 0 if ended else 0.2 * (name % 2)  # without waiting, the log itself says what there is
            document = lake.page(cursor, token=lake.limited, limit=2 + name, wait=wait).json()
            seen += numbers(document["changes"])
            cursor = document["cursor"]
            if ended and document["caught_up"]:
                results[name] = seen
                return

    threads = [threading.Thread(target=write), *(threading.Thread(target=listen, args=(n,)) for n in range(4))]
    with EventClient(lake.service, f"after={start}", token=lake.limited) as client:
        for thread in threads:
            thread.start()
        expected = [number for number in range(300) if number % 3]
        assert [each.data["range_start"] for each in client.changes(200, 60)] == expected
        for thread in threads:
            thread.join(60)
    assert results == dict.fromkeys(range(4), expected)


def test_cursors_that_are_none_and_cursors_that_are_gone(lake):
    assert lake.page("nonsense").status == 400
    assert lake.page("1-1-abc").status == 410
    for query in ("after=nonsense", "after=1-1-abc"):
        with EventClient(lake.service, query) as client:
            assert client.status == {"after=nonsense": 400, "after=1-1-abc": 410}[query]
            assert client.json()["error"]["message"]
    assert "after=now" in lake.page("1-1-abc").error["message"]
    for wrong in ({"limit": 0}, {"limit": 1001}, {"wait": 61}, {"wait": "nan"}, {"after": "x" * 101}):
        assert lake.page(**wrong).status == 422
    assert lake.page(token=None).status == 401


def test_a_cursor_that_grows_too_old_ends_the_stream_and_is_then_refused(lake):
    lake.record(1)
    cursor = lake.now()
    lake.record(2)
    with lake.database.connection() as connection:
        connection.execute("update trace.changes set changed_at = now() - interval '40 days'")
    Retention(lake.database).prune_changes(30, dry_run=False)
    assert lake.page(cursor).status == 410
    assert lake.page("0").json()["changes"] == []
    lake.record(3)
    assert numbers(lake.page("0").json()["changes"]) == [3]


def test_a_revoked_token_ends_the_stream_whole(lake):
    token = lake.service.new_token("short", f"chain_{SHOWN}.*")
    with EventClient(lake.service, "after=now", token=token) as client:
        next(client.events())
        Tokens(lake.database).revoke("short")
        begun = time.monotonic()
        *_, last = client.events(10)
        assert client.is_whole
        assert time.monotonic() - begun < 5
        assert last.comment.startswith("the stream ends")
    assert lake.page("now", token=token).status == 401


def test_a_revoked_token_gets_nothing_of_a_long_poll(lake):
    token, start = lake.service.new_token("brief", f"chain_{SHOWN}.*"), lake.now()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lake.page, start, wait=30, token=token)
        time.sleep(0.5)
        Tokens(lake.database).revoke("brief")
        lake.record(1)
        assert waiting.result(10).status == 401


def test_there_are_places_for_so_many_listeners(lake, monkeypatch):
    monkeypatch.setattr(change_feed, "MOST_LISTENERS_OF_TOKEN", 2)
    monkeypatch.setattr(change_feed, "MOST_LISTENERS", 3)
    wait_for_listeners(lake, 0)
    with EventClient(lake.service, "after=now") as one, EventClient(lake.service, "after=now") as two:
        next(one.events()), next(two.events())
        refused = lake.page("now", wait=1)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert "with this token" in refused.error["message"]
        with EventClient(lake.service, "after=now", token=lake.limited) as three:
            next(three.events())
            assert "at this service" in lake.page("now", token=lake.limited, wait=1).error["message"]
    wait_for_listeners(lake, 0)
    assert lake.page("now").status == 200


@contextmanager
def unread_listener(lake):
    """Yield a listener that does not read, with more changes than the sockets and the server's buffer hold. It is
    forgotten at the end of the block.
    """
    wait_for_listeners(lake, 0)
    with EventClient(lake.service, "after=now") as client:
        next(client.events())
        for _ in range(40):
            lake.record(*range(500))
        yield client
    wait_for_listeners(lake, 0)


def test_a_listener_that_stops_reading_is_dropped(lake, monkeypatch):
    monkeypatch.setattr(sending, "TAKE_SECONDS", 1.0)
    with unread_listener(lake):
        wait_for_listeners(lake, 0)


def test_a_listener_that_leaves_without_reading_is_forgotten(lake):
    with unread_listener(lake):
        wait_for_listeners(lake, 1)


def test_a_byte_after_the_request_ends_the_stream(lake):
    with unread_listener(lake) as odd:
        odd.socket.sendall(b" ")
        wait_for_listeners(lake, 0)


def test_a_client_that_leaves_is_forgotten_while_it_waits(lake):
    wait_for_listeners(lake, 0)
    leaving = lake.service.connect()
    leaving.sendall(
        b"GET /v1/changes?after=now&wait=60 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
        % lake.service.token.encode()
    )
    with EventClient(lake.service, "after=now") as client:
        next(client.events())
        wait_for_listeners(lake, 2)
    leaving.close()
    wait_for_listeners(lake, 0)


def test_a_change_arrives_within_a_second(lake, monkeypatch):
    monkeypatch.setattr(change_feed, "_POLL_SECONDS", 0.5)
    wait_for_listeners(lake, 0)
    with EventClient(lake.service, "after=now") as client:
        next(client.events())
        waits = []
        for number in range(5):
            begun = time.monotonic()
            lake.record(number)
            client.changes(1)
            waits.append(time.monotonic() - begun)
    assert statistics.median(waits) < 1


def test_streams_end_whole_when_the_service_ends(postgres, template_database, s3_server):
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        with running_service(url, access) as service:
            client = EventClient(service, "after=now")
            next(client.events())
            waiting = ThreadPoolExecutor(1).submit(service.ask, "/v1/changes?after=now&wait=60")
            time.sleep(0.5)
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        *_, last = client.events(5)
        assert last.comment.startswith("the stream ends")
        assert client.is_whole
        assert waiting.result(5).status == 503
