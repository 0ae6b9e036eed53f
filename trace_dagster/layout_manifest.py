"""``_manifest.json`` of a layout: files of one compaction, and the versions whose rows they hold (ADR 0019).

A layout says where rows are. What the rows are, their digest and their proof, stays in the manifest of each version.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trace_dagster.errors import Corrupt
from trace_dagster.identity import canonical_json, sha256_hex

_HASH = r"^[0-9a-f]{64}$"


class LayoutVersion(BaseModel):
    """A version whose rows are in a file of the layout, in block order, and their digest as it was compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_version: UUID
    generation: int = Field(ge=0)
    range_start: int = Field(ge=0)
    range_end: int
    rows: int = Field(ge=0)
    content_digest: str = Field(pattern=_HASH)


class LayoutManifestFile(BaseModel):
    """One Parquet object, the schema of its rows, and the versions that it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=_HASH)
    rows: int = Field(ge=0)
    min_block: int | None
    max_block: int | None
    schema_fingerprint: str
    versions: list[LayoutVersion] = Field(min_length=1)

    @model_validator(mode="after")
    def _adds_up(self) -> LayoutManifestFile:
        if self.rows != sum(version.rows for version in self.versions):
            raise ValueError("rows must be the sum over versions")
        return self


class LayoutHashIndex(BaseModel):
    """The object with the sorted hash prefixes of the layout's rows and their blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=_HASH)
    rows: int = Field(ge=0)


class LayoutManifest(BaseModel):
    """The manifest of one layout of one window of blocks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    layout_id: UUID
    dataset_uuid: UUID
    chain_id: int
    dataset_key: str
    cryo_dataset_name: str
    window_start: int = Field(ge=0)
    window_end: int
    files: list[LayoutManifestFile] = Field(min_length=1)
    hash_index: LayoutHashIndex | None = None

    def encode(self) -> bytes:
        """Return the canonical bytes. The registry stores their SHA-256."""
        return canonical_json(self.model_dump(mode="json")).encode()


def decode_layout(data: bytes, *, sha256: str | None = None) -> LayoutManifest:
    """Decode a layout's manifest read from the object store.

    Raises Corrupt if its SHA-256 is not ``sha256``, or if it is not a valid manifest.
    """
    if sha256 is not None and sha256_hex(data) != sha256:
        raise Corrupt("a layout's manifest on the object store is not the one that was committed", expected=sha256)
    try:
        return LayoutManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Corrupt("a layout's manifest cannot be read", key=where, reason=first["msg"]) from None


def layout_folder(chain_id: int, dataset_uuid: UUID, start: int, end: int, layout_id: UUID) -> str:
    """Return the key prefix of a layout's objects, with a trailing slash."""
    return f"cryo/{chain_id}/{dataset_uuid}/layout/{start}_{end}/{layout_id}/"
