"""A completeness statement about a job, and its check by a person who has only the statement and the Parquet files.

Leaves are SHA-256 over 0x00 and a range's canonical JSON, inner nodes are SHA-256 over 0x01 and both children (RFC
6962). Therefore it can be shown without the other ranges that a range is part of a statement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.dataset as ds
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
from trace_dagster.digest import ContentDigest
from trace_dagster.errors import InvalidInput, TraceError, VerificationFailed
from trace_dagster.identity import canonical_json, sha256_hex
from trace_dagster.store.scan import READ_ERRORS, rows_of
from trace_dagster.verify.check import PIECE_BLOCKS, Proof, check, merge
from trace_dagster.verify.commitments.receipts import has_status
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.arrow import HEADER_COLUMNS, RECEIPT_COLUMNS, headers_of, receipts_of_tables

_HEX = r"^[0-9a-f]{64}$"
_HASH = r"^0x[0-9a-f]{64}$"
_MOST_BLOCKS = 1_000_000
"""The largest possible chunk_size; a statement with a larger range is not valid."""

_ROOT_COLUMNS = {
    "blocks": HEADER_COLUMNS,
    "transactions": RECEIPT_COLUMNS,
    "logs": (
        "block_number", "block_hash", "transaction_index", "log_index", "transaction_hash", "address", "topic0",
        "topic1", "topic2", "topic3", "data",
    ),
}  # fmt: skip
"""Columns of each dataset that are needed to compute a receipts root."""


_Place = tuple[str, int]
"""Dataset key and first block, which identify a range because ranges of a dataset do not overlap."""


class _CertificatePart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CertifiedFile(_CertificatePart):
    """One Parquet object; its name contains range, task and attempt."""

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
    """Left out of the statement if it is empty, as in statements of earlier versions, whose digests stay valid."""
    first_parent_hash: str | None = Field(default=None, pattern=_HASH)
    last_block_hash: str | None = Field(default=None, pattern=_HASH)
    files: list[CertifiedFile]

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
            known = dataset(self.cryo_dataset_name).all_columns
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

    kind: Literal["trace_dagster.maintenance.certificate"] = "trace_dagster.maintenance.certificate"
    version: Literal[1] = 1
    job: str
    chain_id: int
    wanted: dict[str, tuple[int, int]]
    """For each dataset key the blocks that must be committed, end-exclusive."""
    ranges: list[CertifiedRange]
    merkle_root: str = Field(pattern=_HEX)
    digest: str = Field(pattern=_HEX)


def certificate(
    job: str, chain_id: int, wanted: dict[str, BlockRange], ranges: Sequence[CertifiedRange]
) -> Certificate:
    """Make a statement about the committed ranges. Raises InvalidInput if a wanted block is in no range."""
    if not wanted:
        raise InvalidInput(f"job {job} wants none of these blocks: there is nothing to state")
    for key, gap in _gaps(wanted, ranges):
        raise InvalidInput(f"{key} is not complete: {gap} is not committed; `trace-lite status --job {job}` says why")
    content = {
        "job": job,
        "chain_id": chain_id,
        "wanted": {key: (span.start, span.end) for key, span in wanted.items()},
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
        found = Certificate.model_validate_json(path.read_bytes())
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


def check_files(
    statement: Certificate,
    folder: Path,
    trusted: tuple[int, bytes] | None,
    done: Callable[[], None] = lambda: None,
) -> tuple[list[str], dict[str, int]]:
    """Compare a certificate's statement with the Parquet files in ``folder``.

    Return the differences, and for each kind of check the number of blocks that it covered.

    ``trusted`` is a block number and its hash from a source that the caller trusts.
    """
    wrong = [f"{key}: no range covers {gap}" for key, gap in _gaps(_wanted(statement), statement.ranges)]
    wrong += [
        f"{each.dataset_key} {each.span}: another range covers some of its blocks" for each in _doubled(statement)
    ]
    wrong += _boundaries(statement)
    if not statement.wanted or not statement.ranges:
        wrong.append("the statement states nothing")
    paths = {path.name: path for path in sorted(folder.rglob("*.parquet"))}
    checked = {"rows": 0, "receipts roots": 0}
    trusted_seen = trusted is None
    opened: dict[_Place, ds.Dataset] = {}
    for each in statement.ranges:
        try:
            rows = opened[_place(each)] = _open(each, paths)
            _check_rows(each, rows, statement.chain_id)
            checked["rows"] += len(each.span)
            if each.cryo_dataset_name == "blocks" and trusted is not None and trusted[0] in each.span:
                _check_trusted(rows, *trusted)
                trusted_seen = True
        except TraceError as error:
            wrong.append(f"{each.dataset_key} {each.span}: {error}")
        done()
    if not trusted_seen:
        wrong.append("the trusted block is in no range of blocks")
    if not wrong:
        wrong, checked["receipts roots"] = _check_roots(statement, opened)
    return wrong, checked


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


def _place(each: CertifiedRange) -> _Place:
    return each.dataset_key, each.range_start


def _digest(statement: Certificate) -> str:
    content = statement.model_dump(mode="json", exclude={"digest"})
    return sha256_hex(canonical_json(content).encode())


def _wanted(statement: Certificate) -> dict[str, BlockRange]:
    return {key: BlockRange(*span) for key, span in statement.wanted.items()}


def _gaps(wanted: dict[str, BlockRange], ranges: Sequence[CertifiedRange]) -> Iterator[tuple[str, BlockRange]]:
    for key, span in wanted.items():
        for gap in holes(span, (each.span for each in ranges if each.dataset_key == key)):
            yield key, gap


def _doubled(statement: Certificate) -> Iterator[CertifiedRange]:
    ordered = sorted(statement.ranges, key=lambda each: (each.dataset_key, each.range_start))
    for before, after in pairwise(ordered):
        if before.dataset_key == after.dataset_key and after.range_start < before.range_end:
            yield after


def _boundaries(statement: Certificate) -> list[str]:
    """Return an error for each block for which two datasets store different hashes."""
    shown: dict[int, str] = {}
    wrong = []
    for each in statement.ranges:
        for block, found in (
            (each.range_start - 1, each.first_parent_hash),
            (each.range_end - 1, each.last_block_hash),
        ):
            if found is not None and shown.setdefault(block, found) != found:
                wrong.append(
                    f"{each.dataset_key} {each.span}: block {block} is {found} here and {shown[block]} elsewhere"
                )
    return wrong


def _open(each: CertifiedRange, paths: dict[str, Path]) -> ds.Dataset:
    found = []
    for file in each.files:
        path = paths.get(file.name)
        if path is None:
            raise VerificationFailed("a file is missing", file=file.name)
        with path.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                raise VerificationFailed("a file is not the certified one", file=file.name)
        found.append(str(path))
    schema = dataset(each.cryo_dataset_name).schema([name for name, _ in each.columns])
    return ds.dataset(found, format="parquet", schema=schema)


def _rows(opened: ds.Dataset, piece: BlockRange) -> pa.Table:
    try:
        return rows_of(opened, piece)
    except READ_ERRORS as error:
        raise VerificationFailed("a file cannot be read", reason=type(error).__name__) from None


def _check_rows(each: CertifiedRange, opened: ds.Dataset, chain_id: int) -> None:
    known = dataset(each.cryo_dataset_name)
    digest = ContentDigest(opened.schema)
    proofs: list[Proof] = []
    for piece in each.span.split(PIECE_BLOCKS):
        table = _rows(opened, piece)
        digest.update(table)
        proofs.append(check(known, table, piece, chain_id, None))
    if digest.hexdigest() != each.content_digest:
        raise VerificationFailed("the rows are not the certified ones")
    proof = merge(proofs)
    if each.cryo_dataset_name == "blocks" and each.last_block_hash is not None:
        found = [
            None if value is None else f"0x{value.hex()}" for value in (proof.first_parent_hash, proof.last_block_hash)
        ]
        if found != [each.first_parent_hash, each.last_block_hash]:
            raise VerificationFailed(
                "the rows' boundary hashes are not the certified ones", expected=each.last_block_hash
            )


def _check_trusted(opened: ds.Dataset, block: int, wanted: bytes) -> None:
    rows = _rows(opened, BlockRange(block, block + 1))
    found = rows["block_hash"][0].as_py() if rows.num_rows else b""
    if found != wanted:
        raise VerificationFailed(
            "the trusted block has another hash in the rows",
            block=block,
            expected=f"0x{wanted.hex()}",
            got=f"0x{found.hex()}",
        )


def _check_roots(statement: Certificate, opened: dict[_Place, ds.Dataset]) -> tuple[list[str], int]:
    """Check receipts roots and blooms if blocks, transactions and logs of the same blocks have the columns for it."""
    lake = _Lake(statement, opened)
    wrong, count = [], 0
    for each in lake.of("logs"):
        for piece in each.span.split(PIECE_BLOCKS):
            try:
                count += len(piece) if lake.proves(each, piece) else 0
            except TraceError as error:
                wrong.append(f"{each.dataset_key} {piece}: {error}")
    return wrong, count


class _Lake:
    """The certified ranges by dataset, with their files open and checked."""

    def __init__(self, statement: Certificate, opened: dict[_Place, ds.Dataset]) -> None:
        self._statement = statement
        self._opened = opened

    def of(self, name: str) -> list[CertifiedRange]:
        """Return the ranges of a dataset that have every column that a receipts root needs."""
        needed = set(_ROOT_COLUMNS[name])
        return [
            each
            for each in self._statement.ranges
            if each.cryo_dataset_name == name and needed <= {column for column, _ in each.columns}
        ]

    def proves(self, logs: CertifiedRange, piece: BlockRange) -> bool:
        """Compute the receipts root of each block from the certified rows and compare it with the block's header.

        Return False without comparing if the certificate has no blocks or transactions for the piece, or if the chain
        had no receipt status yet. Raises VerificationFailed if a root differs.
        """
        blocks, transactions = self._rows("blocks", piece), self._rows("transactions", piece)
        if blocks is None or transactions is None or not has_status(self._statement.chain_id, piece):
            return False
        evidence = Evidence(
            headers_of(blocks, piece),
            None,
            receipts_of_tables(transactions, None, piece, chain_of(self._statement.chain_id)),
        )
        check(dataset("logs"), _rows(self._opened[_place(logs)], piece), piece, self._statement.chain_id, evidence)
        return True

    def _rows(self, name: str, piece: BlockRange) -> pa.Table | None:
        touching = [each for each in self.of(name) if each.range_start < piece.end and piece.start < each.range_end]
        if any(holes(piece, (each.span for each in touching))):
            return None
        touching.sort(key=lambda each: each.range_start)
        tables = [_rows(self._opened[_place(each)], piece).select(_ROOT_COLUMNS[name]) for each in touching]
        return pa.concat_tables(tables)
