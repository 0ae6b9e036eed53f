"""When a piece that failed is tried on another endpoint, when it is halved, and which of its errors decides."""

from __future__ import annotations

from trace_dagster.errors import (
    EndpointLacks,
    ForkConflict,
    InvalidInput,
    NoAnswer,
    TraceError,
    Unavailable,
    UnknownFormat,
    VerificationFailed,
)

TRIES = 2
"""Tries of a piece before it is halved, and at least one per endpoint."""

TRIES_ALONE = 6
"""Tries of a single block, which cannot be halved."""

ANOTHER_ENDPOINT = (VerificationFailed, Unavailable, EndpointLacks, InvalidInput, UnknownFormat, ForkConflict)
"""Errors after which another endpoint is tried."""


def tries_of(blocks: int, endpoints: int) -> int:
    """Return how often a piece of so many blocks is tried before it is halved or fails."""
    return max(TRIES_ALONE if blocks == 1 else TRIES, endpoints)


def decisive(first: TraceError | None, last: TraceError) -> TraceError:
    """Return the error that decides after several tries: of equal weight the last one."""
    return last if first is None or _weight(last) <= _weight(first) else first


def is_worth_halving(error: TraceError) -> bool:
    """Return whether smaller calls may help: one bad answer spoils a whole piece. A silent endpoint stays silent."""
    return isinstance(error, VerificationFailed | Unavailable | UnknownFormat) and not isinstance(error, NoAnswer)


def _weight(error: TraceError) -> int:
    """Return the rank of an error. The error with the lowest rank is raised; errors that a retry cures rank first.

    One garbled answer can look like an unknown format, so that decides only if no other error was raised.
    """
    match error:
        case ForkConflict():
            return 0
        case NoAnswer():  # also an Unavailable, but it weighs more: hence before that case
            return 3
        case VerificationFailed() | Unavailable():
            return 1
        case UnknownFormat():
            return 2
    return 4
