"""What a queue must do for us, whichever server it is: at least once, in no order.

A message is a pointer, never data: losing one delays work until the next reconciliation, getting
one twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from trace_dagster.identity import canonical_json

MAX_DELIVERIES = 5
"""A message received this often without being acknowledged goes to the dead messages instead."""

MAX_BODY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Look at this task; ``wake_seq`` only tells two wake-ups of one task apart."""

    task_id: UUID
    wake_seq: int

    def encode(self) -> str:
        """Canonical JSON."""
        return canonical_json({"task_id": str(self.task_id), "wake_seq": self.wake_seq})


def decode(body: str) -> WakeUp | None:
    """The wake-up in a message, or None for anything else: whoever can write to the queue may have."""
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
    """One delivery of one message. Another delivery of it has another receipt."""

    body: str
    receipt: str
    deliveries: int
    """Times the message was delivered, this one included."""


class QueueDriver(Protocol):
    """A queue with a visibility timeout. Every method raises Unavailable when the server does not answer."""

    def publish(self, bodies: Sequence[str]) -> None:
        """Enqueue all of them. After an error some may be there: publishing again is fine."""

    def receive(self, limit: int, *, visibility_seconds: float) -> list[Delivery]:
        """Up to ``limit`` visible messages, hidden from others for ``visibility_seconds``.

        A message that was delivered MAX_DELIVERIES times already goes to the dead messages instead.
        """

    def ack(self, receipts: Sequence[str]) -> None:
        """Done with these deliveries. Unknown, repeated and outdated receipts are ignored."""

    def nack(self, receipts: Sequence[str], *, delay_seconds: float) -> None:
        """Deliver these again after ``delay_seconds``; receipts as for :meth:`ack`."""

    def extend(self, receipts: Sequence[str], *, visibility_seconds: float) -> None:
        """Hide these for ``visibility_seconds`` from now on; receipts as for :meth:`ack`."""

    def dead(self) -> int:
        """How many messages are dead (an approximation where the server gives no better)."""
