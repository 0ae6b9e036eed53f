"""Reads the objects that hold some versions, each once, and checks the rows of each version in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from trace_dagster.errors import Corrupt, TraceError, VerificationFailed
from trace_dagster.identity import sha256_hex
from trace_dagster.maintenance.rows_check import VerifiedRows, VersionEvidence, prove
from trace_dagster.manifest import decode
from trace_dagster.registry.versions import FileLayout, StoredFile, StoredVersion
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.scan import READ_ERRORS, RowsInOrder, block_outside

EvidenceOf = Callable[[Sequence[StoredVersion]], Sequence[VersionEvidence]]
"""Returns the evidence of each of some versions of one dataset. They come together so that evidence which lies in the
same files is read once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between the stored data and the commit in the registry."""

    dataset_key: str
    range_start: int
    range_end: int
    kind: str
    """One of hole, overlap, missing_object, altered_object, bad_manifest, bad_rows, broken_chain, bad_index."""
    reason: str
    dataset_version: str | None = None
    """The version that must be fetched again; None for a hole or an index."""
    layout_id: str | None = None
    """The layout whose hash index must be forgotten."""

    def __str__(self) -> str:
        return f"{self.dataset_key} [{self.range_start}, {self.range_end}): {self.kind}: {self.reason}"


Outcome = VerifiedRows | Finding | str
"""What came of a version: what is proven, the difference found, or the reason why it could not be checked."""


@dataclass(slots=True)
class CheckedFiles:
    """What came of some versions that lie in the same files, and what was read for it."""

    outcomes: list[tuple[StoredVersion, Outcome]] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0


class _Damaged(Exception):
    """An object is not the committed one."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def check_files(
    versions: Sequence[StoredVersion],
    store: ObjectStore,
    evidence_of: EvidenceOf,
    endpoints: Mapping[str, Sequence[Endpoint]],
) -> CheckedFiles:
    """Check versions that lie in the same files, in block order. A damaged file is a finding for each of them."""
    checked = CheckedFiles()
    found: dict[UUID, Outcome] = {}
    for version in versions:
        with _outcome(found, version):
            _require_manifest(version, store)
    rest = [version for version in versions if version.dataset_version not in found]
    with TemporaryDirectory(prefix="trace-verify-") as folder, _outcome(found, *rest):
        if rest:
            paths = _downloaded(rest[0].files, store, Path(folder), checked)
            _check_rows(rest, paths, evidence_of, endpoints, found)
    checked.outcomes = [(version, found[version.dataset_version]) for version in versions]
    return checked


def finding(version: StoredVersion, kind: str, reason: str) -> Finding:
    """Return a difference that concerns a whole version."""
    span = version.block_range
    return Finding(version.dataset_key, span.start, span.end, kind, reason, str(version.dataset_version))


@contextmanager
def _outcome(found: dict[UUID, Outcome], *versions: StoredVersion) -> Iterator[None]:
    """Turn an error of the block into the outcome of each of these versions that has none yet."""
    try:
        yield
    except (TraceError, _Damaged) as error:
        for version in versions:
            found.setdefault(version.dataset_version, _of_error(version, error))


def _of_error(version: StoredVersion, error: TraceError | _Damaged) -> Outcome:
    if isinstance(error, _Damaged):
        return finding(version, error.kind, str(error))
    if isinstance(error, VerificationFailed | Corrupt):
        return finding(version, "bad_rows", str(error))
    return f"{version.dataset_key} {version.block_range}: {error}"


def _require_manifest(version: StoredVersion, store: ObjectStore) -> None:
    """Raise _Damaged unless a version's manifest is the committed one. The objects that it names may be gone: a layout
    holds their rows then.
    """
    data = store.read(version.manifest_key)
    if data is None:
        raise _Damaged("missing_object", f"{version.manifest_key} is missing")
    try:
        manifest = decode(data, sha256=version.manifest_sha256)
    except Corrupt as error:
        raise _Damaged("bad_manifest", str(error)) from None
    if manifest.content_digest != version.content_digest or manifest.rows != version.rows:
        raise _Damaged("bad_manifest", "the manifest and the registry name other rows")


def _require_layout(layout: FileLayout, store: ObjectStore) -> None:
    data = store.read(layout.manifest_key)
    if data is None:
        raise _Damaged("missing_object", f"{layout.manifest_key} is missing")
    if sha256_hex(data) != layout.manifest_sha256:
        raise _Damaged("bad_manifest", f"{layout.manifest_key} is not what was committed")


def check_index(layout: FileLayout, versions: Sequence[StoredVersion], store: ObjectStore) -> Finding | str | None:
    """Compare the hash index of a layout, which holds these versions, with the committed one.

    Return the difference, the reason why it could not be checked, or None.
    """
    first, last = versions[0], versions[-1]
    try:
        digest = store.sha256(str(layout.index_key))
    except TraceError as error:
        return f"{first.dataset_key}: the hash index {layout.index_key}: {error}"
    if digest == layout.index_sha256:
        return None
    said = "is missing" if digest is None else "is not what was committed"
    reason = f"the hash index {layout.index_key} {said}: queries by hash cannot be answered until it is forgotten"
    span = (first.block_range.start, last.block_range.end)
    return Finding(first.dataset_key, *span, "bad_index", reason, layout_id=str(layout.layout_id))


def _downloaded(files: Sequence[StoredFile], store: ObjectStore, folder: Path, checked: CheckedFiles) -> list[Path]:
    """Copy files into a folder. Raise _Damaged unless each is the committed one and holds nothing else."""
    paths = []
    for number, file in enumerate(files):
        if file.layout is not None:
            _require_layout(file.layout, store)
        path = folder / f"{number}.parquet"
        digest = store.download(file.key, path)
        if digest is None:
            raise _Damaged("missing_object", f"{file.key} is missing")
        checked.objects += 1
        checked.bytes += path.stat().st_size
        if digest != file.sha256:
            raise _Damaged("altered_object", f"{file.key} is not what was committed")
        paths.append(path)
    return paths


def _check_rows(
    versions: Sequence[StoredVersion],
    paths: Sequence[Path],
    evidence_of: EvidenceOf,
    endpoints: Mapping[str, Sequence[Endpoint]],
    found: dict[UUID, Outcome],
) -> None:
    with _readable(), RowsInOrder(paths) as rows:
        _require_columns(versions[0], rows)
        for path, file in zip(paths, versions[0].files, strict=True):
            if (block := block_outside(path, [*file.served, *file.masked])) is not None:
                raise VerificationFailed(f"{file.key} holds rows of a block that no range in it has", block=block)
        for version, evidence in zip(versions, evidence_of(versions), strict=True):
            with _outcome(found, version), _readable():
                nodes = endpoints.get(version.dataset_key, ())
                found[version.dataset_version] = prove(version, rows, evidence, nodes)


def _require_columns(version: StoredVersion, rows: RowsInOrder) -> None:
    if any(not schema.equals(version.schema) for schema in rows.schemas):
        raise VerificationFailed("the columns are not those that were committed")


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except READ_ERRORS as error:
        raise VerificationFailed("a Parquet object cannot be read", reason=type(error).__name__) from None
