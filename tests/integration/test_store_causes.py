"""Why the object store failed a request: each cause is told apart, by every call and in the same words."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.wrong_servers import banner_server, web_server
from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.store.objects import PART_BYTES, ObjectStore, ensure_bucket

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wrong_ports():
    with ExitStack() as stack:
        yield {
            "http": stack.enter_context(web_server()),
            "tls": stack.enter_context(web_server(tls=True)),
            "banner": stack.enter_context(banner_server()),
        }


def case(s3, ports, name):
    return {
        "wrong secret": lambda: replace(s3, secret_key="x" * 20),
        "wrong key": lambda: replace(s3, access_key="nobodys"),
        "closed port": lambda: replace(s3, endpoint="http://127.0.0.1:9"),
        "web server": lambda: replace(s3, endpoint=f"http://127.0.0.1:{ports['http']}"),
        "no http": lambda: replace(s3, endpoint=f"http://127.0.0.1:{ports['banner']}"),
        "untrusted": lambda: replace(s3, endpoint=f"https://127.0.0.1:{ports['tls']}"),
        "https to http": lambda: replace(s3, endpoint=s3.endpoint.replace("http:", "https:")),
        "http to https": lambda: replace(s3, endpoint=f"http://127.0.0.1:{ports['tls']}"),
        "unknown host": lambda: replace(s3, endpoint="http://no-such-host.invalid:9000"),
    }[name]()


CAUSES = [
    ("wrong secret", InvalidInput, "refuses these credentials.* code=SignatureDoesNotMatch"),
    ("wrong key", InvalidInput, "refuses these credentials.* code=InvalidAccessKeyId"),
    ("closed port", Unavailable, "does not answer: nothing listens at TRACE_S3_ENDPOINT"),
    ("web server", InvalidInput, "is not an object store: check its host and port"),
    ("no http", InvalidInput, "is not an object store: check its host and port"),
    ("untrusted", InvalidInput, "TLS certificate of the object store is not trusted"),
    ("https to http", InvalidInput, "TLS handshake with the object store failed.*write http://"),
    ("http to https", InvalidInput, "speaks TLS: write https://"),
    ("unknown host", Unavailable, "host of TRACE_S3_ENDPOINT is not known"),
]


def upload(store, size):
    started = store.upload("a")
    try:
        for _ in range(size // PART_BYTES + 1):
            started.write(b"z" * min(size, PART_BYTES))
        started.finish()
    finally:
        started.abort()


CALLS = {
    "read": lambda store: store.read("a"),
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put_if_absent("a", b""),
    "delete": lambda store: store.delete(["a"]),
    "keys": lambda store: list(store.keys("")),
    "listing": lambda store: store.stored(["a"]),
    "small upload": lambda store: upload(store, 1),
    "large upload": lambda store: upload(store, PART_BYTES),
    "bucket": lambda store: ensure_bucket(store.access),
}


@pytest.mark.parametrize(("name", "kind", "text"), CAUSES)
def test_every_call_names_the_cause(s3, wrong_ports, name, kind, text):
    access = case(s3, wrong_ports, name)
    store = ObjectStore(access)
    for call, ask in CALLS.items():
        with pytest.raises(TraceError, match=text) as caught:
            ask(store)
        assert isinstance(caught.value, kind), call
        assert all(part not in str(caught.value) for part in (access.host, access.secret_key, "\n")), call


def test_a_missing_bucket_is_made_and_told_from_a_missing_object(s3):
    nowhere = ObjectStore(replace(s3, bucket=f"{s3.bucket}x"))
    for ask in ("read", "get", "keys", "listing"):
        with pytest.raises(InvalidInput, match="the bucket does not exist: create it with `trace-lite migrate`"):
            CALLS[ask](nowhere)
    for _ in range(2):
        ensure_bucket(nowhere.access)
    assert nowhere.read("a") is None
    nowhere._client.delete_bucket(Bucket=nowhere.access.bucket)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_not_the_stores_fault(store):
    store.put_if_absent("a", b"z" * 1_000_000)
    with pytest.raises(OSError, match="No space left"):
        store.download("a", Path("/dev/full"))
