"""The object store: conditional puts, streaming reads and uploads, deletes, listings.

Data goes to and from S3 through obstore: botocore spends 1.6 ms of Python on each put, obstore 0.15 ms without
holding the interpreter's lock (measured). boto3 does four things:

- buckets and unfinished uploads, which obstore has no calls for;
- listings of what others may have written: obstore 0.12 fails a whole listing if the bucket holds a single key such as
  ``a//b``, returns ``dir/`` as ``dir``, and reports refused credentials and a missing bucket as the same generic error.
"""

from __future__ import annotations

import hashlib
import http.client
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from botocore.exceptions import ClientError
from obstore.exceptions import BaseError
from obstore.store import S3Store

from trace_dagster.store.access import DEFAULT_REGION, S3Access
from trace_dagster.store.causes import is_missing, mapped_errors
from trace_dagster.store.clients import boto_client, obstore_client
from trace_dagster.store.credentials import Keys, current_keys

if TYPE_CHECKING:
    from obstore import PutMode, WritableFile
    from pyarrow import fs

PART_BYTES = 8 * 1024 * 1024
"""Size of the parts of a streaming upload, and of the chunks of a streaming read."""


PAGE_KEYS = 1000
"""Most keys that one listing returns."""

_REQUESTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Size in bytes and ETag of an object as the server reports them."""

    bytes: int
    etag: str | None


class ObjectStore:
    """One bucket. Thread-safe.

    Every method raises Unavailable if the server does not answer or fails, and InvalidInput if it refuses the
    credentials or their rights, if the bucket does not exist, or if the server is no object store.
    """

    def __init__(self, access: S3Access, *, max_connections: int = 32) -> None:
        self.access = access
        self._filesystem: fs.S3FileSystem | None = None
        self._filesystem_keys: Keys | None = None
        self._store = obstore_client(access)
        self._max_connections = max_connections

    @cached_property
    def _client(self) -> Any:
        """boto3's client. It takes longer to make than most processes, which read and write only, would use it."""
        return boto_client(self.access, self._max_connections)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create an object. Raises PreconditionFailed if the key exists."""
        self._put(key, data, "create")

    def replace(self, key: str, data: bytes, etag: str) -> None:
        """Overwrite the object that has this ETag. Raises PreconditionFailed if it has changed since."""
        self._put(key, data, {"e_tag": etag})

    def _put(self, key: str, data: bytes, mode: PutMode) -> None:
        # a single PUT: conditions on CompleteMultipartUpload are not reliable
        with mapped_errors(self.access, "write to", key):
            obstore.put(self._store, key, data, mode=mode, use_multipart=False)

    def get(self, key: str) -> tuple[bytes, str]:
        """Return the object's bytes and ETag. Raises Unavailable if there is no such object."""
        with mapped_errors(self.access, "read from", key):
            found = obstore.get(self._store, key)
            return bytes(found.bytes()), str(found.meta["e_tag"])

    def sha256(self, key: str) -> str | None:
        """Return the object's SHA-256 in hex, or None if there is no such object. Holds one chunk in memory."""
        return self._each_chunk(key, lambda chunk: None)

    def download(self, key: str, path: Path) -> str | None:
        """Copy the object into a file. Returns its SHA-256 in hex, or None if there is no such object."""
        with path.open("wb") as file:
            return self._each_chunk(key, file.write)

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a small object, or None if there is no such object."""
        data = bytearray()
        return bytes(data) if self._each_chunk(key, data.extend) is not None else None

    def _each_chunk(self, key: str, take: Callable[[bytes], object]) -> str | None:
        """Pass the object's bytes to ``take`` in chunks, and return their SHA-256."""
        digest = hashlib.sha256()
        with mapped_errors(self.access, "read from", key):
            try:
                found = obstore.get(self._store, key)
            except FileNotFoundError as error:
                if is_missing(error):
                    return None
                raise
            for chunk in found.stream(min_chunk_size=PART_BYTES):
                digest.update(chunk)
                take(chunk)
        return digest.hexdigest()

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with ``prefix``, a page of 1,000 per request."""
        with mapped_errors(self.access, "list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.access.bucket, Prefix=prefix)
            for page in pages:
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def stored(self, keys: Collection[str]) -> dict[str, StoredObject]:
        """Return those of ``keys`` that exist, from listings: one request covers 1,000 objects, and none is made for
        stretches of the bucket without a key of ``keys``.
        """
        wanted = sorted(set(keys))
        prefix = commonprefix([wanted[0], wanted[-1]]).rpartition("/")[0] if wanted else ""  # noqa: RUF071
        found: dict[str, StoredObject] = {}
        place = 0
        while place < len(wanted):
            page = self._page(prefix, after=wanted[place][:-1])  # the key's own prefix sorts before it
            found.update(page)
            if len(page) < PAGE_KEYS:
                break
            place = bisect_right(wanted, max(page))
        return {key: found[key] for key in wanted if key in found}

    def _page(self, prefix: str, after: str) -> dict[str, StoredObject]:
        """Return the first 1,000 objects under ``prefix`` whose keys sort after ``after``."""
        try:
            found = next(iter(obstore.list(self._store, prefix or None, offset=after, chunk_size=PAGE_KEYS)), [])
            return {entry["path"]: StoredObject(entry["size"], bare_etag(entry["e_tag"])) for entry in found}
        except BaseError:  # a key such as a//b, or an error that boto3 describes better
            return self._page_of_boto3(prefix, after)

    def _page_of_boto3(self, prefix: str, after: str) -> dict[str, StoredObject]:
        with mapped_errors(self.access, "list", prefix):
            page = self._client.list_objects_v2(
                Bucket=self.access.bucket, Prefix=f"{prefix}/" if prefix else "", StartAfter=after
            )
        return {
            entry["Key"]: StoredObject(entry["Size"], bare_etag(entry["ETag"])) for entry in page.get("Contents", ())
        }

    def stored_each(self, keys: Collection[str]) -> dict[str, StoredObject]:
        """As :meth:`stored`, from one request per key, up to 16 at a time: for a few keys among many objects.

        A key whose request fails for any reason is left out: :meth:`stored_now` says why.
        """
        with ThreadPoolExecutor(max(1, min(len(keys), _REQUESTS_AT_ONCE))) as threads:
            found = zip(keys, threads.map(self._head, keys), strict=True)
            return {key: each for key, each in found if each is not None}

    def _head(self, key: str) -> StoredObject | None:
        try:
            found = obstore.head(self._store, key)
        except (BaseError, OSError):
            return None
        return StoredObject(found["size"], bare_etag(found["e_tag"]))

    def stored_now(self, key: str) -> StoredObject | None:
        """Return one object's size and ETag by a request of its own, or None if there is no such object."""
        with mapped_errors(self.access, "read from", key):
            try:
                found = obstore.get(self._store, key).meta
            except FileNotFoundError as error:
                if is_missing(error):
                    return None
                raise
        return StoredObject(found["size"], bare_etag(found["e_tag"]))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, 1,000 per request. Keys that do not exist are ignored."""
        with mapped_errors(self.access, "delete from"):
            obstore.delete(self._store, list(keys))

    def stale_uploads(self, older_than_seconds: float) -> list[tuple[str, str]]:
        """Return ``(key, upload id)`` of unfinished multipart uploads that were started longer ago than that."""
        border = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with mapped_errors(self.access, "list the uploads of"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.access.bucket)
            return [
                (entry["Key"], entry["UploadId"])
                for page in pages
                for entry in page.get("Uploads", ())
                if entry["Initiated"] < border
            ]

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Delete the parts of an unfinished upload. An upload that no longer exists is ignored."""
        with mapped_errors(self.access, "abort an upload to", key), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(Bucket=self.access.bucket, Key=key, UploadId=upload_id)

    def upload(self, key: str) -> Upload:
        """Start a streaming upload. Nothing is sent before the first 8 MiB are written."""
        return Upload(self._store, self.access, key)

    def filesystem(self) -> fs.S3FileSystem:
        """Return the file system through which Arrow reads Parquet. All callers share one and its connections.

        Ask for it before each dataset that is opened: there is another one when temporary credentials were renewed.
        It is Arrow's own, because most files are small: 200 files of 1,000 rows take 0.27 s through it and 0.46 s
        through obstore's fsspec file system, which takes the interpreter's lock for each read (one file of 288 MB
        takes 0.55 s and 0.37 s). obstore's readers also aborted the process when it exited (pyarrow 26, obstore 0.12).
        """
        keys = current_keys(self.access)
        if self._filesystem is None or keys != self._filesystem_keys:
            self._filesystem, self._filesystem_keys = self._new_filesystem(keys), keys
        return self._filesystem

    def _new_filesystem(self, keys: Keys) -> fs.S3FileSystem:
        from pyarrow import fs  # a query compares files with the bucket, and should not wait for Arrow

        return fs.S3FileSystem(
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            session_token=keys.token,
            region=self.access.region,
            endpoint_override=self.access.host if self.access.endpoint else None,
            scheme="https" if self.access.use_ssl else "http",
            background_writes=False,
        )


