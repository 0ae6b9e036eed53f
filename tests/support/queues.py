"""The queue drivers under test, each with what the contract needs beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3

from trace_dagster.registry.connection import Database
from trace_dagster.wakeups.driver import Delivery, QueueDriver
from trace_dagster.wakeups.postgres import PgQueueDriver
from trace_dagster.wakeups.sqs import SqsQueueDriver

SECRET = "secret-" + "k" * 20
ACCESS_KEY = "AKIDTESTTESTTEST"


@dataclass
class PgQueue:
    """The queue of a fresh registry; its clock is moved by moving the messages."""

    database: Database
    driver: QueueDriver = field(init=False)
    old_receipts_are_void = True
    many = 1000

    def __post_init__(self) -> None:
        self.driver = PgQueueDriver(self.database)

    def pass_time(self, seconds: float) -> None:
        """Let everything be hidden for that much less."""
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
    old_receipts_are_void = False  # moto takes them for the newest; Amazon ignores them
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
        """Nothing: its clock is the real one, and :func:`eventually` waits."""


def sqs_driver(endpoint: str, queue_url: str = "", dead_queue_url: str = "") -> SqsQueueDriver:
    """A driver for queues there, whether they exist or not."""
    return SqsQueueDriver(
        queue_url or f"{endpoint}/123456789012/main",
        dead_queue_url or f"{endpoint}/123456789012/dead",
        endpoint=endpoint,
        region="us-east-1",
        access_key=ACCESS_KEY,
        secret_key=SECRET,
    )


def eventually(driver: QueueDriver, *, visibility_seconds: float = 60) -> Delivery:
    """The next message, within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        # One at a time: a message that is not hidden at all may be in one answer twice.
        if found := driver.receive(1, visibility_seconds=visibility_seconds):
            return found[0]
        time.sleep(0.02)
    raise AssertionError("no message arrived within 10 s")
