"""The head that a node shows. It is a hint that there may be a new block, and proves nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import Unavailable
from trace_dagster.rpc.client import call
from trace_dagster.rpc.pools import Endpoint

LATEST = ("eth_getBlockByNumber", ["latest", False])
_NUMBER = re.compile(r"0x([0-9a-fA-F]{1,16})")
_HASH = re.compile(r"0x([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block, as a node shows it."""

    number: int
    hash: bytes
    """32 bytes."""
    parent_hash: bytes
    """32 bytes."""
    position: int = 0
    """The endpoint that showed it, counted from 1 as in its pool; 0 if that is not known."""


class UnreadHeads:
    """The heads that a reader has not read: of each endpoint the highest, and the last if that is another one.

    The last may be that of a shorter branch, the highest one that the endpoint showed between older ones.
    """

    def __init__(self) -> None:
        self._heads: dict[int, tuple[Head, Head]] = {}
        """(highest, last) by position."""

    def __bool__(self) -> bool:
        return bool(self._heads)

    def add(self, head: Head) -> None:
        """Take a head that an endpoint shows."""
        highest, _ = self._heads.get(head.position, (head, head))
        self._heads[head.position] = (highest if highest.number > head.number else head, head)

    def take(self) -> list[Head]:
        """Return the heads, the highest first, and hold none of them any more."""
        found = sorted({head for both in self._heads.values() for head in both}, key=lambda head: -head.number)
        self._heads.clear()
        return found


def head_of(value: Any, position: int = 0) -> Head | None:
    """Return the head in a node's answer or message, or None if that is not a block with number and hashes."""
    if not isinstance(value, dict):
        return None
    number = _matched(_NUMBER, value.get("number"))
    own, parent = (_matched(_HASH, value.get(name)) for name in ("hash", "parentHash"))
    if not number or not own or not parent or int(number, 16) >= MAX_BLOCK:
        return None
    return Head(int(number, 16), bytes.fromhex(own), bytes.fromhex(parent), position)


def head_json(head: Head) -> dict[str, Any]:
    """Return a head in the form that :func:`head_of` reads, with the endpoint's position."""
    return {
        "number": hex(head.number),
        "hash": f"0x{head.hash.hex()}",
        "parentHash": f"0x{head.parent_hash.hex()}",
        "endpoint": head.position,
    }


def latest_head(endpoint: Endpoint) -> Head:
    """Ask an endpoint for its newest block. Raises Unavailable, or InvalidInput if it refuses its key."""
    head = head_of(call(endpoint, *LATEST), endpoint.position)
    if head is None:
        raise Unavailable(f"rpc endpoint {endpoint.name} answered with something that is not its newest block")
    return head


def _matched(pattern: re.Pattern[str], value: object) -> str:
    """Return the digits of a value; empty if it is anything else."""
    found = pattern.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else ""
