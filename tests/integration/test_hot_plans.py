"""The statements that move and read hot rows use an index among many rows, whatever the statistics know."""

from __future__ import annotations

import pytest

from tests.support.hot_chain import CHAIN, apply_followed
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.queries import query

pytestmark = pytest.mark.integration

BLOCKS = 5_000
_ROWS = """
insert into hot.logs (dataset_uuid, block_number, block_timestamp, block_hash, transaction_index, log_index,
                      transaction_hash, address, topic0)
select %s, n, now(), sha256(('b' || n)::bytea), i / 2, i, sha256(('t' || n || ':' || i)::bytea),
       substring(sha256(('a' || i)::bytea) for 20), sha256(('e' || n %% 7)::bytea)
from generate_series(0, %s - 1) as n, generate_series(0, 19) as i
"""
_CHAIN = """
insert into hot.chain (org_id, chain_id, block_number, block_hash, parent_hash, block_timestamp, level)
select %s, %s, n, sha256(('b' || n)::bytea), sha256(('b' || n - 1)::bytea), now(), 'full'
from generate_series(0, %s - 1) as n
"""
SPAN = {"range_start": 4_900, "range_end": 5_000, "first": 4_900, "last": 5_000}
STATEMENTS = (
    "delete_hot_logs",
    "chain_between",
    "delete_chain",
    "chain_head",
    "chain_at_borders",
    "show_latest_head",
)


@pytest.mark.parametrize("analyzed", [False, True])
def test_statements_use_an_index(database, analyzed):
    logs = apply_followed(database)["logs"].dataset_uuid
    values = {"org_id": DEFAULT_ORG, "chain_id": CHAIN, "dataset_uuid": logs, "below": 10, **SPAN}
    with database.connection() as connection:
        connection.execute(_ROWS, [logs, BLOCKS])
        connection.execute(_CHAIN, [DEFAULT_ORG, CHAIN, BLOCKS])
        if analyzed:
            connection.execute("analyze hot.logs, hot.chain")
        plans = {name: _plan(connection, query(name), values) for name in STATEMENTS}
        for column, value in (("address", bytes(20)), ("topic0", bytes(32)), ("transaction_hash", bytes(32))):
            statement = f"select * from hot.logs where dataset_uuid = %(dataset_uuid)s and {column} = any(%(found)s)"
            plans[column] = _plan(connection, statement, {**values, "found": [value]})
    for name, plan in plans.items():
        assert "Index" in plan, (name, plan)
        assert "Seq Scan on logs" not in plan, (name, plan)
        assert "Seq Scan on chain" not in plan, (name, plan)


def _plan(connection, statement, values) -> str:
    rows = connection.execute(f"explain {statement}", values).fetchall()
    return "\n".join(row["QUERY PLAN"] for row in rows)
