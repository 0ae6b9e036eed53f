"""Derived datasets: a template's rows over committed data, which are committed as a whole and replace the
earlier version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from trace_dagster.analytics.derived import Derived
from trace_dagster.analytics.templates import Template, macros
from trace_dagster.blocks import BlockRange, common_ranges, holes, merged
from trace_dagster.errors import InvalidInput
from trace_dagster.identity import DEFAULT_ORG, canonical_json, derived_uuid, sha256_hex
from trace_dagster.ingest.commit import CommitTarget, RangeRows
from trace_dagster.query.protocol import Relation
from trace_dagster.query.relations import relation
from trace_dagster.query.session import QuerySession
from trace_dagster.registry.catalog import Catalog, LakeFile, StoredRows, VisibleDataset
from trace_dagster.store.access import S3Access

_WINDOW = {"from_block", "to_block"}
"""Parameters that depend on the committed blocks; they are not part of the dataset's identity."""


def derive(
    template: Template,
    chain_id: int,
    given: Mapping[str, Any],
    catalog: Catalog,
    access: S3Access,
    reading: Callable[[Sequence[str]], AbstractContextManager[None]],
) -> Derived:
    """Run a template over the chain's committed rows of the longest block range that all inputs have.

    ``reading`` checks files by object key before its block reads them. Raises InvalidInput if an input has no committed
    rows or a parameter is not valid, and what ``reading`` raises.
    """
    inputs = {name: _input(name, chain_id, catalog) for name in template.inputs}
    stored = catalog.stored({found.dataset_uuid for found in inputs.values()})
    covered, gaps = _coverage(list(stored.values()))
    parameters = _with_window(template, given, covered)
    relations = [_relation(name, stored[found.dataset_uuid], covered, access) for name, found in inputs.items()]
    keys = [access.key(uri) for each in relations for uri in each.all_uris()]
    with reading(keys), QuerySession.over(relations, access, macros=macros()) as session:
        table = _stored(session.table(template.sql, template.bind(parameters)))
    identity = {name: value for name, value in parameters.items() if name not in _WINDOW}
    dataset = derived_uuid(DEFAULT_ORG, chain_id, template.name, identity)
    return Derived(
        dataset_uuid=dataset,
        template=template.name,
        parameters=parameters,
        target=CommitTarget(
            dataset_uuid=dataset,
            dataset_key=template.name,
            dataset_name=template.name,
            chain_id=chain_id,
            block_range=covered,
            config_hash=_config_hash(template, identity),
            schema=table.schema,
            prefix="derived",
            whole=True,
        ),
        table=table,
        rows=_rows(template, table, covered),
        gaps=gaps,
    )


def _config_hash(template: Template, identity: Mapping[str, Any]) -> str:
    text = canonical_json([macros(), template.sql, identity])
    return f"derived.{template.name}:{sha256_hex(text.encode())[:16]}"


def _input(name: str, chain_id: int, catalog: Catalog) -> VisibleDataset:
    candidates = [
        found
        for found in catalog.datasets()
        if (found.chain_id, found.dataset, found.kind) == (chain_id, name, "stream") and found.ranges
    ]
    for found in sorted(candidates, key=lambda found: (found.dataset_key != name, found.dataset_key)):
        return found
    raise InvalidInput(
        f"nothing of dataset {name} of chain {chain_id} is committed yet, or it is stored in an older form: sync it"
        " first; `trace-lite status` names older forms"
    )


def _coverage(inputs: Sequence[StoredRows]) -> tuple[BlockRange, int]:
    """Return the longest block range that all inputs have, and how many other blocks they all have.

    It need not be the first one: a history that is committed backwards from the tip has short ranges at its lower end.
    """
    common = common_ranges(found.blocks for found in inputs)
    if not common:
        raise InvalidInput("the inputs have no committed blocks in common yet")
    longest = max(common, key=lambda each: (len(each), each.start))
    return longest, sum(map(len, common)) - len(longest)


def _with_window(template: Template, given: Mapping[str, Any], covered: BlockRange) -> dict[str, Any]:
    window = {"from_block": covered.start, "to_block": covered.end - 1}
    named = {parameter.name for parameter in template.parameters}
    return {**{name: value for name, value in window.items() if name in named}, **given}


def _relation(name: str, stored: StoredRows, covered: BlockRange, access: S3Access) -> Relation:
    files = [_within(file, covered) for file in stored.files if _has_rows_of(file, covered)]
    return relation(name, (), files, access)


def _has_rows_of(file: LakeFile, covered: BlockRange) -> bool:
    return file.blocks is None or (file.blocks.start < covered.end and covered.start < file.blocks.end)


def _within(file: LakeFile, covered: BlockRange) -> LakeFile:
    """Mask the rows of a file outside the covered blocks: a compacted file may have many times as many blocks."""
    if file.blocks is None:
        return file
    outside = holes(file.blocks, [covered])
    return replace(file, masked=tuple(merged([*file.masked, *outside])))


def _rows(template: Template, table: pa.Table, covered: BlockRange) -> RangeRows:
    return RangeRows(
        tables=[table],
        verification=lambda: {"asked": "off", "level": "derived", "checks": [], "template": template.name},
        engine={"name": "duckdb", "version": duckdb.__version__},
        metrics={"blocks": len(covered)},
    )


def _stored(table: pa.Table) -> pa.Table:
    """Return the table with types as streams have them: large text and bytes, no unsigned numbers."""
    return table.cast(pa.schema([field.with_type(_stored_type(field.type)) for field in table.schema]))


def _stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the stored type of a column of DuckDB's. Wide integers do not change: DuckDB gives them as decimals."""
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_binary(kind):
        return pa.large_binary()
    if pa.types.is_uint64(kind):
        return pa.decimal128(20, 0)
    return pa.int64() if pa.types.is_unsigned_integer(kind) else kind
