"""The contract of all queue drivers, over real Postgres and over HTTP to an SQS server."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from uuid import UUID

import psycopg
import pytest

from tests.support.queues import ACCESS_KEY, SECRET, PgQueue, SqsQueue, eventually, sqs_driver
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.processes import Child, Service
from trace_dagster.registry.connection import Database
from trace_dagster.store.objects import reachable
from trace_dagster.wakeups.driver import MAX_DELIVERIES
from trace_dagster.wakeups.postgres import PgQueueDriver

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def sqs_server(tmp_path_factory) -> Iterator[str]:
    """Return the endpoint of a running SQS server."""
    port = Ports({}).take()
    endpoint = f"http://{HOST}:{port}"
    script = Path(__file__).parents[1] / "support" / "sqs_server.py"
    service = Service("sqs", [sys.executable, str(script), str(port)], {}, lambda: reachable(endpoint))
    child = Child(service, tmp_path_factory.mktemp("sqs") / "sqs.log")
    try:
        child.wait_healthy()
        yield endpoint
    finally:
        child.signal_stop()
        child.wait_stopped(10)


@pytest.fixture(params=["postgres", "sqs"])
def queue(request):
    if request.param == "postgres":
        return PgQueue(request.getfixturevalue("database"))
    return SqsQueue(request.getfixturevalue("sqs_server"))


@pytest.fixture
def driver(queue):
    return queue.driver


def wear_out(driver):
    for number in range(1, MAX_DELIVERIES + 1):
        assert eventually(driver, visibility_seconds=0).deliveries == number


def test_an_acknowledged_message_is_gone(queue, driver):
    driver.publish(["hello"])
    delivery = eventually(driver, visibility_seconds=1)
    assert (delivery.body, delivery.deliveries) == ("hello", 1)
    driver.ack([delivery.receipt])
    queue.pass_time(60)
    assert [driver.receive(10, visibility_seconds=1) for _ in range(2)] == [[], []]
    assert driver.dead() == 0


def test_an_unacknowledged_message_is_hidden_and_comes_again(queue, driver):
    driver.publish(["hello"])
    first = eventually(driver, visibility_seconds=3)
    assert driver.receive(10, visibility_seconds=60) == []
    queue.pass_time(3)
    second = eventually(driver)
    assert (second.body, second.deliveries) == ("hello", 2)
    assert second.receipt != first.receipt


def test_limit_is_kept_across_batches(driver):
    driver.publish([str(number) for number in range(25)])
    found = [driver.receive(limit, visibility_seconds=60) for limit in (0, 1, 13, 50)]
    assert [len(some) for some in found] == [0, 1, 13, 11]
    assert {delivery.body for some in found for delivery in some} == {str(number) for number in range(25)}


def test_a_returned_message_waits_for_its_delay(queue, driver):
    driver.publish(["hello"])
    first = eventually(driver)
    driver.nack([first.receipt], delay_seconds=3)
    assert driver.receive(10, visibility_seconds=60) == []
    queue.pass_time(3)
    second = eventually(driver)
    assert (second.deliveries, second.receipt != first.receipt) == (2, True)
    driver.nack([second.receipt], delay_seconds=0)
    assert eventually(driver).deliveries == 3


def test_extending_hides_a_message_for_longer(queue, driver):
    driver.publish(["hello"])
    first = eventually(driver, visibility_seconds=1)
    driver.extend([first.receipt], visibility_seconds=4)
    queue.pass_time(2)
    assert [driver.receive(10, visibility_seconds=60) for _ in range(2)] == [[], []]
    queue.pass_time(2)
    assert eventually(driver).deliveries == 2


@pytest.mark.parametrize("made_up", [str(UUID(int=7)), "not ours", "", "'; é"])
def test_receipts_nobody_gave_are_ignored(driver, made_up):
    driver.publish(["hello"])
    delivery = eventually(driver)
    driver.nack([made_up], delay_seconds=0)
    driver.extend([made_up], visibility_seconds=1)
    driver.ack([made_up])
    driver.nack([made_up, delivery.receipt, made_up], delay_seconds=0)
    again = eventually(driver)
    driver.ack([made_up, again.receipt, again.receipt])
    driver.ack([again.receipt])
    driver.nack([again.receipt], delay_seconds=0)
    assert driver.receive(10, visibility_seconds=60) == []


def test_receipts_of_an_earlier_delivery_do_not_raise(queue, driver):
    driver.publish(["hello"])
    old = eventually(driver, visibility_seconds=0).receipt
    new = eventually(driver).receipt
    driver.extend([old], visibility_seconds=60)
    driver.nack([old], delay_seconds=0)
    driver.ack([old])
    if queue.old_receipts_are_void:
        assert driver.receive(10, visibility_seconds=60) == []
        driver.nack([new], delay_seconds=0)
        assert eventually(driver).deliveries == 3


def test_a_worn_out_message_is_dead(driver):
    driver.publish(["poison"])
    wear_out(driver)
    assert driver.dead() == 0
    assert driver.receive(10, visibility_seconds=0) == []
    assert driver.dead() == 1
    assert driver.receive(10, visibility_seconds=0) == []


@pytest.mark.parametrize("limit", [1, 10])
def test_worn_out_messages_do_not_hold_up_the_others(driver, limit):
    driver.publish(["poison", "poison", "poison"])
    for _ in range(MAX_DELIVERIES):
        driver.nack([delivery.receipt for delivery in driver.receive(3, visibility_seconds=60)], delay_seconds=0)
    driver.publish(["good"])
    time.sleep(0.01)  # a message becomes visible after its time, not at it
    assert [delivery.body for delivery in driver.receive(limit, visibility_seconds=60)] == ["good"]


def test_four_receivers_get_every_message_once(queue, driver):
    sent = [f"message {number}" for number in range(queue.many)]
    driver.publish(sent)
    lock, found, deadline = Lock(), [], time.monotonic() + 120

    def work(_):
        while len(found) < len(sent) and time.monotonic() < deadline:
            some = driver.receive(20, visibility_seconds=600)
            driver.ack([delivery.receipt for delivery in some])
            with lock:
                found.extend(delivery.body for delivery in some)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(found) == sorted(sent)


def test_bodies_arrive_as_they_were(driver):
    bodies = [
        "\"double\" 'single' `back` \\ %s %(name)s",
        "Zürich 東京 🙂 \u00a0",
        "<a&b;>",
        " spaces\tand\nlines ",
        "{}",
    ]
    driver.publish(bodies)
    assert sorted(d.body for d in driver.receive(10, visibility_seconds=60)) == sorted(bodies)


def test_publishing_nothing_is_fine(driver):
    driver.publish([])
    driver.ack([])
    driver.nack([], delay_seconds=1)
    driver.extend([], visibility_seconds=1)


def test_postgres_that_ends_the_connection_loses_nothing(database, postgres_url):
    driver = PgQueueDriver(database)
    driver.publish(["before"])
    with psycopg.connect(postgres_url) as lock, psycopg.connect(postgres_url, autocommit=True) as other:
        lock.execute("lock table trace.queue_messages in access exclusive mode")
        with ThreadPoolExecutor(3) as pool:
            calls = [
                pool.submit(driver.publish, ["during"]),
                pool.submit(driver.receive, 10, visibility_seconds=600),
                pool.submit(driver.dead),
            ]
            terminate_waiting(other, 2)
            lock.rollback()
            errors = [call.exception(timeout=30) for call in calls]
    assert [type(error) for error in errors] == [Unavailable, Unavailable, type(None)]
    driver.publish(["during"])
    assert {delivery.body for delivery in driver.receive(10, visibility_seconds=60)} == {"before", "during"}


def terminate_waiting(connection, count):
    """End the backends that wait for the lock, as soon as there are as many as given."""
    deadline = time.monotonic() + 20
    waiting = "from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    while connection.execute(f"select count(*) {waiting}").fetchone()[0] < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    connection.execute(f"select pg_terminate_backend(pid) {waiting}")


def test_postgres_that_is_down_is_unavailable_and_keeps_its_password():
    database = Database(f"postgresql://trace:{SECRET}@{HOST}:{Ports({}).take()}/trace", connect_timeout_seconds=1)
    try:
        with pytest.raises(Unavailable) as raised:
            PgQueueDriver(database).publish(["hello"])
    finally:
        database.close()
    assert SECRET not in str(raised.value)


def test_sqs_that_is_down_is_unavailable(sqs_server, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))  # the pauses between the tries
    queue = SqsQueue(sqs_server)
    queue.driver.publish(["hello"])
    receipt = eventually(queue.driver).receipt
    down = sqs_driver(f"http://{HOST}:{Ports({}).take()}", queue.queue_url, queue.dead_queue_url)
    for call in (
        lambda: down.publish(["hello"]),
        lambda: down.receive(1, visibility_seconds=1),
        lambda: down.ack([receipt]),
        lambda: down.nack([receipt], delay_seconds=0),
        lambda: down.extend([receipt], visibility_seconds=1),
        down.dead,
    ):
        with pytest.raises(Unavailable, match="does not answer") as raised:
            call()
        assert not any(secret in str(raised.value) for secret in (SECRET, ACCESS_KEY, queue.queue_url))
    queue.driver.nack([receipt], delay_seconds=0)
    assert eventually(queue.driver).body == "hello"


def test_an_sqs_queue_that_does_not_exist_is_invalid_input(sqs_server):
    driver = sqs_driver(sqs_server)
    for call in (driver.dead, lambda: driver.receive(1, visibility_seconds=1), lambda: driver.publish(["hello"])):
        with pytest.raises(InvalidInput, match="create it") as raised:
            call()
        assert sqs_server not in str(raised.value)
