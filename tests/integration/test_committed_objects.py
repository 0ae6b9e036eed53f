"""Committed files compared with the bucket by size and ETag: what is altered or missing is named, at little cost."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import obstore
import psycopg
import pytest

from tests.integration.test_commit import commit
from tests.support.registry import apply, ingesting, job_text, keys_of, ranges
from trace_dagster.errors import Corrupt, InvalidInput
from trace_dagster.evidence import committed_objects
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.store import objects
from trace_dagster.store.objects import PART_BYTES, ObjectStore, StoredObject

pytestmark = pytest.mark.integration


@pytest.fixture
def keys(database, store):
    """Commit three ranges; return their objects' keys in block order."""
    blocks = apply(database, job_text())["blocks"]
    with ingesting(database, store) as ingest:
        for block_range in ranges(blocks, 3):
            commit(ingest, blocks, block_range)
    return keys_of(database, "blocks")


@pytest.fixture(params=["one by one", "listed"])
def way(request, monkeypatch):
    """Let three files be few, or many."""
    with monkeypatch.context() as patched:
        patched.setattr(committed_objects, "_FEW", 2 if request.param == "listed" else 3)
        yield request.param


@pytest.fixture
def committed(database, store, way):
    return CommittedObjects(database, store)


def alter(store, key, data):
    obstore.put(store._store, key, data, use_multipart=False)


@contextmanager
def requests_of(monkeypatch):
    """Count the requests to the bucket by kind."""
    counts = Counter()
    for name in ("list", "get", "head"):
        real = getattr(obstore, name)

        def counted(*arguments, _real=real, _name=name, **options):
            counts[_name] += 1
            return _real(*arguments, **options)

        monkeypatch.setattr(objects.obstore, name, counted)
    yield counts
    monkeypatch.undo()


def test_every_new_commit_records_the_etag_that_the_bucket_lists(database, store, keys):
    with database.connection() as connection:
        rows = connection.execute("select file_key, bytes, etag from trace.files").fetchall()
    assert {row["file_key"]: StoredObject(row["bytes"], row["etag"]) for row in rows} == store.stored(keys)
    assert all(row["etag"] for row in rows)


def test_intact_objects_cost_a_request_each_or_one_listing(committed, keys, monkeypatch, way):
    with requests_of(monkeypatch) as counts:
        committed.require_intact(keys)
        committed.require_intact([])
    assert counts == ({"list": 1} if way == "listed" else {"head": len(keys)})


def test_an_altered_object_of_the_same_size_is_named_with_dataset_range_and_repair(committed, store, keys):
    data = store.read(keys[1])
    alter(store, keys[1], data[:-1] + bytes([data[-1] ^ 1]))
    (found,) = committed.damaged(keys)
    assert (found.key, found.kind, found.dataset) == (keys[1], "altered", "chain_99.blocks")
    expected = (
        f"chain_99.blocks {found.block_range}: an object is altered: `trace-lite verify --job {found.job}"
        f" --range {found.block_range.start}:{found.block_range.end} --repair`"
    )
    with pytest.raises(Corrupt, match=re.escape(expected)):
        committed.require_intact(keys)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_missing_object_is_named_and_does_not_block_the_others(committed, store, keys, place):
    store.delete([keys[place]])
    with pytest.raises(Corrupt, match=r"chain_99\.blocks \[\d+, \d+\): an object is missing: .*--repair"):
        committed.require_intact(keys)
    committed.require_intact([key for key in keys if key != keys[place]])


def test_many_damaged_objects_are_counted(committed, store, keys):
    store.delete(keys)
    assert len(committed.damaged(keys)) == 3
    more = [*keys, *(f"never/committed/{number}" for number in range(5))]
    assert len(committed.damaged(more)) == 3, "keys that the registry does not have are not its objects"


def test_a_file_without_an_etag_is_compared_by_size(database, committed, store, keys):
    with database.connection() as connection:
        connection.execute("update trace.files set etag = null")
    data = store.read(keys[0])
    alter(store, keys[0], data[:-1] + bytes([data[-1] ^ 1]))
    committed.require_intact(keys)
    alter(store, keys[0], data + b"x")
    with pytest.raises(Corrupt, match="an object is altered"):
        committed.require_intact(keys)


def test_a_missing_bucket_is_no_damage(committed, store, keys):
    store.delete(list(store.keys("")))
    store._client.delete_bucket(Bucket=store.access.bucket)
    with pytest.raises(InvalidInput, match="the bucket does not exist"):
        committed.require_intact(keys)
    objects.ensure_bucket(store.access)


def test_a_listing_of_2500_files_takes_as_many_requests_as_pages(store, monkeypatch):
    keys = [f"cryo/1/d/{n}_{n + 1}/v/{name}" for n in range(1250) for name in ("_manifest.json", "rows.parquet")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put_if_absent(key, key.encode()), keys))
    with requests_of(monkeypatch) as counts:
        assert {key: found.bytes for key, found in store.stored(keys).items()} == {key: len(key) for key in keys}
    assert counts == {"list": 3}
    with requests_of(monkeypatch) as counts:  # two of them, far apart: the pages between are not listed
        assert set(store.stored([keys[0], keys[-1], "cryo/1/d/none"])) == {keys[0], keys[-1]}
    assert counts["list"] <= 2


def test_keys_that_obstore_cannot_list_do_not_hide_the_others(store):
    for key in ("lake/a", "lake/b//c", "lake/d"):
        store._client.put_object(Bucket=store.access.bucket, Key=key, Body=b"x")
    assert set(store.stored(["lake/a", "lake/d", "lake/e"])) == {"lake/a", "lake/d"}


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_an_uploads_etag_is_the_listed_one(store, size):
    upload = store.upload("a")
    upload.write(b"z" * size)
    upload.finish()
    assert store.stored(["a"]) == {"a": StoredObject(size, upload.etag)}
    assert store.stored_now("a") == StoredObject(size, upload.etag)
    assert store.stored_now("b") is None


def test_files_of_an_older_schema_have_no_etag(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "insert into trace.files (file_key, bytes, sha256, row_count) values ('a', 1, repeat('0', 64), 0)"
        )
        assert connection.execute("select etag from trace.files").fetchall() == [(None,)]


def test_the_store_of_another_key_is_not_asked(database, store, keys):
    """An object store that refuses the key is an error of the key, and no damage."""
    wrong = CommittedObjects(database, ObjectStore(replace(store.access, secret_key="x" * 20)))
    with pytest.raises(InvalidInput, match="refuses these credentials"):
        wrong.require_intact(keys)
