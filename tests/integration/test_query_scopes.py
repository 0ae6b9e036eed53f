"""Names that a CTE lends only to others: DuckDB looks the same name up as a file or in its catalog."""

import pytest

from tests.integration.test_query import outsider, session, uris  # noqa: F401  (fixtures)
from trace_dagster.errors import InvalidInput

pytestmark = pytest.mark.integration


def test_a_cte_cannot_smuggle_a_file_past_the_gate(session, store, outsider):  # noqa: F811
    host, asked = outsider
    path = f"{store.access.uri('cryo/1/d/0.parquet')}?s3_endpoint={host}&s3_use_ssl=false"
    with pytest.raises(InvalidInput, match="no table is called"):
        session.query(f'with "{path}" as (select * from "{path}") select * from "{path}"')
    assert asked == []


def test_a_cte_cannot_smuggle_the_catalog_past_the_gate(session):  # noqa: F811
    with pytest.raises(InvalidInput, match="no table is called"):
        session.query("with a as (select sql from duckdb_views), duckdb_views as (select 1) select * from a")
