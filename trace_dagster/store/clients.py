"""The clients of the object store, obstore and boto3, and the translation of their errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
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

from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.loopback import on_loopback
from trace_dagster.store.access import S3Access

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

_SILENT = "the object store does not answer: check TRACE_S3_ENDPOINT, or that `trace-lite up` is running"
_ERROR_CODE = re.compile(r"<Code>(\w+)</Code>")


class PreconditionFailed(Exception):
    """The object is not in the state that a conditional put requires."""


def obstore_client(access: S3Access) -> S3Store:
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


def boto_client(access: S3Access, max_connections: int) -> Any:
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
def mapped_errors(key: str) -> Iterator[None]:
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
def mapped_write_errors(key: str) -> Iterator[None]:
    """Translate the errors of obstore's writer, which are OSError unless they have a class of their own."""
    with mapped_errors(key):
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
    code = error_code(error)
    return _no_bucket() if code == "NoSuchBucket" else Unavailable("the object store failed a request", code=code)


def error_code(error: FileNotFoundError) -> str:
    """Return S3's error code. obstore gives it only in the text, as part of the response body."""
    found = _ERROR_CODE.search(str(error))
    return found[1] if found else "404"


def _refused(code: str) -> InvalidInput:
    return InvalidInput(
        "the object store refuses these credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", code=code
    )


def _no_bucket() -> InvalidInput:
    return InvalidInput("the bucket does not exist: create it, or check TRACE_S3_BUCKET")
