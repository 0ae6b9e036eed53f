"""The laptop's S3 server gives queries a key that may list and read its bucket, and nothing else."""

import json

import duckdb
import pytest

from tests.integration.test_query import BLOCKS_PER_FILE, COLUMNS, put_blocks
from trace_dagster.errors import InvalidInput, TraceError
from trace_dagster.lite.home import Home
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.processes import Child
from trace_dagster.lite.s3 import s3_service
from trace_dagster.query.protocol import Relation
from trace_dagster.query.runner import QueryRunner
from trace_dagster.query.session import QuerySession
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore, ensure_bucket

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Run a server; yield (access with the owner's key, access with the query key, the lake's relation)."""
    home = Home(tmp_path_factory.mktemp("queryhome"))
    home.prepare()
    ports, secrets = Ports({}), home.secrets()
    port = ports.take(with_grpc=True)
    endpoint = f"http://{HOST}:{port}"
    owner = S3Access("lake", secrets.s3_access_key, secrets.s3_secret_key, endpoint)
    reader = S3Access("lake", secrets.s3_query_access_key, secrets.s3_query_secret_key, endpoint)
    child = Child(s3_service(home.path / "s3", ports, secrets, owner, port), home.logs / "s3.log")
    try:
        child.wait_healthy()
        uri = put_blocks(ObjectStore(owner), "cryo/1/d/0.parquet", range(BLOCKS_PER_FILE))
        yield owner, reader, Relation("blocks", COLUMNS, (uri,))
    finally:
        child.signal_stop()
        child.wait_stopped(10)


def test_a_query_reads_with_the_query_key(keys):
    _, reader, blocks = keys
    with QueryRunner() as runner:
        assert runner.query("select count(*) from blocks", [blocks], reader).rows == [(BLOCKS_PER_FILE,)]
    assert list(ObjectStore(reader).keys("")) == ["cryo/1/d/0.parquet"]


def test_the_query_key_changes_nothing(keys):
    owner, reader, blocks = keys
    before = ObjectStore(owner).sha256("cryo/1/d/0.parquet")
    store = ObjectStore(reader)
    for change in (
        lambda: store.put_if_absent("new.parquet", b"x"),
        lambda: store.delete(["cryo/1/d/0.parquet"]),
        lambda: ensure_bucket(S3Access("another", reader.access_key, reader.secret_key, reader.endpoint)),
    ):
        with pytest.raises(TraceError):
            change()
    with QuerySession.over([blocks], reader) as session, pytest.raises(duckdb.Error):
        session._connection.execute(f"copy (select 1 as a) to '{blocks.uris[0]}'")
    assert list(ObjectStore(owner).keys("")) == ["cryo/1/d/0.parquet"]
    assert ObjectStore(owner).sha256("cryo/1/d/0.parquet") == before


def test_a_session_runs_nothing_but_select(keys):
    """So it is safe with the owner's key as well, for a store that has only one."""
    owner, _, blocks = keys
    with QuerySession.over([blocks], owner) as session:
        for sql in (f"copy (select 1) to '{blocks.uris[0]}'", "create secret s (type s3)", "select 1; select 2"):
            with pytest.raises(InvalidInput, match="exactly one SELECT"):
                session.select(sql)


def test_a_home_of_an_earlier_version_gets_the_query_key(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    first = home.secrets()
    file = home.path / "secrets.json"
    text = file.read_text()
    file.write_text(json.dumps({k: v for k, v in json.loads(text).items() if "query" not in k}))
    again = home.secrets()
    assert (again.s3_secret_key, again.postgres_password) == (first.s3_secret_key, first.postgres_password)
    assert again.s3_query_secret_key != first.s3_query_secret_key
    assert home.secrets() == again
