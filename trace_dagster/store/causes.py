"""Why the object store failed a request: the one place that translates the errors of obstore and boto3.

Servers answer with S3's error codes. If there is no answer, the libraries say little (obstore's writer only "error
sending request"), so :func:`silence` connects once more and says at which step that fails: name, port, TLS, HTTP.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.request import getproxies, proxy_bypass

from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from trace_dagster.errors import TraceError, Unavailable, WrongSetup
from trace_dagster.loopback import on_loopback
from trace_dagster.messages.redaction import redact
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import credential_error, current_keys

_CONNECT_SECONDS = 5.0
_CODE = re.compile(r"<Code>\s*([\w.]+)\s*</Code>|\(code: (\w+)\)")
"""In the body of a response, or of one key of a batch that obstore deletes."""

_STATUS = re.compile(r"status code: (\d{3})")

_WRONG_KEY = {"InvalidAccessKeyId", "InvalidSecurity", "SignatureDoesNotMatch", "NotSignedUp", "UnauthorizedAccess"}
_OUTDATED_KEY = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_OTHER_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict"}


class PreconditionFailed(Exception):
    """The object is not in the state that a conditional put requires."""


@contextmanager
def mapped_errors(access: S3Access, action: str, key: str = "") -> Iterator[None]:
    """Translate the errors of one request that is to ``action`` ("read from", "write to") the bucket.

    They are not chained: their texts hold the address, and a server may repeat a session token.
    """
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise PreconditionFailed(key) from None
    except ClientError as error:
        if (of_credentials := credential_error(error)) is not None:
            raise of_credentials from None
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise _answered("" if code == str(status) else code, status, access, action, key) from None
    except (BaseError, OSError) as error:  # obstore's writer raises OSError; a missing object is FileNotFoundError
        if getattr(error, "errno", None) is not None:
            raise  # of this machine, such as a full disk
        raise _of_obstore(error, access, action, key) from None
    except BotoCoreError as error:
        raise credential_error(error) or silence(access, type(error).__name__) from None


def is_missing(error: FileNotFoundError) -> bool:
    """Return whether the server says that it has no such object, and not that it has no such bucket or is no S3."""
    return _code(error) == "NoSuchKey"


def silence(access: S3Access, reason: str) -> TraceError:
    """Return the error for a server that did not answer. Connects to the server to find at which step that fails."""
    if access.endpoint is None or (not on_loopback(access.endpoint) and _through_proxy(access)):
        return Unavailable("the object store does not answer: check TRACE_S3_ENDPOINT and AWS_REGION", reason=reason)
    try:
        with socket.create_connection((access.hostname, access.port), _CONNECT_SECONDS) as connection:
            return _speaks(access, connection) or Unavailable(
                "the server at TRACE_S3_ENDPOINT ends the connection without an answer: check its port, or try again"
                " later",
                reason=reason,
            )
    except socket.gaierror:
        return Unavailable("the host of TRACE_S3_ENDPOINT is not known: check its name, or this machine's DNS")
    except TimeoutError:
        return Unavailable("the object store does not answer: nothing came back from TRACE_S3_ENDPOINT in 5 seconds")
    except OSError as error:
        return Unavailable(
            "the object store does not answer: nothing listens at TRACE_S3_ENDPOINT; check its host and port,"
            " or that `trace-lite up` is running",
            reason=type(error).__name__,
        )


def _of_obstore(error: Exception, access: S3Access, action: str, key: str) -> Exception:
    text = str(error)
    status = _STATUS.search(text)
    code = _code(error)
    if status is None and not code:
        try:
            current_keys(access)  # obstore does not say that it got no credentials
        except TraceError as of_credentials:
            return of_credentials
        return silence(access, type(error).__name__)
    return _answered(code, int(status[1]) if status else None, access, action, key)


def _code(error: Exception) -> str:
    """Return S3's error code. obstore has it only in the text, as a part of the response's body."""
    found = _CODE.search(str(error))
    return (found[1] or found[2]) if found else ""


def _answered(code: str, status: int | None, access: S3Access, action: str, key: str) -> Exception:
    """Return the error for an answer of the server."""
    if status == 412 or code in _CONFLICT:
        return PreconditionFailed(key)
    if code in _OUTDATED_KEY:
        return WrongSetup("the credentials of the object store have expired: renew them", code=code)
    if code == "RequestTimeTooSkewed":
        return WrongSetup("the clock of this machine is not the object store's: set it", code=code)
    if code in _OTHER_REGION or status == 301:
        return WrongSetup("the bucket is in another region: check AWS_REGION", code=code or status)
    if code in _WRONG_KEY or status == 401:
        return WrongSetup(
            "the object store refuses these credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            code=code or status,
        )
    if code == "NoSuchBucket":
        return WrongSetup("the bucket does not exist: create it with `trace-lite migrate`, or check TRACE_S3_BUCKET")
    if status == 403 or code == "AccessDenied":
        return WrongSetup(
            f"these credentials may not {action} the bucket: docs/operations.md has the policy that they need",
            code=code or status,
        )
    if not code and status is not None and status < 500:
        return _no_store(access, status=status)
    return Unavailable("the object store failed a request", code=code or status)


def _speaks(access: S3Access, connection: socket.socket) -> TraceError | None:
    """Return what is wrong with the protocol on an open connection; None if nothing is."""
    if access.use_ssl:
        return _tls_error(access, connection)
    connection.settimeout(_CONNECT_SECONDS)
    answer = b""
    with suppress(OSError):
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {access.host}\r\nConnection: close\r\n\r\n".encode())
        answer = connection.recv(4096)
    if answer.startswith(b"HTTP/") or not (answer or _takes_tls(access)):
        return None
    return _no_store(access)


def _no_store(access: S3Access, **facts: object) -> TraceError:
    if not access.use_ssl and access.endpoint is not None and _takes_tls(access):
        return WrongSetup("the server at TRACE_S3_ENDPOINT speaks TLS: write https:// in it", **facts)
    return WrongSetup("the server at TRACE_S3_ENDPOINT is not an object store: check its host and port", **facts)


def _tls_error(access: S3Access, connection: socket.socket) -> TraceError | None:
    try:
        with ssl.create_default_context().wrap_socket(connection, server_hostname=access.hostname):
            return None
    except ssl.SSLCertVerificationError as error:
        return WrongSetup(
            "the TLS certificate of the object store is not trusted: add its authority to SSL_CERT_FILE,"
            f" or check the host: {redact(error.verify_message)}"
        )
    except ssl.SSLError as error:
        return WrongSetup(
            "the TLS handshake with the object store failed: check the port, or write http:// in TRACE_S3_ENDPOINT"
            " if it speaks no TLS",
            reason=error.reason,
        )
    except OSError:
        return None


def _takes_tls(access: S3Access) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to learn whether it is TLS; nothing is sent
    try:
        with (
            socket.create_connection((access.hostname, access.port), _CONNECT_SECONDS) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except OSError:
        return False


def _through_proxy(access: S3Access) -> bool:
    return ("https" if access.use_ssl else "http") in getproxies() and not proxy_bypass(access.hostname)
