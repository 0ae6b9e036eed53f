"""Errors, one class per action of the caller.

A message is one lower-case line: what happened, to which thing, and what to do next; facts follow as ``key=value``. No
message contains a URL, a key or a password: every error redacts its own message and facts, and escapes control
characters. Terminals obey those, and Postgres stores no NUL.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from trace_dagster.messages.printable import printable, printable_lines
from trace_dagster.messages.redaction import hide_secrets, redact

Part = Literal["header", "transactions", "receipts"]
"""A part of a block that has a commitment of its own."""


class TraceError(Exception):
    """Base of all errors that this package raises deliberately. The command line prints it without a traceback."""

    exit_code = 1

    def __init__(self, message: str, **facts: object) -> None:
        self.message = self._safe(message)
        self.facts = {key: self._safe_fact(value) for key, value in facts.items()}
        super().__init__(" ".join([self.message, *(f"{key}={value}" for key, value in self.facts.items())]))

    @staticmethod
    def _safe(text: str) -> str:
        """Return a text without URLs and secrets. It may be another's, such as a node's."""
        return printable(redact(text))

    def _safe_fact(self, value: object) -> object:
        """Return a fact as it is, or as redacted text if its text holds a secret."""
        text = str(value)
        safe = self._safe(text)
        return value if safe == text else safe


class InvalidInput(TraceError):
    """The input is wrong. Fix the file, the flag or the environment variable; a retry fails again."""

    exit_code = 2

    @staticmethod
    def _safe(text: str) -> str:
        """Return a text without secrets. It is ours, and may show how a URL has to look."""
        return printable_lines(hide_secrets(text))


class WrongSetup(InvalidInput):
    """A server refuses the address, the credentials or the rights that this process was given. Fix its variables."""


class Unavailable(TraceError):
    """A server, node or store failed a request. Try again later, or at another endpoint."""


class NotYet(Unavailable):
    """Another process has to act first, and has not yet. Try again later; it is no failure of what was tried."""


class TooLate(Unavailable):
    """A query ran until its deadline. Ask for fewer blocks, aggregate, or stream the result."""


class Cancelled(TraceError):
    """The caller ended its query, or left."""


class TooMany(Unavailable):
    """There is no place for one more query now. Wait, then ask again."""


class NoAccess(TraceError):
    """The caller showed no valid token. Get one by `trace-lite token new`."""

    exit_code = 2


class NoAnswer(Unavailable):
    """An endpoint does not answer at all. Use another endpoint; a smaller request would not help."""


class ForkConflict(TraceError):
    """Rows agree with the chain of an endpoint, but not with committed rows. Resolve the fork: one of them is on it."""

    def __init__(self, message: str, *, block: int, committed: bytes, found: bytes, versions: tuple[UUID, ...]) -> None:
        super().__init__(message, block=block, committed=f"0x{committed.hex()}", found=f"0x{found.hex()}")
        self.block = block
        self.committed = committed
        self.found = found
        self.versions = versions
        """The committed dataset versions that do not agree with the endpoint's chain."""


class UnknownFormat(TraceError):
    """The chain or the engine uses a form that this version does not know. Stop the stream; it may need an upgrade."""


class UnknownForm(UnknownFormat):
    """A part of a block has a form that this version cannot encode. Where the table of chains says so, commit the rows
    that it concerns at a lower level; otherwise stop the stream.
    """

    def __init__(self, message: str, *, part: Part, kind: int | None, block: int, **facts: object) -> None:
        super().__init__(message, block=block, **facts)
        self.part = part
        """header, transactions or receipts."""
        self.kind = kind
        """The transaction type; None if the form is not that of one type."""
        self.block = block


class WrongChain(UnknownFormat):
    """An endpoint reports a chain id that is not the job's. Stop the stream and fix the pool's URLs."""


class ExtractionFailed(TraceError):
    """The engine cannot produce this range. Do what the message says; waiting does not help."""


class EndpointLacks(ExtractionFailed):
    """One endpoint cannot serve the call. Use another endpoint of the pool."""


class VerificationFailed(TraceError):
    """Rows do not agree with the chain's commitments or rules. Nothing was committed; try another endpoint."""


class NoQuorum(VerificationFailed):
    """Endpoints disagree on rows that no commitment covers. Do not blame one: it is unknown which is wrong."""


class CapExceeded(TraceError):
    """A range would exceed the configured caps of files or bytes. Use a smaller chunk_size."""


class LeaseLost(TraceError):
    """Another worker holds this task now. Stop, and write nothing more."""


class Refused(TraceError):
    """The claim was refused: the range is committed, leased by another worker, or superseded. Do not extract it."""


class OldForm(TraceError):
    """Something is stored in a form from before this version, which does not read it. Rebuild it: apply --rebuild."""


class OutcomeUnknown(TraceError):
    """The reply to a commit was lost. Look up the outcome by attempt, and delete nothing before it is known."""


class CursorGone(TraceError):
    """The changes after a cursor are not known: take a new cursor, read the lake as it is, and follow from there."""

    exit_code = 4


class Corrupt(TraceError):
    """Stored state contradicts itself. A person must look at it."""


RETRYABLE = (Unavailable, VerificationFailed, OutcomeUnknown, ForkConflict)
"""Errors after which another try may succeed."""
