"""The commit protocol: Parquet objects, then the manifest by compare-and-swap, then one fenced transaction.

Readers trust the registry: objects without a commit do not exist. A crash between two steps leaves objects that no
registry row names, and a task that the next attempt claims.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.digest import ContentDigest
from trace_dagster.engine.columns import row_order
from trace_dagster.errors import Corrupt, LeaseLost, OldForm, OutcomeUnknown, Unavailable, VerificationFailed
from trace_dagster.identity import dataset_version, sha256_hex
from trace_dagster.ingest.time_span import TimeSpan
from trace_dagster.manifest import FILE_NAME, Manifest, ManifestFile, decode, schema_fingerprint, schema_pairs
from trace_dagster.registry.publications import Publication, Publications
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.registry.tasks import Lease
from trace_dagster.store.caps import Caps
from trace_dagster.store.causes import PreconditionFailed
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.parquet import RangeWriter
from trace_dagster.store.scan import READ_ERRORS, RowsInOrder
from trace_dagster.verify.check import LEVELS, PIECE_BLOCKS

_LOOK_UP_TRIES = 5
_LOOK_UP_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class CommitTarget:
    """The dataset and range that rows are committed to, and the object keys that follow from them."""

    dataset_uuid: UUID
    dataset_key: str
    dataset_name: str
    """Name of Cryo's dataset, or of the template of a derived dataset."""
    chain_id: int
    block_range: BlockRange
    config_hash: str
    schema: pa.Schema
    order: tuple[str, ...] = ()
    """The columns that the rows are sorted by."""
    prefix: str = "cryo"
    whole: bool = False
    """True for a derived dataset, which is replaced as a whole; a stream is replaced range by range."""

    @classmethod
    def of_stream(cls, spec: StreamSpec, block_range: BlockRange) -> CommitTarget:
        """Return the target of one range of a stream."""
        return cls(
            dataset_uuid=spec.dataset_uuid,
            dataset_key=spec.dataset_key,
            dataset_name=spec.dataset.name,
            chain_id=spec.chain_id,
            block_range=block_range,
            config_hash=spec.config_hash,
            schema=spec.dataset.schema(spec.columns),
            order=row_order(spec.dataset),
        )

    def version(self, generation: int) -> UUID:
        """Return the dataset version that a commit of this generation registers."""
        return dataset_version(self.dataset_uuid, self.config_hash, self.chain_id, self.block_range, generation)

    def folder(self, version: UUID) -> str:
        """Return the key prefix of a version's objects, with a trailing slash."""
        span = f"{self.block_range.start}_{self.block_range.end}"
        return f"{self.prefix}/{self.chain_id}/{self.dataset_uuid}/{span}/{version}/"

    def parquet_key(self, lease: Lease, part: int) -> str:
        """Return the key of one Parquet object. Range, task and attempt are in its name."""
        span = f"{self.block_range.start}_{self.block_range.end}"
        suffix = f"-p{part}" if part else ""
        return f"{self.folder(self.version(lease.generation))}{self.dataset_name}_{span}-{lease.tag}{suffix}.parquet"


@dataclass(frozen=True, slots=True)
class RangeRows:
    """Stream of one attempt's rows, with the verification, engine and metrics that the commit records."""

    tables: Iterable[pa.Table]
    """In block order, with the target's schema."""
    verification: Callable[[], dict[str, Any]]
    """Returns the manifest's ``verification`` object; called after the last table."""
    engine: dict[str, str]
    """Name and version of the engine that made the rows."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Numbers for the registry and the Dagster UI; complete after the last table."""


