"""The levels that rows reach, and what a stream's ``verify`` asks for."""

from __future__ import annotations

from typing import Literal

Level = Literal["structural", "crosschecked", "full"]
Verify = Literal["full", "require_full", "structural", "off"]
"""``full``: as full as the chain's forms allow. ``require_full``: a form that cannot be proven stops the stream."""

CheckLevel = Literal["full", "structural", "off"]


def check_level(verify: str) -> CheckLevel:
    """Return the level of checks that a stream's ``verify`` asks for."""
    if verify in ("full", "require_full"):
        return "full"
    return "structural" if verify == "structural" else "off"


class VerifiedAsAsked:
    """Answers about the ``verify`` of a stream. The classes that have this member inherit them."""

    __slots__ = ()

    verify: str

    @property
    def check_level(self) -> CheckLevel:
        """The level of checks: ``full`` for ``require_full`` as well."""
        return check_level(self.verify)

    @property
    def is_proven(self) -> bool:
        """Whether rows are compared with the chain's commitments."""
        return self.check_level == "full"

    @property
    def requires_full(self) -> bool:
        """Whether a form that cannot be proven stops the stream, where it would otherwise lower the level of rows."""
        return self.verify == "require_full"
