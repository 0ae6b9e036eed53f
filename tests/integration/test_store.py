"""The object store against a real S3 server: conditional puts, uploads, refusals, no settings from the environment."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trace_dagster.datasets.catalogue import catalogue
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.store.caps import Caps
from trace_dagster.store.causes import PreconditionFailed
from trace_dagster.store.objects import PART_BYTES, ObjectStore
from trace_dagster.store.parquet import RangeWriter

pytestmark = pytest.mark.integration
ROWS = 200


def test_conditional_puts_create_once_and_replace_only_the_etag_that_was_read(store):
    store.put_if_absent("a", b"one")
    with pytest.raises(PreconditionFailed):
        store.put_if_absent("a", b"two")
    data, etag = store.get("a")
    store.replace("a", b"three", etag)
    with pytest.raises(PreconditionFailed):
        store.replace("a", b"four", etag)
    assert (data, store.read("a")) == (b"one", b"three")


@pytest.mark.parametrize("number", range(5))
def test_one_of_many_writers_wins_a_conditional_put(store, number):
    def attempt(put, *arguments):
        try:
            put("a", *arguments)
        except PreconditionFailed:
            return None
        return arguments[0]

    with ThreadPoolExecutor(8) as pool:
        created = {*pool.map(lambda n: attempt(store.put_if_absent, b"created %d" % n), range(8))} - {None}
        data, etag = store.get("a")
        replaced = {*pool.map(lambda n: attempt(store.replace, b"replaced %d" % n, etag), range(8))} - {None}
    assert created == {data}
    assert replaced == {store.read("a")}


@pytest.mark.parametrize("key", ["a b/ü/%20+&?#.parquet", "x" * 200 + "/y"])
@pytest.mark.parametrize("size", [0, 3, PART_BYTES, PART_BYTES + 1])
def test_an_upload_stores_the_bytes_under_the_exact_key(store, key, size):
    upload = store.upload(key)
    upload.write(b"z" * size)
    assert upload.finish() == store.sha256(key)
    assert store.read(key) == b"z" * size
    assert list(store.keys("")) == [key]


def test_an_aborted_upload_leaves_neither_object_nor_parts(store):
    upload = store.upload("a")
    upload.write(b"z" * (3 * PART_BYTES))
    assert [key for key, _ in store.stale_uploads(0)] == ["a"]
    upload.abort()
    upload.abort()
    assert (list(store.keys("")), store.stale_uploads(0)) == ([], [])


def test_an_upload_is_invisible_until_it_is_finished(store):
    upload = store.upload("a")
    upload.write(b"z" * (3 * PART_BYTES))
    assert store.read("a") is None
    digest = upload.finish()
    upload.abort()
    assert store.sha256("a") == digest


def test_a_large_object_is_read_in_chunks(store, tmp_path):
    data = Random(1).randbytes(2 * PART_BYTES + 3)
    store.put_if_absent("a", data)
    chunks = []
    assert store._each_chunk("a", chunks.append) == store.download("a", tmp_path / "a") == sha256(data).hexdigest()
    assert len(chunks) > 1
    assert b"".join(chunks) == (tmp_path / "a").read_bytes() == data


def test_more_keys_than_one_request_takes_are_deleted_and_absent_ones_ignored(store):
    store.put_if_absent("a", b"")
    store.put_if_absent("b", b"")
    store.delete(["a", *(f"absent/{number}" for number in range(1001)), "b"])
    assert list(store.keys("")) == []


def test_a_missing_object_and_a_missing_bucket_are_told_apart(s3, tmp_path):
    store, nowhere = ObjectStore(s3), ObjectStore(replace(s3, bucket="no-such-bucket"))
    assert (store.read("a"), store.sha256("a"), store.download("a", tmp_path / "a")) == (None, None, None)
    with pytest.raises(Unavailable, match="failed a request code=NoSuchKey"):
        store.get("a")
    for ask in (nowhere.read, nowhere.sha256, nowhere.get, lambda prefix: list(nowhere.keys(prefix))):
        with pytest.raises(InvalidInput, match="bucket does not exist"):
            ask("a")


def test_a_server_that_refuses_the_keys_is_reported_by_every_call(s3):
    store = ObjectStore(replace(s3, secret_key="another"))
    upload = store.upload("a")
    for ask in (
        lambda: store.get("a"),
        lambda: store.sha256("a"),
        lambda: store.delete(["a"]),
        lambda: list(store.keys("")),
        lambda: [upload.write(b"z" * PART_BYTES) for _ in range(3)] and upload.finish(),
    ):
        with pytest.raises(InvalidInput, match="refuses these credentials"):
            ask()
    upload.abort()


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_only_columns_with_repeated_values_get_a_dictionary(store, name):
    """Use every type of every dataset: values are unique in half of the columns, and repeat in the others."""
    schema = catalogue()[name].schema(list(catalogue()[name].all_columns))
    random = Random(7)
    rows = pa.Table.from_arrays(
        [_column(field, random, place % 2 == 0) for place, field in enumerate(schema)], schema=schema
    )
    writer = RangeWriter(store, schema, lambda part: f"{name}-{part}", Caps())
    writer.write(rows)
    (file,) = writer.finish()
    read = pq.ParquetFile(pa.BufferReader(store.read(file.key)))
    assert read.read().equals(rows)
    columns = [read.metadata.row_group(0).column(place) for place in range(len(schema))]
    with_one = {each.path_in_schema for each in columns if each.has_dictionary_page}
    assert with_one == {
        field.name for place, field in enumerate(schema) if place % 2 and not pa.types.is_boolean(field.type)
    }


def _column(field: pa.Field, random: Random, unique: bool) -> pa.Array:
    if pa.types.is_boolean(field.type):
        return pa.array([True] * ROWS, field.type)
    numbers = list(range(ROWS)) if unique else [random.randrange(5) for _ in range(ROWS)]
    if pa.types.is_large_binary(field.type) or pa.types.is_fixed_size_binary(field.type):
        width = 32 if pa.types.is_large_binary(field.type) else field.type.byte_width
        return pa.array([number.to_bytes(width, "big") for number in numbers], field.type)
    if pa.types.is_large_string(field.type):
        return pa.array([str(number) for number in numbers], field.type)
    return pa.array(numbers, field.type)


def test_a_range_without_rows_is_a_file_with_its_columns(store):
    schema = catalogue()["blocks"].schema(["block_number", "block_hash"])
    (file,) = RangeWriter(store, schema, lambda part: "none", Caps()).finish()
    assert pq.read_schema(pa.BufferReader(store.read(file.key))).equals(schema)


def test_variables_of_other_programs_are_ignored(s3, monkeypatch):
    for name in (
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    ObjectStore(s3).put_if_absent("a", b"one")


def test_refused_credentials_and_no_answer_differ_and_the_address_is_not_shown(s3):
    with pytest.raises(InvalidInput, match="refuses these credentials"):
        ObjectStore(replace(s3, secret_key="another")).put_if_absent("a", b"")
    with pytest.raises(Unavailable, match="does not answer") as caught:
        ObjectStore(replace(s3, endpoint="http://127.0.0.1:9")).put_if_absent("a", b"")
    assert "127.0.0.1" not in str(caught.value)