class Committer:
    """Writes one attempt's rows to the object store and registers them as a visible version, under its lease."""

    def __init__(self, store: ObjectStore, publications: Publications, caps: Caps | None = None) -> None:
        self._store = store
        self._publications = publications
        self._caps = caps or Caps()

    def commit(self, lease: Lease, target: CommitTarget, rows: RangeRows) -> Publication:
        """Write Parquet and manifest, and register the version.

        If the same rows are visible already, that version is confirmed and the new objects are deleted, unless this
        attempt proved more. Raises LeaseLost (this attempt made nothing visible), CapExceeded, Unavailable,
        OutcomeUnknown when the look-up of a lost answer failed as well, and what ``rows`` raises.
        """
        started = time.monotonic()
        files, etags, digest, times, verification = self._write(lease, target, rows)
        # in generation 0 nothing was committed before that these rows could equal
        visible = self._publications.visible(target.dataset_uuid, target.block_range) if lease.generation else None
        same = visible and visible.content_digest == digest and visible.config_hash == target.config_hash
        if (
            visible
            and same
            and not _proves_more(verification, visible.verification)
            and self._intact(visible, target.schema)
        ):
            self._publications.confirm(lease, visible)
            self._store.delete(file.key for file in files)
            return visible
        manifest = self._manifest(lease, target, rows.engine, files, digest, verification)
        metrics = {**rows.metrics, "seconds": round(time.monotonic() - started, 3)}
        return self._publish(lease, target, manifest, metrics, etags, times)

    def _intact(self, visible: Publication, schema: pa.Schema) -> bool:
        """Return whether the objects of a version still hold its rows; if not, the range is written again."""
        files = self._publications.files(visible)
        if any(file.in_layout for file in files):
            return self._same_rows(visible, [file.key for file in files], schema)
        return all(self._store.sha256(file.key) == file.sha256 for file in files)

    def _same_rows(self, visible: Publication, keys: Sequence[str], schema: pa.Schema) -> bool:
        """Return whether a layout's file still gives a version's rows.

        Only the row groups with its blocks are read, because the file is as large as many ranges. Their digest says
        more about this range than the file's ETag does. Raises Unavailable if the object store does not answer.
        """
        paths = [f"{self._store.access.bucket}/{key}" for key in keys]
        digest = ContentDigest(schema)
        try:
            with RowsInOrder(paths, filesystem=self._store.filesystem()) as rows:
                if any(not found.equals(schema) for found in rows.schemas):
                    return False
                for piece in visible.block_range.split(PIECE_BLOCKS):
                    digest.update(rows.take(piece))
        except READ_ERRORS:
            for key in keys:
                self._store.stored_now(key)  # raises if the server is the cause
            return False
        except VerificationFailed:
            return False
        return digest.hexdigest() == visible.content_digest

    def _write(
        self, lease: Lease, target: CommitTarget, rows: RangeRows
    ) -> tuple[list[ManifestFile], Mapping[str, str | None], str, TimeSpan, dict[str, Any]]:
        digest = ContentDigest(target.schema)
        times = TimeSpan()
        writer = RangeWriter(
            self._store, target.schema, lambda part: target.parquet_key(lease, part), self._caps, target.order
        )
        try:
            for table in rows.tables:
                digest.update(table)
                times.add(table)
                writer.write(table)
            verification = rows.verification()
            return writer.finish(), writer.etags, digest.hexdigest(), times, verification
        except BaseException:
            writer.abort()
            raise

    def _publish(
        self,
        lease: Lease,
        target: CommitTarget,
        manifest: Manifest,
        metrics: dict[str, Any],
        etags: Mapping[str, str | None],
        times: TimeSpan,
    ) -> Publication:
        folder = target.folder(manifest.dataset_version)
        data = manifest.encode()
        self._put_manifest(folder + FILE_NAME, data, manifest, lease)
        try:
            self._publications.commit(
                lease,
                manifest,
                storage_ref=self._store.access.uri(folder),
                manifest_key=folder + FILE_NAME,
                manifest_sha256=sha256_hex(data),
                schema=schema_pairs(target.schema),
                metrics=metrics,
                etags=etags,
                times=times.found,
                whole=target.whole,
            )
        except OutcomeUnknown:
            self._look_up_outcome(lease)
        return Publication(
            dataset_uuid=target.dataset_uuid,
            dataset_version=manifest.dataset_version,
            storage_ref=self._store.access.uri(folder),
            config_hash=target.config_hash,
            block_range=target.block_range,
            generation=manifest.generation,
            rows=manifest.rows,
            bytes=sum(file.bytes for file in manifest.files),
            content_digest=manifest.content_digest,
            verification=manifest.verification,
            metrics=metrics,
            manifest_key=folder + FILE_NAME,
            created=True,
        )

    def _put_manifest(self, key: str, data: bytes, manifest: Manifest, lease: Lease) -> None:
        """Create the manifest, or replace one of a lower attempt. Do nothing if an identical one exists.

        If the existing manifest is not of a lower attempt, check the lease in the registry. If this attempt still holds
        it, an earlier registry over the same bucket wrote that manifest: replace it. Otherwise raise LeaseLost.
        """
        try:
            self._store.put_if_absent(key, data)
            return
        except PreconditionFailed:
            found, etag = self._store.get(key)
        if found == data:
            return
        if not _is_lower(found, manifest) and not self._publications.holds(lease):
            raise LeaseLost("a later attempt already wrote this range's manifest", attempt=manifest.attempt)
        try:
            self._store.replace(key, data, etag)
        except PreconditionFailed:
            raise LeaseLost(
                "another attempt wrote this range's manifest at the same time", attempt=manifest.attempt
            ) from None

    def _look_up_outcome(self, lease: Lease) -> None:
        """Look up by attempt whether a commit took effect whose answer was lost."""
        for _ in range(_LOOK_UP_TRIES):
            try:
                if self._publications.took_effect(lease):
                    return
                break
            except Unavailable:
                time.sleep(_LOOK_UP_PAUSE_SECONDS)
        raise OutcomeUnknown("the commit did not land or its answer is still unknown", task_id=lease.task_id)

    @staticmethod
    def _manifest(
        lease: Lease,
        target: CommitTarget,
        engine: dict[str, str],
        files: list[ManifestFile],
        digest: str,
        verification: dict[str, Any],
    ) -> Manifest:
        return Manifest(
            dataset_uuid=target.dataset_uuid,
            dataset_version=target.version(lease.generation),
            chain_id=target.chain_id,
            dataset_key=target.dataset_key,
            cryo_dataset_name=target.dataset_name,
            range_start=target.block_range.start,
            range_end=target.block_range.end,
            config_hash=target.config_hash,
            generation=lease.generation,
            attempt=lease.attempt,
            schema_fingerprint=schema_fingerprint(target.schema),
            parquet_keys=sorted(file.key for file in files),
            files=files,
            rows=sum(file.rows for file in files),
            content_digest=digest,
            verification=verification,
            engine=engine,
        )


def _proves_more(fresh: dict[str, Any], known: dict[str, Any]) -> bool:
    """Return whether equal rows need a new version: they are proven to a higher level, or lie on another fork."""
    is_more = _blocks_below(fresh) < _blocks_below(known)
    return is_more or bool(fresh.get("boundary") and fresh["boundary"] != known.get("boundary"))


def _blocks_below(verification: dict[str, Any]) -> tuple[int, ...]:
    """Return the number of blocks at each level below ``full``, from the lowest on: the smaller, the more is proven."""
    levels = verification.get("levels") or {verification.get("level"): verification.get("blocks") or 1}
    return tuple(int(levels.get(level) or 0) for level in LEVELS[:-1])


def _is_lower(found: bytes, manifest: Manifest) -> bool:
    """Return whether a lower attempt wrote the manifest that was found."""
    try:
        return decode(found).attempt < manifest.attempt
    except (Corrupt, OldForm):
        return False
