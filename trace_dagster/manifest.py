"""``_manifest.json`` version 2: describes the files that one attempt wrote, in canonical JSON (ADR 0002)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trace_dagster.errors import Corrupt, OldForm
from trace_dagster.identity import CONTENT_DIGEST_VERSION, canonical_json, sha256_hex

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAME = "_manifest.json"


class ManifestFile(BaseModel):
    """One Parquet object: its key within the bucket, size in bytes, SHA-256 and block span (inclusive)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=0)
    min_block: int | None
    max_block: int | None


class Manifest(BaseModel):
    """The manifest of one range: identity, files with digests, content digest, verification and engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[2] = 2
    dataset_uuid: UUID
    dataset_version: UUID
    chain_id: int
    dataset_key: str
    cryo_dataset_name: str
    range_start: int = Field(ge=0)
    range_end: int
    config_hash: str
    generation: int = Field(ge=0)
    attempt: int = Field(gt=0)
    schema_fingerprint: str
    parquet_keys: list[str]
    files: list[ManifestFile]
    rows: int = Field(ge=0)
    content_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    content_digest_version: Literal[2] = CONTENT_DIGEST_VERSION
    verification: dict[str, Any]
    engine: dict[str, str]

    @model_validator(mode="after")
    def _adds_up(self) -> Manifest:
        if self.range_end <= self.range_start:
            raise ValueError("range_end must be greater than range_start")
        if self.parquet_keys != sorted(file.key for file in self.files):
            raise ValueError("parquet_keys must be the sorted keys of files")
        if self.rows != sum(file.rows for file in self.files):
            raise ValueError("rows must be the sum over files")
        return self

    @property
    def boundary(self) -> tuple[bytes, bytes] | None:
        """Return (parent hash of the first block, hash of the last block), or None if the verification lacks them.

        Raises Corrupt if one of them is not a 32-byte hash.
        """
        boundary = self.verification.get("boundary") or {}
        first, last = boundary.get("first_parent_hash"), boundary.get("last_block_hash")
        return (_hash(first), _hash(last)) if first and last else None

    def encode(self) -> bytes:
        """Return the canonical bytes. The registry stores their SHA-256."""
        return canonical_json(self.model_dump(mode="json")).encode()


def decode(data: bytes, *, sha256: str | None = None) -> Manifest:
    """Decode a manifest read from the object store.

    Raises Corrupt if its SHA-256 is not ``sha256``, or if it is not a valid manifest, and OldForm if it has version 1.
    """
    if sha256 is not None and sha256_hex(data) != sha256:
        raise Corrupt("a manifest on the object store is not the one that was committed", expected=sha256)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        if _version(data) == 1:
            raise OldForm(
                "a manifest on the object store has the old form of the lake, which this version does not read: run"
                " `trace-lite apply --rebuild --file F` with the file of its job"
            ) from None
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Corrupt("a manifest on the object store cannot be read", key=where, reason=first["msg"]) from None


def _version(data: bytes) -> object:
    """Return what a JSON object states as its version, or None."""
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found.get("version") if isinstance(found, dict) else None


def _hash(text: object) -> bytes:
    try:
        found = bytes.fromhex(str(text).removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise Corrupt("a manifest's boundary is not a block hash", got=str(text)[:80])
    return found


def schema_fingerprint(schema: pa.Schema) -> str:
    """Return the SHA-256 over column names and types, in order, as hex."""
    return sha256_hex(canonical_json(schema_pairs(schema)).encode())


def schema_pairs(schema: pa.Schema) -> list[list[str]]:
    """Return the schema as ``[[name, type], ...]``, the form in which the registry stores it."""
    return [[field.name, str(field.type)] for field in schema]
