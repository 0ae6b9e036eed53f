"""`trace-lite query` over objects that were altered, removed, or cannot be read: the cause, and no other question."""

from __future__ import annotations

from dataclasses import replace

import obstore
import pytest

from tests.integration.test_commit import commit
from tests.support.aws import BUCKET, aws
from tests.support.nodes import environment
from tests.support.registry import apply, ingesting, job_text, ranges
from tests.support.wrong_servers import web_server
from trace_dagster.cli.commands import run_query
from trace_dagster.config.settings import settings_from
from trace_dagster.errors import Corrupt, InvalidInput, TraceError
from trace_dagster.evidence import committed_objects
from trace_dagster.lite.ports import Ports
from trace_dagster.registry.catalog import Catalog
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

pytestmark = pytest.mark.integration
TWO = ("blocks", "logs")


def committed(database, store):
    """Commit three ranges of two datasets; return their keys by dataset, in block order."""
    streams = apply(database, job_text())
    with ingesting(database, store) as ingest:
        for stream in streams.values():
            for block_range in ranges(stream, 3):
                commit(ingest, stream, block_range)
    return {entry.dataset_key: [file.key for file in files] for entry, files in Catalog(database).lake()}


def ask(postgres_url, access, table):
    return run_query(f"select count(*) from {table}", settings_from(environment(postgres_url, access)), 10).rows


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("kind", ["missing", "altered"])
def test_a_damaged_object_stops_only_the_questions_that_read_it(database, postgres_url, store, kind, place):
    keys = committed(database, store)
    access = store.access
    before = {name: ask(postgres_url, access, name) for name in TWO}
    damaged = keys["logs"][place]
    data = store.read(damaged)
    store.delete([damaged])
    if kind == "altered":
        obstore.put(store._store, damaged, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        Corrupt,
        match=rf"chain_99\.logs \[\d+, \d+\): an object is {kind}: `trace-lite verify --job \w+ .*--repair",
    ):
        ask(postgres_url, access, "logs")
    assert ask(postgres_url, access, "blocks") == before["blocks"]
    obstore.put(store._store, damaged, data)
    assert ask(postgres_url, access, "logs") == before["logs"]


def test_each_cause_of_a_failed_read_is_told_apart(database, postgres_url, store):
    committed(database, store)
    access = store.access
    with web_server() as port:
        for wrong, text in (
            (replace(access, secret_key="x" * 20), "refuses these credentials.* code=SignatureDoesNotMatch"),
            (replace(access, access_key="nobodys"), "refuses these credentials.* code=InvalidAccessKeyId"),
            (replace(access, bucket="no-such-bucket"), "the bucket does not exist: create it with"),
            (replace(access, endpoint="http://127.0.0.1:9"), "nothing listens at TRACE_S3_ENDPOINT"),
            (replace(access, endpoint=f"http://127.0.0.1:{port}"), "is not an object store: check its host and port"),
            (replace(access, endpoint=access.endpoint.replace("http:", "https:")), "TLS handshake .* failed"),
        ):
            with pytest.raises(TraceError, match=text):
                ask(postgres_url, wrong, "blocks")


def test_a_reader_without_the_right_to_read_is_told_so(database, postgres_url, monkeypatch):
    with aws(Ports({}).take()) as cloud:

        def access(*actions):
            keys = cloud.user_with(*actions)
            return S3Access(BUCKET, keys.access_key, keys.secret_key, cloud.endpoint)

        committed(database, ObjectStore(access("s3:*")))
        with pytest.raises(InvalidInput, match="may not read from the bucket"):
            ask(postgres_url, access("s3:ListBucket"), "blocks")
        assert ask(postgres_url, access("s3:GetObject"), "blocks") == [(300,)], "a few files need no listing"
        monkeypatch.setattr(committed_objects, "_FEW", 0)
        with pytest.raises(InvalidInput, match="may not list the bucket"):
            ask(postgres_url, access("s3:GetObject"), "blocks")
        assert ask(postgres_url, access("s3:GetObject", "s3:ListBucket"), "blocks") == [(300,)]
