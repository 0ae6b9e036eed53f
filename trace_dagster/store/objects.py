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
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import obstore
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store
from pyarrow import fs

from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.loopback import on_loopback
from trace_dagster.store.access import S3Access

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ClientConfig, S3Credential

PART_BYTES = 8 * 1024 * 1024
"""Size of the parts of a streaming upload, and of the chunks of a streaming read."""

_SILENT = "the object store does not answer: check TRACE_S3_ENDPOINT, or that `trace-lite up` is running"
_ERROR_CODE = re.compile(r"<Code>(\w+)</Code>")


class PreconditionFailed(Exception):
    """The object is not in the state that a conditional put requires."""


class ObjectStore:
    """One bucket. Thread-safe.

    Every method raises Unavailable if the server does not answer, and InvalidInput if it refuses the credentials or if
    the bucket does not exist.
    """

    def __init__(self, access: S3Access, *, max_connections: int = 32) -> None:
        self.access = access
        self._filesystem: fs.S3FileSystem | None = None
        self._store = _obstore_client(access)
        self._client = _boto_client(access, max_connections)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Create an object. Raises PreconditionFailed if the key exists."""
        self._put(key, data, "create")

    def replace(self, key: str, data: bytes, etag: str) -> None:
        """Overwrite the object that has this ETag. Raises PreconditionFailed if it has changed since."""
        self._put(key, data, {"e_tag": etag})

    def _put(self, key: str, data: bytes, mode: PutMode) -> None:
        # a single PUT: conditions on CompleteMultipartUpload are not reliable
        with _mapped(key):
            obstore.put(self._store, key, data, mode=mode, use_multipart=False)

    def get(self, key: str) -> tuple[bytes, str]:
        """Return the object's bytes and ETag. Raises Unavailable if there is no such object."""
        with _mapped(key):
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
        with _mapped(key):
            try:
                found = obstore.get(self._store, key)
            except FileNotFoundError as error:
                if _code_of(error) == "NoSuchBucket":
                    raise
                return None
            for chunk in found.stream(min_chunk_size=PART_BYTES):
                digest.update(chunk)
                take(chunk)
        return digest.hexdigest()

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with ``prefix``, a page of 1,000 per request."""
        with _mapped(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.access.bucket, Prefix=prefix)
            for page in pages:
                yield from (entry["Key"] for entry in page.get("Contents", ()))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, 1,000 per request. Keys that do not exist are ignored."""
        with _mapped(""):
            obstore.delete(self._store, list(keys))

    def stale_uploads(self, older_than_seconds: float) -> list[tuple[str, str]]:
        """Return ``(key, upload id)`` of unfinished multipart uploads that were started longer ago than that."""
        border = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with _mapped(""):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.access.bucket)
            return [
                (entry["Key"], entry["UploadId"])
                for page in pages
                for entry in page.get("Uploads", ())
                if entry["Initiated"] < border
            ]

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Delete the parts of an unfinished upload. An upload that no longer exists is ignored."""
        with _mapped(key), suppress(self._client.exceptions.NoSuchUpload):
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
        with _mapped_writes(self._key):
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
        with _mapped_writes(self._key):
            self._writer.close()
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Delete the parts that were sent, unless :meth:`finish` was called. Never raises."""
        self.closed = self._aborted = True
        error = RuntimeError("aborted")
        with suppress(BaseError, OSError):
            self._writer.__exit__(RuntimeError, error, None)  # leaving with an error is how obstore's writer aborts


def _obstore_client(access: S3Access) -> S3Store:
    """Return obstore's client. It ignores AWS_* variables: a stray session token would break every request."""

    def keys() -> S3Credential:
        return {
            "access_key_id": access.access_key,
            "secret_access_key": access.secret_key,
            "token": None,
            "expires_at": None,
        }

    # the read timeout limits the wait for each response and each chunk; a large object may take longer in all
    options: ClientConfig = {
        "connect_timeout": "5s",
        "read_timeout": "60s",
        "timeout": "3600s",
        "allow_http": True,
    }
    if access.endpoint and on_loopback(access.endpoint):
        # A proxy cannot reach our loopback. Naming one that is used for no host turns off the environment's proxy.
        options |= {"proxy_url": access.endpoint, "proxy_excludes": urlsplit(access.endpoint).hostname or ""}
    return S3Store(
        access.bucket,
        aws_endpoint_url_s3=access.endpoint or f"https://{access.bucket}.{access.host}",
        region=access.region,
        virtual_hosted_style_request=not access.endpoint,
        credential_provider=keys,
        client_options=options,
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
    )


def _boto_client(access: S3Access, max_connections: int) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name=access.region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if access.endpoint else "auto"},
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=max_connections,
            proxies={} if on_loopback(access.endpoint) else None,
        ),
    )


@contextmanager
def _mapped(key: str) -> Iterator[None]:
    """Translate the errors of obstore and boto3. obstore's are not chained: their texts hold the address."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise PreconditionFailed(key) from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise _refused("") from None
    except FileNotFoundError as error:  # obstore raises the builtin one, for a missing object or bucket
        raise _missing(error) from None
    except BaseError as error:
        raise Unavailable(_SILENT, reason=type(error).__name__) from None
    except ClientError as error:
        raise _meaning(error, key) from error
    except BotoCoreError as error:
        raise Unavailable(_SILENT, reason=type(error).__name__) from error


@contextmanager
def _mapped_writes(key: str) -> Iterator[None]:
    """Translate the errors of obstore's writer, which are OSError unless they have a class of their own."""
    with _mapped(key):
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:  # its text holds the address
            raise Unavailable(_SILENT, reason=type(error).__name__) from None


def _meaning(error: ClientError, key: str) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 412 or code in {"PreconditionFailed", "ConditionalRequestConflict"}:
        return PreconditionFailed(key)
    if status in {401, 403}:
        return _refused(code)
    if code == "NoSuchBucket":
        return _no_bucket()
    return Unavailable("the object store failed a request", code=code or status)


def _missing(error: FileNotFoundError) -> TraceError:
    code = _code_of(error)
    return _no_bucket() if code == "NoSuchBucket" else Unavailable("the object store failed a request", code=code)


def _code_of(error: FileNotFoundError) -> str:
    """Return S3's error code. obstore gives it only in the text, as part of the response body."""
    found = _ERROR_CODE.search(str(error))
    return found[1] if found else "404"


def _refused(code: str) -> InvalidInput:
    return InvalidInput(
        "the object store refuses these credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", code=code
    )


def _no_bucket() -> InvalidInput:
    return InvalidInput("the bucket does not exist: create it, or check TRACE_S3_BUCKET")


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
    with _mapped(""):
        try:
            store._client.head_bucket(Bucket=access.bucket)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                raise
            store._client.create_bucket(Bucket=access.bucket)
