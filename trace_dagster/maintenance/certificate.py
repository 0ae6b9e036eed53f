"""A completeness statement about a job, version 2. ``certificate_check.py`` compares it with the Parquet files.

Leaves are SHA-256 over 0x00 and a range's canonical JSON, inner nodes are SHA-256 over 0x01 and both children (RFC
6962). A range names its files by SHA-256, so it can be shown to be part of a statement with its leaf and its files
alone, without the other ranges and without the statement's list of files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import chain_of
from trace_dagster.datasets.levels import reasons_line
from trace_dagster.errors import InvalidInput
from trace_dagster.identity import CONTENT_DIGEST_VERSION, canonical_json, sha256_hex
from trace_dagster.maintenance.stored_times import has_times

_HEX = r"^[0-9a-f]{64}$"
_HASH = r"^0x[0-9a-f]{64}$"
_KIND: Final = "trace_dagster.maintenance.certificate"
_MOST_BLOCKS = 1_000_000
"""The largest possible chunk_size; a statement with a larger range is not valid."""


class _CertificatePart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CertifiedFile(_CertificatePart):
    """One Parquet file. It may hold rows of several ranges, and of blocks that the statement does not cover."""

    name: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern=_HEX)
    rows: int = Field(ge=0)


class CertifiedLowered(_CertificatePart):
    """Consecutive blocks whose rows were committed below the level of their dataset, and why."""

    first_block: int = Field(ge=0)
    blocks: int = Field(gt=0)
    level: str
    reason: str


class CertifiedRange(_CertificatePart):
    """One committed range: digests of its manifest and rows, and the hashes that link it to its neighbours."""

    dataset_key: str
    cryo_dataset_name: str
    range_start: int = Field(ge=0)
    range_end: int
    dataset_version: str
    manifest_sha256: str = Field(pattern=_HEX)
    content_digest: str = Field(pattern=_HEX)
    rows: int = Field(ge=0)
    columns: list[tuple[str, str]]
    level: str
    """The lowest level of the range's blocks."""
    unproven: list[str]
    lowered: list[CertifiedLowered] = []
    """Left out of the statement if it is empty."""
    first_parent_hash: str | None = Field(default=None, pattern=_HASH)
    last_block_hash: str | None = Field(default=None, pattern=_HASH)
    files: list[str]
    """SHA-256 of each file that holds its rows, in the order of its rows."""

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = serialize(self)
        if not self.lowered:
            del found["lowered"]
        return found

    @model_validator(mode="after")
    def _can_be(self) -> CertifiedRange:
        if not 0 < self.range_end - self.range_start <= _MOST_BLOCKS:
            raise ValueError("range_end must lie after range_start, by a chunk_size at the most")
        try:
            known = dataset(self.cryo_dataset_name).storable_columns
        except InvalidInput as error:
            raise ValueError(error.message) from None
        if unknown := [name for name, _ in self.columns if name not in known]:
            raise ValueError(f"the dataset has no column {unknown[0][:80]}")
        return self

    @property
    def span(self) -> BlockRange:
        """The range's blocks."""
        return BlockRange(self.range_start, self.range_end)


class Certificate(_CertificatePart):
    """The statement. ``digest`` covers all other fields."""

    kind: Literal["trace_dagster.maintenance.certificate"] = _KIND
    version: Literal[2] = 2
    content_digest_version: Literal[2] = CONTENT_DIGEST_VERSION
    job: str
    chain_id: int
    wanted: dict[str, tuple[int, int]]
    """For each dataset key the blocks that must be committed, end-exclusive."""
    files: list[CertifiedFile]
    """Each file once, with another SHA-256."""
    ranges: list[CertifiedRange]
    merkle_root: str = Field(pattern=_HEX)
    digest: str = Field(pattern=_HEX)

    @model_validator(mode="after")
    def _files_are_those_of_ranges(self) -> Certificate:
        listed = [file.sha256 for file in self.files]
        if len(set(listed)) < len(listed):
            raise ValueError("a file is listed twice")
        if set(listed) != {file for each in self.ranges for file in each.files}:
            raise ValueError("the files are not those that the ranges name")
        return self

    @property
    def spans(self) -> dict[str, BlockRange]:
        """The wanted blocks as ranges."""
        return {key: BlockRange(*span) for key, span in self.wanted.items()}


