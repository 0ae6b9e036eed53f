"""Puts against a real S3 server: conditions, refusals, and nothing taken from the environment."""

from dataclasses import replace

import pytest

from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.store.objects import PART_BYTES, ObjectStore, PreconditionFailed

pytestmark = pytest.mark.integration


def test_an_object_is_created_once_and_replaced_only_as_it_was_read(store):
    store.put_if_absent("a", b"one")
    with pytest.raises(PreconditionFailed):
        store.put_if_absent("a", b"two")
    data, etag = store.get("a")
    store.replace("a", b"three", etag)
    with pytest.raises(PreconditionFailed):
        store.replace("a", b"four", etag)
    assert (data, store.read("a")) == (b"one", b"three")


@pytest.mark.parametrize("key", ["a b/ü/%20+&?#.parquet", "x" * 200 + "/y"])
@pytest.mark.parametrize("size", [0, 3, PART_BYTES, PART_BYTES + 1])
def test_an_upload_is_what_was_written_under_the_key_that_was_named(store, key, size):
    upload = store.upload(key)
    upload.write(b"z" * size)
    assert upload.finish() == store.sha256(key)
    assert store.read(key) == b"z" * size
    assert list(store.keys("")) == [key]


def test_variables_meant_for_others_do_not_matter(s3, monkeypatch):
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


def test_refused_keys_and_silence_are_told_apart_and_no_address_is_told(s3):
    with pytest.raises(InvalidInput, match="refuses these credentials"):
        ObjectStore(replace(s3, secret_key="another")).put_if_absent("a", b"")
    with pytest.raises(Unavailable, match="does not answer") as caught:
        ObjectStore(replace(s3, endpoint="http://127.0.0.1:9")).put_if_absent("a", b"")
    assert "127.0.0.1" not in str(caught.value)
