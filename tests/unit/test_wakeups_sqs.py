"""The SQS driver against replies that no test server gives: refusals, half-failed batches, errors between requests."""

import json
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest

from tests.support.queues import ACCESS_KEY, SECRET, sqs_driver
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.store.credentials import CredentialSource
from trace_dagster.wakeups.driver import MAX_DELIVERIES
from trace_dagster.wakeups.sqs import SqsQueueDriver

URLS = ("https://sqs.eu-west-1.amazonaws.com/1/main", "https://sqs.eu-west-1.amazonaws.com/1/dead")
EMPTY: tuple[int, dict] = (200, {})


@contextmanager
def answering(*answers):
    """Yield a driver and the list of its requests. Each request gets the next answer; the last answer repeats."""
    requests, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.headers["X-Amz-Target"].removeprefix("AmazonSQS."), asked))
            status, answer = left.pop(0) if len(left) > 1 else left[0]
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield sqs_driver(f"http://127.0.0.1:{server.server_port}"), requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))


def messages(*deliveries):
    found = [
        {"Body": "same body", "ReceiptHandle": f"r{number}", "Attributes": {"ApproximateReceiveCount": str(count)}}
        for number, count in enumerate(deliveries)
    ]
    return 200, {"Messages": found}


def refusal(code, status=400):
    return status, {"__type": f"com.amazonaws.sqs#{code}", "message": f"{SECRET} {ACCESS_KEY}"}


def failed(code, *, sender, number="0"):
    return 200, {"Successful": [], "Failed": [{"Id": number, "Code": code, "SenderFault": sender, "Message": SECRET}]}


def sent(*numbers):
    return 200, {"Successful": [{"Id": str(number)} for number in numbers], "Failed": []}


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (refusal("QueueDoesNotExist"), InvalidInput, "create it"),
        (refusal("AWS.SimpleQueueService.NonExistentQueue"), InvalidInput, "create it"),
        (refusal("InvalidClientTokenId", 403), InvalidInput, "AWS_SECRET_ACCESS_KEY"),
        (refusal("UnrecognizedClientException"), InvalidInput, "AWS_SECRET_ACCESS_KEY"),
        (refusal("Unheard", 403), InvalidInput, "AWS_SECRET_ACCESS_KEY"),
        (refusal("RequestThrottled", 403), Unavailable, "too busy"),
        (refusal("OverLimit"), Unavailable, "too busy"),
        (refusal("InternalFailure", 500), Unavailable, "failed a request code=InternalFailure"),
        ((502, {}), Unavailable, "failed a request code=502"),
    ],
)
def test_refusals_name_the_remedy_and_no_secret(answer, kind, text):
    with answering(answer) as (driver, requests):
        with pytest.raises(kind, match=text) as raised:
            driver.publish(["hello"])
        text = "".join(traceback.format_exception(raised.value))
    assert not any(secret in text for secret in (SECRET, ACCESS_KEY, "127.0.0.1:"))
    assert len(requests) <= 4


def test_an_access_key_that_is_no_header_value_is_not_quoted():
    with answering(EMPTY) as (driver, _):
        driver._client = SqsQueueDriver(
            *URLS, endpoint="http://127.0.0.1:1", region="x", credentials=CredentialSource("AK\nID", SECRET)
        )._client
        with pytest.raises(Unavailable) as raised:
            driver.dead()
    assert "AK" not in "".join(traceback.format_exception_only(raised.value))
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (failed("InternalError", sender=False), Unavailable),
        (failed("RequestThrottled", sender=True), Unavailable),
        (failed("InvalidMessageContents", sender=True), InvalidInput),
        (failed("KMS.AccessDeniedException", sender=True), InvalidInput),
    ],
)
def test_a_message_that_failed_in_a_batch_is_an_error(answer, kind):
    with answering(answer) as (driver, _), pytest.raises(kind) as raised:
        driver.publish(["hello"])
    assert SECRET not in str(raised.value)


def test_refused_receipts_are_ignored_and_other_failures_are_not():
    with answering(failed("ReceiptHandleIsInvalid", sender=True)) as (driver, _):
        driver.ack(["r"])
        driver.nack(["r"], delay_seconds=1)
    with answering(failed("InternalError", sender=False)) as (driver, _), pytest.raises(Unavailable):
        driver.ack(["r"])


