"""The object store: conditional puts, streaming reads and uploads, deletes, listings.

Data goes to and from S3 through obstore: botocore spends 1.6 ms of Python on each put, obstore 0.15 ms without
holding the interpreter's lock (measured). boto3 does four things:

- buckets and unfinished uploads, which obstore has no calls for;
- listings: obstore 0.12 fails a whole listing if the bucket holds a single key such as ``a//b``, returns ``dir/`` as
  ``dir``, and reports refused credentials and a missing bucket as the same generic error.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from botocore.exceptions import ClientError
from obstore.exceptions import BaseError
from obstore.store import S3Store
from pyarrow import fs

from trace_dagster.store.access import S3Access
from trace_dagster.store.clients import boto_client, error_code, mapped_errors, mapped_write_errors, obstore_client

if TYPE_CHECKING:
    from obstore import PutMode

PART_BYTES = 8 * 1024 * 1024
"""Size of the parts of a streaming upload, and of the chunks of a streaming read."""


class ObjectStore:
    """One bucket. Thread-safe.

    Every method raises Unavailable if the server does not answer, and InvalidInput if it refuses the credentials or if
    the bucket does not exist.
    """

    def __init__(self, access: S3Access, *, max_connections: int = 32) -> None:
        self.access = access
        self._filesystem: fs.S3FileSystem | None = None
        self._store = obstore_client(access)
        self._client = boto_client(access, max_connections)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create an object. Raises PreconditionFailed if the key exists."""
        self._put(key, data, "create")

    def replace(self, key: str, data: bytes, etag: str) -> None:
        """Overwrite the object that has this ETag. Raises PreconditionFailed if it has changed since."""
        self._put(key, data, {"e_tag": etag})

    def _put(self, key: str, data: bytes, mode: PutMode) -> None:
        # a single PUT: conditions on CompleteMultipartUpload are not reliable
        with mapped_errors(key):
            obstore.put(self._store, key, data, mode=mode, use_multipart=False)

    def get(self, key: str) -> tuple[bytes, str]:
        """Return the object's bytes and ETag. Raises Unavailable if there is no such object."""
        with mapped_errors(key):
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
        with mapped_errors(key):
            try:
                found = obstore.get(self._store, key)
            except FileNotFoundError as error:
                if error_code(error) == "NoSuchBucket":
                    raise
                return None
            for chunk in found.stream(min_chunk_size=PART_BYTES):
                digest.update(chunk)
                take(chunk)
        return digest.hexdigest()

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with ``prefix``, a page of 1,000 per request."""
        with mapped_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.access.bucket, Prefix=prefix)
            for page in pages:
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, 1,000 per request. Keys that do not exist are ignored."""
        with mapped_errors(""):
            obstore.delete(self._store, list(keys))

    def stale_uploads(self, older_than_seconds: float) -> list[tuple[str, str]]:
        """Return ``(key, upload id)`` of unfinished multipart uploads that were started longer ago than that."""
        border = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with mapped_errors(""):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.access.bucket)
            return [
                (entry["Key"], entry["UploadId"])
                for page in pages
                for entry in page.get("Uploads", ())
                if entry["Initiated"] < border
            ]

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Delete the parts of an unfinished upload. An upload that no longer exists is ignored."""
        with mapped_errors(key), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(Bucket=self.access.bucket, Key=key, UploadId=upload_id)

    def upload(self, key: str) -> Upload:
        """Start a streaming upload. Nothing is sent before the first 8 MiB are written."""
        return Upload(self._store, key)

    def filesystem(self) -> fs.S3FileSystem:
        """Return the file system through which Arrow reads Parquet. All callers share one and its connections.

        It is Arrow's own, because most files are small: 200 files of 1,000 rows take 0.27 s through it and 0.46 s
        through obstore's fsspec file system, which takes the interpreter's lock for each read (one file of 288 MB
        takes 0.55 s and 0.37 s). obstore's readers also aborted the process when it exited (pyarrow 26, obstore 0.12).
        """
        if self._filesystem is None:
            self._filesystem = self._new_filesystem()
        return self._filesystem

    def _new_filesystem(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            access_key=self.access.access_key,
            secret_key=self.access.secret_key,
            region=self.access.region,
            endpoint_override=self.access.host if self.access.endpoint else None,
            scheme="https" if self.access.use_ssl else "http",
            background_writes=False,
        )


class Upload:
    """A write-only file whose bytes are sent in parts of 8 MiB. A file of at most one part is a single PUT.

    The object becomes visible when :meth:`finish` returns. Memory is the part that is filled and the one that is sent.
    """

    def __init__(self, store: S3Store, key: str) -> None:
        self._key = key
        self._writer = obstore.open_writer(store, key, buffer_size=PART_BYTES, max_concurrency=1)
        self._digest = hashlib.sha256()
        self._aborted = False
        self.bytes_written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Append bytes; returns how many. After :meth:`abort` they are dropped: a Parquet writer ends with a footer."""
        if self._aborted:
            return len(data)
        with mapped_write_errors(self._key):
            self._writer.write(data)
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
        with mapped_write_errors(self._key):
            self._writer.close()
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Delete the parts that were sent, unless :meth:`finish` was called. Never raises."""
        self.closed = self._aborted = True
        error = RuntimeError("aborted")
        with suppress(BaseError, OSError):
            self._writer.__exit__(RuntimeError, error, None)  # leaving with an error is how obstore's writer aborts


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
    store = ObjectStore(access)
    with mapped_errors(""):
        try:
            store._client.head_bucket(Bucket=access.bucket)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                raise
            store._client.create_bucket(Bucket=access.bucket)
