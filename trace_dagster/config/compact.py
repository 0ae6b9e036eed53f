"""The key ``compact`` of a chain_sync stream: into which files and when its committed ranges are compacted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from trace_dagster.config.cron import named_cron

SETTINGS_TAG = "(settings)"
OFF_TAG = "(off)"
"""Names of the two forms in pydantic's locations. No key of a file looks like them."""


class Compact(BaseModel):
    """Compaction of one stream."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    target_bytes: Annotated[int, Field(ge=1_048_576, le=4_294_967_296)] = 268_435_456
    """Size of the files that a compaction writes."""
    after_files: Annotated[int, Field(ge=2, le=10_000)] = 100
    """Ranges of a window: so many uncompacted files start its compaction."""
    cron: str | None = None
    """When windows are compacted, in UTC; None: as soon as they are due."""

    @field_validator("cron")
    @classmethod
    def _cron_can_be_due(cls, value: str | None) -> str | None:
        return None if value is None else named_cron("cron", value)

    def window_blocks(self, chunk_size: int) -> int:
        """Return the blocks of a window of a stream with this chunk size."""
        return self.after_files * chunk_size


def _form(value: Any) -> str | None:
    if isinstance(value, dict | Compact):
        return SETTINGS_TAG
    return OFF_TAG if value is False or value == "off" else None


CompactOrOff = Annotated[
    Annotated[Compact, Tag(SETTINGS_TAG)] | Annotated[Literal["off"], Tag(OFF_TAG)], Discriminator(_form)
]
