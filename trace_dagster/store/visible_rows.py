"""The visible rows of Parquet files, some of which hold rows that are not visible any more, as one Arrow dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

from trace_dagster.blocks import BlockRange, merged
from trace_dagster.store.scan import inside

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

VisibleFile = tuple[str, Sequence[BlockRange]]
"""A path, and the blocks whose rows in this file are left out."""


def visible_rows(files: Sequence[VisibleFile], filesystem: fs.FileSystem) -> ds.Dataset:
    """Return a lazy dataset of the files' rows without their masked blocks, in the order of the files.

    A mask is of one file: another file has the visible rows of its blocks. Arrow filters all files of a dataset alike,
    so the row groups with masked rows are left out, or, where they also have visible ones, read and filtered at once.
    """
    if not any(masked for _, masked in files):
        return ds.dataset([path for path, _ in files], format="parquet", filesystem=filesystem)
    children: list[ds.Dataset] = []
    for is_masked, group in groupby(files, key=lambda file: bool(file[1])):
        if is_masked:
            children += [child for path, masked in group for child in _without(path, masked, filesystem)]
        else:
            children.append(ds.dataset([path for path, _ in group], format="parquet", filesystem=filesystem))
    # Arrow 26 counts all rows of a file for a part of it, unless there is a filter
    return ds.dataset(children).filter(ds.field("block_number") >= 0)


def _without(path: str, masked: Sequence[BlockRange], filesystem: fs.FileSystem) -> Iterator[ds.Dataset]:
    """Yield datasets that together have the visible rows of a file, in its order."""
    opened = ds.dataset([path], format="parquet", filesystem=filesystem)
    (fragment,) = opened.get_fragments()
    groups = [(group.id, _visibility(group.statistics or {}, merged(masked))) for group in fragment.row_groups]
    for visibility, run in groupby(groups, key=lambda group: group[1]):
        part = fragment.subset(row_group_ids=[index for index, _ in run])
        if visibility == "all":
            yield ds.FileSystemDataset([part], opened.schema, part.format, filesystem)
        elif visibility == "some":
            yield ds.dataset(_filtered(part, opened.schema, masked))
    yield ds.dataset(opened.schema.empty_table())  # a file without visible rows has a schema


def _filtered(part: ds.Fragment, schema: pa.Schema, masked: Sequence[BlockRange]) -> pa.Table:
    return part.to_table(schema=schema, filter=~inside(masked))


def _visibility(statistics: dict[str, dict[str, int]], masked: Sequence[BlockRange]) -> str:
    """Return whether all, some or none of a row group's rows may be visible. ``masked`` is sorted and merged."""
    known = statistics.get("block_number")
    if known is None:
        return "some"
    touching = [each for each in masked if each.start <= known["max"] and known["min"] < each.end]
    if not touching:
        return "all"
    whole = any(each.start <= known["min"] and known["max"] < each.end for each in touching)
    return "none" if whole else "some"
