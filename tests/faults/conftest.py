"""One database and one bucket for all cases of a module: hundreds of cases would fill the servers."""

from uuid import uuid4

import psycopg
import pytest

from trace_dagster.lite.postgres import dsn
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ensure_bucket


@pytest.fixture(scope="module")
def bucket(s3_server) -> S3Access:
    """Create one bucket for all cases, because each bucket uses volumes of the server."""
    access = S3Access(f"c{uuid4().hex}", s3_server.access_key, s3_server.secret_key, s3_server.endpoint)
    ensure_bucket(access)
    return access


@pytest.fixture(scope="module")
def registry(postgres, template_database) -> str:
    """Create one database for all cases."""
    port, password = postgres
    name = f"c{uuid4().hex}"
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {template_database}")
    return dsn(port, password, name)
