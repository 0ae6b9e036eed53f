"""CTE names used outside their scope, where DuckDB would open a file or read its catalog."""

import pytest

from tests.integration.test_query import ask, relations, uris  # noqa: F401  (fixtures)
from tests.support.outsider import outsider
from trace_dagster.errors import InvalidInput

pytestmark = pytest.mark.integration


def test_a_cte_cannot_smuggle_a_file_past_the_gate(ask, store):  # noqa: F811
    with outsider() as (host, requested_paths):
        path = f"{store.access.uri('cryo/1/d/0.parquet')}?s3_endpoint={host}&s3_use_ssl=false"
        with pytest.raises(InvalidInput, match="no table is called"):
            ask(f'with "{path}" as (select * from "{path}") select * from "{path}"')
    assert requested_paths == []


def test_a_cte_cannot_smuggle_the_catalog_past_the_gate(ask):  # noqa: F811
    with pytest.raises(InvalidInput, match="no table is called"):
        ask("with a as (select sql from duckdb_views), duckdb_views as (select 1) select * from a")
