"""The levels that rows reach, what a stream's ``verify`` asks for, and what a range's ``verification`` says of both.

``verification`` is the manifest's member of this name, which the registry stores as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Level = Literal["structural", "crosschecked", "full"]
Verify = Literal["full", "require_full", "structural", "off"]
"""``full``: as full as the chain's forms allow. ``require_full``: a form that cannot be proven stops the stream."""

CheckLevel = Literal["full", "structural", "off"]


def check_level(verify: str) -> CheckLevel:
    """Return the level of checks that a stream's ``verify`` asks for."""
    if verify in ("full", "require_full"):
        return "full"
    return "structural" if verify == "structural" else "off"


def is_proven(verify: str) -> bool:
    """Return whether a stream's ``verify`` asks for a comparison with the chain's commitments."""
    return check_level(verify) == "full"


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
        return is_proven(self.verify)

    @property
    def requires_full(self) -> bool:
        """Whether a form that cannot be proven stops the stream, where it would otherwise lower the level of rows."""
        return self.verify == "require_full"


def lowered_blocks(verification: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of blocks below the level that the dataset reaches elsewhere, by their level."""
    levels = verification.get("levels") or {}
    lowered = {str(each.get("level")) for each in _lowered(verification)}
    return {level: int(levels.get(level) or 0) for level in sorted(lowered)}


def lowered_sentence(verification: Mapping[str, Any]) -> str:
    """Return how many blocks of a range are lowered and why; an empty text if none is."""
    counts = lowered_blocks(verification)
    if not counts:
        return ""
    said = ", ".join(f"{blocks:,} {level}" for level, blocks in counts.items())
    return f"{said} of {int(verification.get('blocks') or 0):,} blocks: {reasons_line(lowered_reasons(verification))}"


def lowered_reasons(verification: Mapping[str, Any]) -> list[str]:
    """Return why blocks of a range are lowered, each reason a single time."""
    return list(dict.fromkeys(str(each.get("reason")) for each in _lowered(verification)))


def reasons_line(reasons: Sequence[str], most: int = 3) -> str:
    """Return different reasons as one line, the first ``most`` of them."""
    different = list(dict.fromkeys(reasons))
    more = f"; and {len(different) - most:,} more reasons" if len(different) > most else ""
    return "; ".join(different[:most]) + more


def _lowered(verification: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return verification.get("lowered") or ()