def test_batches_stay_within_the_limits():
    with answering(EMPTY) as (driver, requests):
        driver.publish(["x"] * 21 + ["é" * 100_000, "y" * 60_000, "z" * 3_000])
        driver.ack([f"r{number}" for number in range(12)])
    assert [len(asked["Entries"]) for _, asked in requests] == [10, 10, 3, 1, 10, 2]
    for _, asked in requests:
        assert sum(len(entry.get("MessageBody", "").encode()) for entry in asked["Entries"]) <= 256 * 1024
        assert len({entry["Id"] for entry in asked["Entries"]}) == len(asked["Entries"])


@pytest.mark.parametrize(
    ("asked", "given"), [(-5, 0), (0, 0), (0.2, 1), (30, 30), (43_200.5, 43_200), (float("inf"), 43_200)]
)
def test_times_are_whole_seconds_within_twelve_hours(asked, given):
    with answering(EMPTY) as (driver, requests):
        driver.receive(1, visibility_seconds=asked)
        driver.nack(["r"], delay_seconds=asked)
        driver.extend(["r"], visibility_seconds=asked)
    received, *changed = (request for _, request in requests)
    assert received["VisibilityTimeout"] == given
    assert [request["Entries"][0]["VisibilityTimeout"] for request in changed] == [given, given]


def test_an_exhausted_message_is_copied_before_it_is_deleted():
    over = MAX_DELIVERIES + 1
    with answering(messages(1, over, over, MAX_DELIVERIES), sent(0, 1), EMPTY) as (driver, requests):
        found = driver.receive(10, visibility_seconds=60)
    assert [delivery.deliveries for delivery in found] == [1, MAX_DELIVERIES]
    assert [name for name, _ in requests] == [
        "ReceiveMessage",
        "SendMessageBatch",
        "DeleteMessageBatch",
        "ReceiveMessage",
    ]
    assert requests[1][1]["QueueUrl"].endswith("/dead")
    assert [entry["MessageBody"] for entry in requests[1][1]["Entries"]] == ["same body"] * 2
    assert [entry["ReceiptHandle"] for entry in requests[2][1]["Entries"]] == ["r1", "r2"]


def test_an_exhausted_message_that_was_not_copied_is_not_deleted():
    over = MAX_DELIVERIES + 1
    half = (200, {**sent(1)[1], "Failed": failed("InternalError", sender=False)[1]["Failed"]})
    with answering(messages(over, over), half, EMPTY) as (driver, requests), pytest.raises(Unavailable):
        driver.receive(10, visibility_seconds=60)
    assert [entry["ReceiptHandle"] for entry in requests[2][1]["Entries"]] == ["r1"]


@pytest.mark.parametrize("worn", [False, True])
def test_received_messages_are_returned_despite_a_later_error(worn):
    first = messages(1, MAX_DELIVERIES + 1) if worn else messages(1, 1)
    with answering(first, refusal("QueueDoesNotExist")) as (driver, _):
        assert len(driver.receive(10, visibility_seconds=60)) == (1 if worn else 2)
        with pytest.raises(InvalidInput):
            driver.receive(10, visibility_seconds=60)


def test_a_queue_of_exhausted_messages_alone_does_not_block_a_receiver():
    answers = [messages(*[MAX_DELIVERIES + 1] * 10), sent(*range(10)), EMPTY] * 50
    with answering(*answers) as (driver, requests):
        assert driver.receive(20, visibility_seconds=60) == []
    assert len(requests) == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"queue_url": "not a url"},
        {"queue_url": f"https://user:{SECRET}@host/1/main"},
        {"dead_queue_url": URLS[0]},
        {"dead_queue_url": "https://host/1/dead.fifo"},
        {"endpoint": f"ftp://{SECRET}"},
        {"endpoint": f"http://[{SECRET}"},
        {"region": f"{SECRET} /"},
    ],
)
def test_settings_that_cannot_work_are_refused_and_not_shown(changed):
    good = {"queue_url": URLS[0], "dead_queue_url": URLS[1], "endpoint": None, "region": "eu-west-1"}
    with pytest.raises(InvalidInput) as raised:
        SqsQueueDriver(**{**good, **changed}, credentials=CredentialSource(ACCESS_KEY, SECRET))
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_the_driver_does_not_show_its_secrets():
    driver = sqs_driver("http://127.0.0.1:1")
    assert not any(secret in repr(driver) + str(vars(driver)) for secret in (SECRET, ACCESS_KEY))