def certificate(
    job: str,
    chain_id: int,
    wanted: dict[str, BlockRange],
    ranges: Sequence[CertifiedRange],
    files: Sequence[CertifiedFile],
) -> Certificate:
    """Make a statement about the committed ranges. Raises InvalidInput if a wanted block is in no range.

    ``files`` are those of the ranges. Of files with equal bytes the statement lists one.
    """
    if not wanted:
        raise InvalidInput(f"job {job} wants none of these blocks: there is nothing to state")
    for key, gap in gaps(wanted, ranges):
        raise InvalidInput(f"{key} is not complete: {gap} is not committed; `trace-lite status --job {job}` says why")
    content = {
        "job": job,
        "chain_id": chain_id,
        "wanted": {key: (span.start, span.end) for key, span in wanted.items()},
        "files": list({file.sha256: file for file in files}.values()),
        "ranges": list(ranges),
        "merkle_root": merkle_root(ranges),
    }
    unsigned = Certificate(**content, digest="0" * 64)
    return Certificate(**content, digest=_digest(unsigned))


def merkle_root(ranges: Sequence[CertifiedRange]) -> str:
    """Return the Merkle root over the ranges in the given order, in hex."""
    level = [
        hashlib.sha256(b"\x00" + canonical_json(each.model_dump(mode="json")).encode()).digest() for each in ranges
    ]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        joined = [hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
        level = joined + level[len(joined) * 2 :]
    return level[0].hex()


def read(path: Path) -> Certificate:
    """Read a statement from a file. Raises InvalidInput if it is not a statement or was changed after it was made."""
    try:
        data = path.read_bytes()
        _require_version(path, data)
        found = Certificate.model_validate_json(data)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidInput(
            f"{path} is no certificate", key=".".join(map(str, first["loc"])), reason=first["msg"]
        ) from None
    if found.digest != _digest(found) or found.merkle_root != merkle_root(found.ranges):
        raise InvalidInput(f"{path} was changed after it was made: its digest or Merkle root does not come out")
    return found


def _require_version(path: Path, data: bytes) -> None:
    """Raise InvalidInput if this is a statement of version 1, about rows in the form of earlier versions."""
    stated: Any = None
    with suppress(ValueError, RecursionError):
        stated = json.loads(data)
    if isinstance(stated, dict) and (stated.get("kind"), stated.get("version")) == (_KIND, 1):
        raise InvalidInput(
            f"{path} is a certificate of version 1, about a lake in the form of earlier versions of trace_dagster:"
            " check it with the version that made it, or make a new one of the rebuilt lake with"
            f" `trace-lite certify --job {str(stated.get('job'))[:64]}`"
        )


def unanchored(statement: Certificate, trusted: tuple[int, bytes]) -> int:
    """Return how many blocks of the statement come after the trusted block, so that its hash does not depend on
    them.
    """
    ends = [each.range_end for each in statement.ranges if each.cryo_dataset_name == "blocks"]
    return max(0, max(ends, default=0) - trusted[0] - 1)


def limits(statement: Certificate) -> Iterator[str]:
    """Yield what the statement does not prove about its rows, because of the forms of its chain."""
    lowered = [each for found in statement.ranges for each in found.lowered]
    for level in sorted({each.level for each in lowered}):
        some = [each for each in lowered if each.level == level]
        reasons = reasons_line([each.reason for each in some])
        yield f"{sum(each.blocks for each in some):,} blocks' rows were committed as {level} only: {reasons}"
    byzantium = chain_of(statement.chain_id).fork("byzantium")
    if any(each.cryo_dataset_name == "logs" and each.range_start < byzantium for each in statement.ranges):
        yield (
            f"before block {byzantium:,} (Byzantium) a receipts root covers a state root that no column holds: these"
            " logs were proven when they were committed, but no receipts root can be computed from the rows"
        )
    yield from _without_blocks(statement)


def _without_blocks(statement: Certificate) -> Iterator[str]:
    """Yield a sentence for each dataset whose times cannot be compared with blocks of the statement."""
    blocks = [each.span for each in statement.ranges if each.cryo_dataset_name == "blocks"]
    for key, span in statement.spans.items():
        mine = (each for each in statement.ranges if each.dataset_key == key)
        open_blocks = sum(map(len, holes(span, blocks)))
        if open_blocks and any(has_times(each.cryo_dataset_name, each.columns) for each in mine):
            yield f"block_timestamp of {open_blocks:,} blocks in {key} is unproven: no `blocks` are stated for them"


def _digest(statement: Certificate) -> str:
    content = statement.model_dump(mode="json", exclude={"digest"})
    return sha256_hex(canonical_json(content).encode())


def gaps(wanted: dict[str, BlockRange], ranges: Sequence[CertifiedRange]) -> Iterator[tuple[str, BlockRange]]:
    """Yield the wanted blocks that no range has, by dataset key."""
    for key, span in wanted.items():
        for gap in holes(span, (each.span for each in ranges if each.dataset_key == key)):
            yield key, gap
