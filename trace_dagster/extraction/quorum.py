"""A quorum: other endpoints must give the same rows before a piece counts as extracted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.digest import ContentDigest
from trace_dagster.errors import NoQuorum, TraceError, Unavailable
from trace_dagster.extraction.retry_rules import ANOTHER_ENDPOINT
from trace_dagster.rpc.pools import Endpoint


def agreeing_endpoints(
    table: pa.Table,
    piece: BlockRange,
    first: Endpoint,
    others: Iterable[Endpoint],
    quorum: int,
    extract: Callable[[Endpoint], pa.Table],
    noted: Callable[[Endpoint, TraceError], TraceError],
) -> list[str]:
    """Return the names of ``quorum - 1`` other endpoints that return the same rows as ``first``.

    The endpoints are tried one after the other. ``extract`` returns an endpoint's rows; ``noted`` adds the endpoint's
    name to an error. Raises NoQuorum if an endpoint returns different rows, Unavailable if too few return rows.
    """
    agreeing: list[str] = []
    disagreeing: list[str] = []
    is_contradicted = False
    digest = _digest(table) if quorum > 1 else ""
    for endpoint in others:
        if len(agreeing) >= quorum - 1:
            break
        if endpoint.name == first.name:
            continue
        try:
            other = extract(endpoint)
        except ANOTHER_ENDPOINT as failed:
            disagreeing.append(str(noted(endpoint, failed)))
            continue
        if _digest(other) == digest:
            agreeing.append(endpoint.name)
        else:
            is_contradicted = True
            disagreeing.append(f"{endpoint.name} gives other rows, first at {_first_difference(table, other)}")
    if len(agreeing) < quorum - 1:
        error = NoQuorum if is_contradicted else Unavailable
        raise error(
            f"no quorum of {quorum} for the rows of rpc endpoint {first.name}: {'; '.join(disagreeing)}", range=piece
        )
    return agreeing


def _digest(table: pa.Table) -> str:
    digest = ContentDigest(table.schema)
    digest.update(table)
    return digest.hexdigest()


def _first_difference(one: pa.Table, other: pa.Table) -> str:
    """Return block and column of the first row that differs."""
    for row in range(min(one.num_rows, other.num_rows)):
        for name in one.column_names:
            if one[name][row] != other[name][row]:
                return f"block {one['block_number'][row]}, {name}"
    longer = one if one.num_rows > other.num_rows else other
    return f"block {longer['block_number'][min(one.num_rows, other.num_rows)]}, which has more rows"
