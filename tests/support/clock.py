"""The database's clock in tests: all stored times are moved into the past."""

from __future__ import annotations

from psycopg import sql

from trace_dagster.registry.connection import Database

_MOMENTS = """
select table_schema, table_name, array_agg(column_name::text) as columns from information_schema.columns
where data_type = 'timestamp with time zone' and table_name <> 'migrations'
  and (table_schema = 'trace' or (table_schema = 'hot' and table_name in ('followers', 'heads', 'reorgs')))
group by table_schema, table_name
"""


def advance(database: Database, seconds: float) -> None:
    """Let this many seconds pass for leases, backoffs, visibility timeouts and ages."""
    with database.connection() as connection:
        for row in connection.execute(_MOMENTS).fetchall():
            moved = [
                sql.SQL("{0} = {0} - make_interval(secs => {1})").format(sql.Identifier(column), sql.Literal(seconds))
                for column in row["columns"]
            ]
            statement = sql.SQL("update {} set {}").format(
                sql.Identifier(row["table_schema"], row["table_name"]), sql.SQL(", ").join(moved)
            )
            connection.execute(statement)
