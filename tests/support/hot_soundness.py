"""Whether hot and cold data are sound together, from one snapshot of the registry.

Each block of a dataset is visible exactly once: hot or committed, or not at all. All hot rows, all stored blocks and
the boundaries of all visible versions lie on one linked chain. The change log tells the hot blocks.
"""

from __future__ import annotations

from psycopg import Connection

from trace_dagster.registry.connection import Database

_TABLES = ("blocks", "transactions", "logs")

_ROWS = " union all ".join(
    f"select '{table}' as source, dataset_uuid, block_number, block_hash from hot.{table}" for table in _TABLES
)

_FAULTS = {
    "a block is hot and committed": """
        select h.dataset_uuid, r from hot.streams h
        join trace.visible_totals t using (dataset_uuid), unnest(t.blocks * h.blocks) as r""",
    "a row is of no hot block": f"""
        select r.* from ({_ROWS}) r left join hot.streams h using (dataset_uuid)
        left join trace.datasets d using (dataset_uuid)
        where h.dataset_uuid is null or not h.blocks @> r.block_number or d.source <> r.source""",
    "a row is of another block than the chain's": f"""
        select r.* from ({_ROWS}) r join trace.datasets d using (dataset_uuid)
        left join hot.chain c on c.org_id = d.org_id and c.chain_id = d.chain_id and c.block_number = r.block_number
        where c.block_hash is distinct from r.block_hash""",
    "a hot block of dataset blocks has not one row": """
        select h.dataset_uuid, n from hot.streams h join trace.datasets d using (dataset_uuid),
             unnest(h.blocks) as r, generate_series(lower(r), upper(r) - 1) as n
        where d.source = 'blocks'
          and (select count(*) from hot.blocks b where b.dataset_uuid = h.dataset_uuid and b.block_number = n) <> 1""",
    "a hot block is not in the chain": """
        select h.dataset_uuid, n from hot.streams h join trace.datasets d using (dataset_uuid),
             unnest(h.blocks) as r, generate_series(lower(r), upper(r) - 1) as n
        where not exists (select 1 from hot.chain c where c.org_id = d.org_id and c.chain_id = d.chain_id
                          and c.block_number = n)""",
    "stored blocks do not link": """
        select c.chain_id, c.block_number from hot.chain c
        join hot.chain p on p.org_id = c.org_id and p.chain_id = c.chain_id and p.block_number = c.block_number - 1
        where c.parent_hash <> p.block_hash""",
    "a version is of another chain": """
        select v.dataset_version, v.block_range from trace.dataset_versions v
        join trace.datasets d on d.dataset_uuid = v.dataset_uuid and d.kind = 'stream'
        join hot.chain c on c.org_id = d.org_id and c.chain_id = d.chain_id
        where v.visible and ((c.block_number = upper(v.block_range) - 1 and c.block_hash <> v.last_block_hash)
           or (c.block_number = lower(v.block_range) - 1 and c.block_hash <> v.first_parent_hash)
           or (c.block_number = lower(v.block_range) and c.parent_hash <> v.first_parent_hash)
           or (c.block_number = upper(v.block_range) and c.parent_hash <> v.last_block_hash))""",
    "the latest head is not the newest block": """
        select h.* from hot.heads h where h.tag = 'latest' and (h.block_number, h.block_hash) is distinct from
          (select (c.block_number, c.block_hash) from hot.chain c
           where c.org_id = h.org_id and c.chain_id = h.chain_id order by c.block_number desc limit 1)""",
}


def assert_hot_sound(database: Database) -> None:
    """Check everything above, except for the change log."""
    with database.connection() as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        assert hot_faults(connection) == {}


def hot_faults(connection: Connection[dict]) -> dict[str, list]:
    """Return the rows that break a rule, by the rule. The connection's transaction decides of which moment."""
    found = {name: connection.execute(statement).fetchall() for name, statement in _FAULTS.items()}
    return {name: rows for name, rows in found.items() if rows}


def assert_changes_tell_hot_blocks(database: Database) -> None:
    """Check that whoever applies the whole change log knows the hot blocks, and the committed ones of these streams."""
    with database.connection() as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        streams = connection.execute(
            "select h.dataset_uuid, h.blocks as hot, coalesce((select range_agg(r) from trace.visible_totals t,"
            " unnest(t.blocks) r where t.dataset_uuid = h.dataset_uuid), '{}') as cold from hot.streams h"
        ).fetchall()
        told = connection.execute("select * from trace.changes order by xid, change_id").fetchall()
    for stream in streams:
        mine = [row for row in told if row["dataset_uuid"] == stream["dataset_uuid"]]
        assert _applied(mine) == (_numbers(stream["hot"]), _numbers(stream["cold"]))


def _applied(changes) -> tuple[set[int], set[int]]:
    """Return the hot and the committed blocks by the change log. Each change must change something."""
    hot: set[int] = set()
    cold: set[int] = set()
    for change in changes:
        blocks = set(range(change["block_range"].lower, change["block_range"].upper))
        kind, is_cold = change["kind"], change["dataset_version"] is not None
        if kind == "committed":
            cold |= blocks
        elif kind == "hot":
            assert not blocks & (hot | cold), change
            hot |= blocks
        elif kind in ("pruned", "invalidated"):
            left = cold if is_cold else hot
            assert blocks <= left, change
            left -= blocks
    return hot, cold


def _numbers(multirange) -> set[int]:
    return {number for each in multirange for number in range(each.lower, each.upper)}
