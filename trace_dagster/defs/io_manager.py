"""The IO manager: storing an output commits it; loading one reads the files that the registry names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.dataset as ds
from dagster import AssetKey, DagsterEvent, InputContext, IOManager, OutputContext

from trace_dagster.analytics.derived import Derived
from trace_dagster.blocks import BlockRange, merged
from trace_dagster.dagster_instance.event_log import step_end_follows
from trace_dagster.defs.failed_ranges import failure_observation
from trace_dagster.defs.materializations import commit_metadata, materialization
from trace_dagster.defs.streams import asset_key
from trace_dagster.defs.verification_check import verification_evaluation
from trace_dagster.errors import InvalidInput
from trace_dagster.ingest.range_extraction import RangeExtraction
from trace_dagster.registry.catalog import EVERYTHING, LakeFile, VisibleDataset
from trace_dagster.registry.publications import Publication
from trace_dagster.registry.tasks import Lease
from trace_dagster.runtime import Runtime
from trace_dagster.store.scan import inside
from trace_dagster.store.visible_rows import visible_rows


class CommitIOManager(IOManager):
    """Drains the extractions that ``cryo_range`` starts into commits, and loads committed rows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def handle_output(  # type: ignore[override]  # a generator of events, which Dagster takes as well
        self, context: OutputContext, obj: RangeExtraction | Derived | tuple[AssetKey, Publication] | None
    ) -> Iterator[DagsterEvent]:
        """Commit a range's rows and yield the events of its commit: its materialization and its asset check.

        A range that was committed before is only reported. If the commit fails, the reason is an observation of the
        range's partition. For a derived dataset Dagster makes the materialization
        itself, and the commit's metadata is added to it.
        """
        if isinstance(obj, Derived):
            context.add_output_metadata(commit_metadata(self._commit_derived(obj, context.run_id)))
        elif isinstance(obj, RangeExtraction):
            spec = obj.claimed.spec
            key = asset_key(spec.chain_id, spec.dataset_key)
            try:
                published = self._runtime.ingester.commit(obj)
            except Exception as error:
                observed = failure_observation(key, spec, obj.claimed.block_range, error)
                yield DagsterEvent.asset_observation(context.step_context, observed)
                raise
            yield _commit_events(context, key, published, obj.claimed.lease)
        elif obj is not None:
            yield _commit_events(context, *obj)

    def _commit_derived(self, derived: Derived, run_id: str) -> Publication:
        self._runtime.jobs.add_derived(
            derived.dataset_uuid, derived.target.chain_id, derived.template, derived.parameters
        )
        return self._runtime.ingester.commit_derived(
            derived.dataset_uuid, derived.task_id, derived.target, derived.rows, run_id
        )

    def load_input(self, context: InputContext) -> ds.Dataset | pa.Table:
        """Return the committed rows of the upstream asset, for the partitions of the run or for all.

        The result is a lazy ``pyarrow.dataset.Dataset``, or a ``pyarrow.Table`` if the input is annotated with it. Its
        columns are the stream's, its rows are ordered within each range. It has each file once, without masked rows.
        Raises InvalidInput if a partition of the run is not committed, Corrupt if an object is missing or altered.
        """
        files, blocks = self._files(self._dataset_of(context.asset_key), context)
        with self._runtime.committed_objects.reading([file.key for file in files]):
            rows = self._open(files)
            if blocks is not None:  # a file may hold ranges of other partitions as well
                rows = rows.filter(inside(blocks))
            return rows.to_table() if context.dagster_type.typing_type is pa.Table else rows

    def _dataset_of(self, key: AssetKey) -> VisibleDataset:
        chain, name = key.path[0], key.path[-1]
        for found in self._runtime.catalog.datasets():
            if (str(found.chain_id), found.dataset_key) == (chain, name) and found.schema is not None:
                return found
        raise InvalidInput(f"nothing of {key.to_user_string()} is committed yet: materialize it first")

    def _files(self, found: VisibleDataset, context: InputContext) -> tuple[list[LakeFile], list[BlockRange] | None]:
        """Return the files to read, each once, and the blocks of the run's partitions; None if it has none."""
        if not context.has_asset_partitions:
            return self._runtime.catalog.files(found.dataset_uuid, EVERYTHING), None
        files: dict[str, LakeFile] = {}
        asked = [BlockRange.from_key(key) for key in context.asset_partition_keys]
        found_files = self._runtime.catalog.files_of_ranges(found.dataset_uuid, asked)
        for block_range, stored in zip(asked, found_files, strict=True):
            if not stored:
                raise InvalidInput(f"partition {block_range.key} of {found.dataset_key} is not committed yet")
            files.update((file.key, file) for file in stored)
        return list(files.values()), merged(asked)

    def _open(self, files: Sequence[LakeFile]) -> ds.Dataset:
        bucket = self._runtime.settings.s3.bucket
        paths = [(f"{bucket}/{file.key}", file.masked) for file in files]
        return visible_rows(paths, self._runtime.store.filesystem())


def _commit_events(
    context: OutputContext, key: AssetKey, published: Publication, lease: Lease | None = None
) -> DagsterEvent:
    """Log the materialization of a committed range and return its asset check, which ends the step's one output."""
    with step_end_follows():
        context.log_event(materialization(key, published, lease))
        return DagsterEvent.asset_check_evaluation(context.step_context, verification_evaluation(key, published))