class Upload:
    """A write-only file whose bytes are sent in parts of 8 MiB. A file of at most one part is a single PUT.

    The object becomes visible when :meth:`finish` returns. Memory is the part that is filled and the one that is sent.
    """

    def __init__(self, store: S3Store, access: S3Access, key: str) -> None:
        self._store = store
        self._access = access
        self._key = key
        self._first = bytearray()
        self._writer: WritableFile | None = None  # from the second part on
        self._digest = hashlib.sha256()
        self._aborted = False
        self.bytes_written = 0
        self.etag: str | None = None
        """The object's ETag, without quotes, after :meth:`finish`; None if the server has none."""
        self.closed = False

    def write(self, data: bytes) -> int:
        """Append bytes; returns how many. After :meth:`abort` they are dropped: a Parquet writer ends with a footer."""
        if self._aborted:
            return len(data)
        if self._writer is None:
            self._first += data
            if len(self._first) > PART_BYTES:
                self._start_parts()
        else:
            self._send(data)
        self._digest.update(data)
        self.bytes_written += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: parts have a fixed size. The file protocol requires this method."""

    def close(self) -> None:
        """Do nothing: only :meth:`finish` creates the object. The file protocol requires this method."""

    def finish(self) -> str:
        """Create the object and return its SHA-256 in hex.

        If this fails, parts may stay on the server until the sweep removes them as a stale upload.
        """
        self.closed = True
        with mapped_errors(self._access, "write to", self._key):
            if self._writer is None:
                stored = obstore.put(self._store, self._key, bytes(self._first), use_multipart=False)["e_tag"]
            else:
                self._writer.close()
                stored = obstore.head(self._store, self._key)["e_tag"]  # the writer does not return it
        self.etag = bare_etag(stored)
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Delete the parts that were sent, unless :meth:`finish` was called. Never raises."""
        self.closed = self._aborted = True
        self._first.clear()
        error = RuntimeError("aborted")
        with suppress(BaseError, OSError):
            if self._writer is not None:
                self._writer.__exit__(RuntimeError, error, None)  # leaving with an error is how obstore's writer aborts

    def _start_parts(self) -> None:
        self._writer = obstore.open_writer(self._store, self._key, buffer_size=PART_BYTES, max_concurrency=1)
        first, self._first = self._first, bytearray()
        self._send(first)

    def _send(self, data: bytes | bytearray) -> None:
        assert self._writer is not None
        with mapped_errors(self._access, "write to", self._key):
            self._writer.write(data)


def bare_etag(etag: str | None) -> str | None:
    """Return an ETag without its quotes, which not every answer has."""
    return (etag or "").strip('"') or None


def reachable(url: str) -> bool:
    """Return whether an HTTP server answers at this URL within a second, with a status below 500."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ensure_bucket(access: S3Access) -> None:
    """Create the bucket, private, unless it exists. Raises InvalidInput or Unavailable if that fails."""
    client = ObjectStore(access, max_connections=1)._client
    with mapped_errors(access, "list"):
        try:
            client.list_objects_v2(Bucket=access.bucket, MaxKeys=1)  # unlike HEAD, its error has a code
            return
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchBucket":
                raise
    # us-east-1 is the only region that may not be named
    region = {} if access.region == DEFAULT_REGION else {"LocationConstraint": access.region}
    with (
        mapped_errors(access, "create"),
        suppress(client.exceptions.BucketAlreadyOwnedByYou),  # another process was first
    ):
        client.create_bucket(Bucket=access.bucket, **({"CreateBucketConfiguration": region} if region else {}))
