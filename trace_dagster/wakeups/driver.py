"""The interface of a queue: it delivers each message at least once, in any order.

A message names a task and carries no data. If one is lost, the task waits until the next reconciliation; if one is
delivered twice, nothing changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from trace_dagster.identity import canonical_json

MAX_DELIVERIES = 5
"""After this many deliveries without an acknowledgement, a message goes to the dead messages."""

MAX_BODY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A request to look at a task. ``wake_seq`` distinguishes two wake-ups of one task."""

    task_id: UUID
    wake_seq: int

    def encode(self) -> str:
        """Return the message body, as canonical JSON."""
        return canonical_json({"task_id": str(self.task_id), "wake_seq": self.wake_seq})


def decode(body: str) -> WakeUp | None:
    """Return the wake-up in a message body, or None if it is anything else: the queue's content is not trusted."""
    try:
        if len(body) > MAX_BODY_BYTES:
            return None
        value = json.loads(body)
        sequence = value["wake_seq"]
        if set(value) != {"task_id", "wake_seq"} or type(sequence) is not int or sequence < 0:
            return None
        return WakeUp(UUID(value["task_id"]), sequence)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one message. Each delivery has its own receipt."""

    body: str
    receipt: str
    deliveries: int
    """How often the message was delivered, including this time."""


class QueueDriver(Protocol):
    """A queue with a visibility timeout. Every method raises Unavailable if the server does not answer."""

    def publish(self, bodies: Sequence[str]) -> None:
        """Enqueue all bodies. After an error some may have been enqueued; the caller may publish all again."""

    def receive(self, limit: int, *, visibility_seconds: float) -> list[Delivery]:
        """Return up to ``limit`` visible messages and hide them from other receivers for ``visibility_seconds``.

        Messages that were already delivered MAX_DELIVERIES times are moved to the dead messages instead.
        """

    def ack(self, receipts: Sequence[str]) -> None:
        """Acknowledge deliveries: remove their messages. Unknown, repeated and outdated receipts are ignored."""

    def nack(self, receipts: Sequence[str], *, delay_seconds: float) -> None:
        """Make messages visible again after ``delay_seconds``; receipts as for :meth:`ack`."""

    def extend(self, receipts: Sequence[str], *, visibility_seconds: float) -> None:
        """Hide messages for ``visibility_seconds`` from now on; receipts as for :meth:`ack`."""

    def dead(self) -> int:
        """Return the number of dead messages. Some servers only give an approximation."""
