"""The commit protocol: Parquet objects, then the manifest by compare-and-swap, then one fenced transaction.

Readers trust the registry; objects without a commit do not exist. Whoever crashes between two steps
leaves objects that no registry row names, and a task that the next attempt claims.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.digest import ContentDigest
from trace_dagster.errors import Corrupt, LeaseLost, OutcomeUnknown, Unavailable
from trace_dagster.identity import dataset_version, sha256_hex
from trace_dagster.manifest import FILE_NAME, Manifest, ManifestFile, decode, schema_fingerprint, schema_pairs
from trace_dagster.registry.publications import Publication, Publications
from trace_dagster.registry.tasks import Lease
from trace_dagster.store.caps import Caps
from trace_dagster.store.objects import ObjectStore, PreconditionFailed
from trace_dagster.store.parquet import RangeWriter
from trace_dagster.verify.check import LEVELS

_SETTLE_TRIES = 5
_SETTLE_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """Where one range's rows go and under which names."""

    dataset_uuid: UUID
    dataset_key: str
    source: str
    """The Cryo dataset, or the template a derived dataset comes from."""
    chain_id: int
    block_range: BlockRange
    config_hash: str
    schema: pa.Schema
    prefix: str = "cryo"
    whole: bool = False
    """A derived dataset is replaced as a whole, a stream range by range."""

    def version(self, generation: int) -> UUID:
        """The dataset version a commit of this generation registers."""
        return dataset_version(self.dataset_uuid, self.config_hash, self.chain_id, self.block_range, generation)

    def folder(self, version: UUID) -> str:
        """Key prefix of a version's objects, with a trailing slash."""
        span = f"{self.block_range.start}_{self.block_range.end}"
        return f"{self.prefix}/{self.chain_id}/{self.dataset_uuid}/{span}/{version}/"

    def parquet_key(self, lease: Lease, part: int) -> str:
        """Key of one Parquet object: range, task and attempt are in the name."""
        span = f"{self.block_range.start}_{self.block_range.end}"
        suffix = f"-p{part}" if part else ""
        return f"{self.folder(self.version(lease.generation))}{self.source}_{span}-{lease.tag}{suffix}.parquet"


@dataclass(frozen=True, slots=True)
class Rows:
    """What an attempt produced: tables in order, and evidence that is complete once they are drained."""

    tables: Iterable[pa.Table]
    evidence: Callable[[], dict[str, Any]]
    engine: dict[str, str]
    metrics: dict[str, Any] = field(default_factory=dict)


class Committer:
    """Carries one leased attempt from rows to a visible version."""

    def __init__(self, store: ObjectStore, publications: Publications, caps: Caps | None = None) -> None:
        self._store = store
        self._publications = publications
        self._caps = caps or Caps()

    def commit(self, lease: Lease, target: Target, rows: Rows) -> Publication:
        """Write, publish and register. Identical rows already visible are confirmed instead, unless more is proven now.

        Raises LeaseLost (nothing became visible through this attempt), CapExceeded, Unavailable,
        OutcomeUnknown when even the look-up of a lost answer failed, and whatever ``rows`` raises.
        """
        started = time.monotonic()
        files, digest, evidence = self._write(lease, target, rows)
        # generation 0: nothing was ever committed here that these rows could equal
        visible = self._publications.visible(target.dataset_uuid, target.block_range) if lease.generation else None
        same = visible and visible.content_digest == digest and visible.config_hash == target.config_hash
        if visible and same and not _proves_more(evidence, visible.verification) and self._intact(visible):
            self._publications.confirm(lease, visible)
            self._store.delete(file.key for file in files)
            return visible
        manifest = self._manifest(lease, target, rows.engine, files, digest, evidence)
        metrics = {**rows.metrics, "seconds": round(time.monotonic() - started, 3)}
        return self._publish(lease, target, manifest, metrics)

    def _intact(self, visible: Publication) -> bool:
        """Whether the objects behind a version are still what was committed: else the range is written anew."""
        return all(self._store.sha256(key) == digest for key, digest in self._publications.files(visible))

    def _write(self, lease: Lease, target: Target, rows: Rows) -> tuple[list[ManifestFile], str, dict[str, Any]]:
        digest = ContentDigest(target.schema)
        writer = RangeWriter(self._store, target.schema, lambda part: target.parquet_key(lease, part), self._caps)
        try:
            for table in rows.tables:
                digest.update(table)
                writer.write(table)
            evidence = rows.evidence()
            return writer.finish(), digest.hexdigest(), evidence
        except BaseException:
            writer.abort()
            raise

    def _publish(self, lease: Lease, target: Target, manifest: Manifest, metrics: dict[str, Any]) -> Publication:
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
                whole=target.whole,
            )
        except OutcomeUnknown:
            self._settle(lease)
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
        """Create, or replace what a LOWER attempt left; a higher one's manifest means our lease is gone.

        Unless it is not: then a registry that is no more wrote it into this bucket, and nobody else can
        hold this range now.
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
            raise LeaseLost("another attempt wrote this range's manifest meanwhile", attempt=manifest.attempt) from None

    def _settle(self, lease: Lease) -> None:
        """Look a lost answer up by attempt, until it is known."""
        for _ in range(_SETTLE_TRIES):
            try:
                if self._publications.landed(lease):
                    return
                break
            except Unavailable:
                time.sleep(_SETTLE_PAUSE_SECONDS)
        raise OutcomeUnknown("the commit did not land or its answer is still unknown", task_id=lease.task_id)

    @staticmethod
    def _manifest(
        lease: Lease,
        target: Target,
        engine: dict[str, str],
        files: list[ManifestFile],
        digest: str,
        evidence: dict[str, Any],
    ) -> Manifest:
        return Manifest(
            dataset_uuid=target.dataset_uuid,
            dataset_version=target.version(lease.generation),
            chain_id=target.chain_id,
            dataset_key=target.dataset_key,
            cryo_dataset_name=target.source,
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
            verification=evidence,
            engine=engine,
        )


def _proves_more(fresh: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether the same rows are worth a new version: proven to a higher level, or found on another fork."""
    levels = [LEVELS.index(str(each.get("level"))) if each.get("level") in LEVELS else 0 for each in (fresh, known)]
    return levels[0] > levels[1] or bool(fresh.get("boundary") and fresh["boundary"] != known.get("boundary"))


def _is_lower(found: bytes, manifest: Manifest) -> bool:
    """Whether an earlier attempt of ours wrote the manifest that is there."""
    try:
        return decode(found).attempt < manifest.attempt
    except Corrupt:
        return False
