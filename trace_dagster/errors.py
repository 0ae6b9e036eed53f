"""Errors, one class per thing the caller can do about it.

A message is one lower-case sentence that says what happened and what to do next; facts follow as
``key=value``. No message carries a URL, a key or a password: whoever raises redacts first.
"""

from __future__ import annotations

from uuid import UUID


class TraceError(Exception):
    """Base of every error this package raises on purpose; its text is fit for a person."""

    exit_code = 1

    def __init__(self, message: str, **facts: object) -> None:
        self.message = message
        self.facts = facts
        super().__init__(" ".join([message, *(f"{key}={value}" for key, value in facts.items())]))


class InvalidInput(TraceError):
    """Fix the file, the flag or the environment variable; trying again changes nothing."""

    exit_code = 2


class Unavailable(TraceError):
    """A server, node or store did not answer as it should: try again later."""


class NoAnswer(Unavailable):
    """An endpoint does not answer at all: asking it for less would not help, another may."""


class ForkConflict(TraceError):
    """Rows agree with the chain an endpoint shows, but not with what is committed: one of the two is on a fork."""

    def __init__(self, message: str, *, block: int, committed: bytes, found: bytes, versions: tuple[UUID, ...]) -> None:
        super().__init__(message, block=block, committed=f"0x{committed.hex()}", found=f"0x{found.hex()}")
        self.block = block
        self.committed = committed
        self.found = found
        self.versions = versions
        """The committed dataset versions that say otherwise."""


class UnknownFormat(TraceError):
    """The chain or the engine answers in a form this version does not know: the stream stops until someone looks."""


class WrongChain(UnknownFormat):
    """An endpoint serves another chain than it did."""


class ExtractionFailed(TraceError):
    """The engine cannot produce this range; the message says why. Not cured by waiting."""


class EndpointLacks(ExtractionFailed):
    """One endpoint cannot serve the call; another of the pool may."""


class VerificationFailed(TraceError):
    """Rows do not agree with the chain's own rules: nothing was committed, try another endpoint."""


class NoQuorum(VerificationFailed):
    """Endpoints disagree on what no commitment covers: nobody can tell which of them is wrong."""


class CapExceeded(TraceError):
    """A range would outgrow the configured file or byte caps: use a smaller chunk_size."""


class LeaseLost(TraceError):
    """Someone else holds this task now: stop, write nothing."""


class Refused(TraceError):
    """The claim is not to be had: already committed, leased elsewhere or superseded."""


class OutcomeUnknown(TraceError):
    """The commit's answer was lost: look it up by attempt, delete nothing."""


class Corrupt(TraceError):
    """Stored state contradicts itself: a person must look."""


RETRYABLE = (Unavailable, VerificationFailed, OutcomeUnknown, ForkConflict)
"""Failures that another try may cure."""
