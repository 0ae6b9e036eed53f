"""The queue drivers under test, with the methods that the contract test needs in addition."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3

from trace_dagster.registry.connection import Database
from trace_dagster.store.credentials import CredentialSource
from trace_dagster.wakeups.driver import Delivery, QueueDriver
from trace_dagster.wakeups.postgres import PgQueueDriver
from trace_dagster.wakeups.sqs import SqsQueueDriver

SECRET = "secret-" + "k" * 20
ACCESS_KEY = "AKIDTESTTESTTEST"


@dataclass
class PgQueue:
    """The queue of a fresh registry; time passes because the stored times of messages change."""

    database: Database
    driver: QueueDriver = field(init=False)
    old_receipts_are_void = True
    many = 1000

    def __post_init__(self) -> None:
        self.driver = PgQueueDriver(self.database)

    def pass_time(self, seconds: float) -> None:
        """Reduce the visibility timeout of every message by this many seconds."""
        with self.database.connection() as connection:
            connection.execute(
                "update trace.queue_messages set visible_at = visible_at - make_interval(secs => %s)", (seconds,)
            )


@dataclass
class SqsQueue:
    """A fresh pair of queues on a local server."""

    endpoint: str
    queue_url: str = field(init=False)
    dead_queue_url: str = field(init=False)
    driver: QueueDriver = field(init=False)
    old_receipts_are_void = False  # moto deletes the newest of them; Amazon ignores them
    many = 300  # moto's cost is quadratic: 1,000 take a minute

    def __post_init__(self) -> None:
        client: Any = boto3.client(
            "sqs",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET,
        )
        self.queue_url, self.dead_queue_url = (client.create_queue(QueueName=uuid4().hex)["QueueUrl"] for _ in "12")
        self.driver = sqs_driver(self.endpoint, self.queue_url, self.dead_queue_url)

    def pass_time(self, seconds: float) -> None:
        """Do nothing: this queue uses the real clock, and :func:`eventually` waits."""


def sqs_driver(endpoint: str, queue_url: str = "", dead_queue_url: str = "") -> SqsQueueDriver:
    """Return a driver for these queues, which need not exist."""
    return SqsQueueDriver(
        queue_url or f"{endpoint}/123456789012/main",
        dead_queue_url or f"{endpoint}/123456789012/dead",
        endpoint=endpoint,
        region="us-east-1",
        credentials=CredentialSource(ACCESS_KEY, SECRET),
    )


def eventually(driver: QueueDriver, *, visibility_seconds: float = 60) -> Delivery:
    """Return the next message, waiting up to ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        # One at a time: a message without a visibility timeout may be in one response twice.
        if found := driver.receive(1, visibility_seconds=visibility_seconds):
            return found[0]
        time.sleep(0.02)
    raise AssertionError("no message arrived within 10 s")
