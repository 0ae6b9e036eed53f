"""What a caller may see: the datasets whose full names match one of its patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trace_dagster.errors import InvalidInput

_PATTERN = re.compile(r"chain_\d{1,19}\.(\*|[a-z][a-z0-9_]{0,62}\*?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Grants:
    """Patterns of full names: ``chain_143.*``, ``chain_1.logs`` or ``chain_1.erc20_*``. None matches every name."""

    patterns: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, patterns: Sequence[str]) -> Grants:
        """Check patterns from a caller. Raises InvalidInput for one of another form."""
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern):
                raise InvalidInput(
                    f"{pattern[:100]!r} names no datasets: write chain_143.*, chain_1.logs, or chain_1.erc20_*"
                )
        return cls(tuple(dict.fromkeys(patterns)))

    def allows(self, chain_id: int, dataset_key: str) -> bool:
        """Return whether a dataset exists for the caller."""
        name = f"chain_{chain_id}.{dataset_key}"
        return self.patterns is None or any(_matches(name, pattern) for pattern in self.patterns)

    def chains(self, datasets: Iterable[tuple[int, str]]) -> frozenset[int]:
        """Return the chains of these ``(chain_id, dataset_key)`` of which the caller may see a dataset."""
        return frozenset(chain_id for chain_id, key in datasets if self.allows(chain_id, key))


ALL = Grants()
"""Everything."""


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
