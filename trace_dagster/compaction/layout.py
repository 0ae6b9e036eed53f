"""The objects of one layout: files that are written and compared, and the manifest that names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from types import TracebackType
from uuid import UUID

import pyarrow as pa

from trace_dagster.compaction.ahead import ahead
from trace_dagster.compaction.aside import Aside
from trace_dagster.compaction.compare import WrittenRows
from trace_dagster.compaction.hash_index import FILE_NAME as HASHES
from trace_dagster.compaction.hash_index import HashIndexWriter
from trace_dagster.compaction.source import VersionReader
from trace_dagster.compaction.window import Window
from trace_dagster.compaction.writer import LayoutWriter
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.engine.columns import row_order
from trace_dagster.errors import Corrupt, TraceError
from trace_dagster.identity import sha256_hex
from trace_dagster.layout_manifest import LayoutHashIndex, LayoutManifest, LayoutManifestFile, LayoutVersion
from trace_dagster.manifest import FILE_NAME, schema_fingerprint, schema_pairs
from trace_dagster.registry.layouts import HashIndex, LayoutFile, NewLayout, SourceVersion
from trace_dagster.store.objects import ObjectStore

_TABLES_AHEAD = 4


class LayoutFiles:
    """Writes the files of a layout, and compares each while the next one is written. Close it when done."""

    def __init__(self, store: ObjectStore, window: Window, layout_id: UUID) -> None:
        self._store = store
        self._window = window
        self._layout_id = layout_id
        self._folder = window.folder(layout_id)
        self._dataset = dataset(window.dataset_name)
        self._comparison = WrittenRows(store)
        self._hashes = HashIndexWriter()
        self._aside = Aside(self._hashes)
        self._writer = LayoutWriter(store, self._key, window.target_bytes, self._aside, self._comparison.add)
        self._fingerprints: dict[UUID, str] = {}

    def __enter__(self) -> LayoutFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._comparison.close()
        self._aside.close()
        self._hashes.close()

    @property
    def written_bytes(self) -> int:
        """Bytes written so far."""
        return self._writer.written_bytes

    def write(self, grouped: Sequence[Sequence[SourceVersion]]) -> Iterator[int]:
        """Write groups of versions; yield how many versions are written so far."""
        done = 0
        for group in grouped:
            schema = self._schema(group[0])
            self._writer.start_group(schema, row_order(self._dataset))
            current: SourceVersion | None = None
            with closing(ahead(VersionReader(self._store, group, schema).tables(), _TABLES_AHEAD)) as tables:
                for version, table in tables:
                    if version is not current:
                        self._writer.start(version)
                        self._fingerprints[version.dataset_version] = schema_fingerprint(schema)
                        current = version
                        done += 1
                        yield done
                    self._writer.write(table)

    def finish(self) -> NewLayout:
        """Complete the files and their comparison. Raise Corrupt if rows of a version differ."""
        self._writer.finish()
        self._aside.finish()
        index = self._hashes.finish(self._store, self._folder + HASHES)
        self._comparison.finish()
        files = tuple(self._writer.files)
        return NewLayout(self._folder + FILE_NAME, sha256_hex(self._manifest(files, index).encode()), files, index)

    def put_manifest(self, layout: NewLayout) -> None:
        """Create the manifest. No other attempt writes into the folder of this layout."""
        self._store.put_if_absent(layout.manifest_key, self._manifest(layout.files, layout.hash_index).encode())

    def delete(self) -> None:
        """Delete what was written, as far as that is possible now; the sweep deletes the rest."""
        self._writer.abort()
        self._comparison.close()
        with suppress(TraceError):
            self._store.delete([*(file.key for file in self._writer.files), self._folder + HASHES])

    def _key(self, number: int) -> str:
        span = self._window.block_range
        tag = f"l{self._layout_id.hex[:12]}"  # a certificate names files without their folders
        return f"{self._folder}{self._window.dataset_name}_{span.start}_{span.end}-{tag}-p{number}.parquet"

    def _schema(self, version: SourceVersion) -> pa.Schema:
        schema = self._dataset.schema([name for name, _ in version.columns])
        if tuple(map(tuple, schema_pairs(schema))) != version.columns:
            raise Corrupt(
                "a version has columns of another form than this version of trace_dagster stores",
                dataset_version=version.dataset_version,
                range=version.block_range,
            )
        return schema

    def _manifest(self, files: Sequence[LayoutFile], index: HashIndex | None) -> LayoutManifest:
        window = self._window
        named = index and LayoutHashIndex(key=index.key, bytes=index.bytes, sha256=index.sha256, rows=index.rows)
        return LayoutManifest(
            layout_id=self._layout_id,
            dataset_uuid=window.dataset_uuid,
            chain_id=window.chain_id,
            dataset_key=window.dataset_key,
            cryo_dataset_name=window.dataset_name,
            window_start=window.block_range.start,
            window_end=window.block_range.end,
            files=[self._manifest_file(file) for file in files],
            hash_index=named,
        )

    def _manifest_file(self, file: LayoutFile) -> LayoutManifestFile:
        return LayoutManifestFile(
            key=file.key,
            bytes=file.bytes,
            sha256=file.sha256,
            rows=file.rows,
            min_block=file.min_block,
            max_block=file.max_block,
            schema_fingerprint=self._fingerprints[file.versions[0].dataset_version],
            versions=[
                LayoutVersion(
                    dataset_version=version.dataset_version,
                    generation=version.generation,
                    range_start=version.block_range.start,
                    range_end=version.block_range.end,
                    rows=version.rows,
                    content_digest=version.content_digest,
                )
                for version in file.versions
            ],
        )
