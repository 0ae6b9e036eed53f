"""Recognizes ranges that an earlier version committed with values which the chain does not have."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import VerificationFailed
from trace_dagster.registry.versions import StoredVersion


def require_no_made_up_status(version: StoredVersion, table: pa.Table) -> None:
    """Raise VerificationFailed if rows of ``transactions`` before Byzantium have a ``success``.

    Receipts had a state root there and no status (EIP-658). Earlier versions stored ``false`` for transactions with a
    chain id and called them proven. Ranges that were never proven claim nothing about their values.
    """
    byzantium = chain_of(version.chain_id).fork("byzantium")
    if version.dataset.name != "transactions" or not version.is_proven or version.block_range.start >= byzantium:
        return
    if "success" not in table.column_names:
        return
    wrong = table.filter(pc.and_(pc.less(table["block_number"], byzantium), pc.is_valid(table["success"])))
    if wrong.num_rows:
        raise VerificationFailed(
            f"`success` is stored for a transaction before block {byzantium} (Byzantium), where receipts have no"
            " status: an earlier version of trace_dagster made it up; fetch the range again",
            block=wrong["block_number"][0].as_py(),
        )
