"""Credentials of the object store and of SQS: a key from the settings, or those that boto3's default chain finds.

The chain is the only source of temporary credentials (environment, profile, SSO, web identity, container and instance
roles), and boto3 renews them. obstore reads them through its boto3 provider; Arrow and DuckDB, which cannot renew
credentials that they were given, get the current ones when they are opened.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from trace_dagster.errors import TraceError, Unavailable, WrongSetup
from trace_dagster.messages.redaction import protect
from trace_dagster.store.access import S3Access

if TYPE_CHECKING:
    from boto3 import Session
    from obstore.store import S3Credential

RENEWED = timedelta(minutes=10)
"""Lifetime that obstore assumes. It requests new credentials when half of it is left. boto3 renews a key that expires
within ten minutes. obstore's own default of 30 minutes outlives keys of a role."""

_creating = threading.Lock()
"""boto3's sessions are not thread-safe while they create clients."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials as they are at one moment."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where credentials come from: fixed ones, or boto3's default chain, which ``profile`` may narrow."""

    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    profile: str | None = None
    region: str | None = None
    """Where a role is assumed; None for the profile's own region."""

    @classmethod
    def of(cls, access: S3Access) -> CredentialSource:
        """Return the source of the object store's credentials."""
        return cls(access.access_key, access.secret_key, access.session_token, access.profile, access.region)

    @property
    def fixed(self) -> Keys | None:
        """The credentials that the settings hold; None if they come from the chain."""
        if self.access_key is None or self.secret_key is None:
            return None
        return Keys(self.access_key, self.secret_key, self.token)

    def current(self) -> Keys:
        """Return credentials that are valid for at least the next minutes; boto3 renews them if needed.

        Raises InvalidInput if there are none or AWS refuses to give any, Unavailable if their source does not answer.
        """
        if self.fixed is not None:
            return self.fixed
        with _mapped_errors():
            found = _session(self).get_credentials()
            if found is None:
                raise _none_found()
            frozen = found.get_frozen_credentials()
        protect(secret for secret in (frozen.secret_key, frozen.token) if secret)
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client that signs with these credentials, renewed when needed."""
        with _mapped_errors():
            session = _session(self)
            if self.fixed is None and session.get_credentials() is None:
                raise _none_found()
        with _creating:
            return session.client(service, **options)

    def obstore_provider(self) -> Any:
        """Return the function that obstore calls for credentials. A fixed key never asks Python again."""
        keys = self.current()
        if self.fixed is None:
            from obstore.auth.boto3 import Boto3CredentialProvider

            return Boto3CredentialProvider(_session(self), ttl=RENEWED)

        def fixed() -> S3Credential:
            return {
                "access_key_id": keys.access_key,
                "secret_access_key": keys.secret_key,
                "token": keys.token,
                "expires_at": None,
            }

        return fixed


def current_keys(access: S3Access) -> Keys:
    """Return the object store's credentials of this moment, for a client that cannot renew them.

    Call it for each DuckDB session and each query of a session that lives longer. Raises as
    :meth:`CredentialSource.current`.
    """
    return CredentialSource.of(access).current()


def with_current_keys(access: S3Access) -> S3Access:
    """Return ``access`` with the credentials of this moment, for another process. Raises as :func:`current_keys`."""
    keys = current_keys(access)
    return replace(
        access, access_key=keys.access_key, secret_key=keys.secret_key, session_token=keys.token, profile=None
    )


def profile_region(profile: str | None) -> str | None:
    """Return the region that the profile, or the default one, names in ``~/.aws/config``; None if it has none."""
    with _mapped_errors():
        found = _session(CredentialSource(profile=profile)).region_name
    return None if found is None else str(found)


@cache
def _session(source: CredentialSource) -> Session:
    """Return the session of a source, one per process: its credentials are fetched and renewed a single time for all.

    With a fixed key AWS_PROFILE has no effect: boto3 would fail if it names a profile that does not exist.
    """
    import boto3
    import botocore.session

    variables = {"profile": (None, None, None, None)} if source.fixed else None
    return boto3.Session(
        botocore_session=botocore.session.Session(variables),
        aws_access_key_id=source.access_key,
        aws_secret_access_key=source.secret_key,
        aws_session_token=source.token,
        profile_name=source.profile,
        region_name=source.region,
    )


@contextmanager
def _mapped_errors() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise credential_error(error) or Unavailable(
            "the credentials of the object store cannot be fetched: check the role, or set AWS_ACCESS_KEY_ID",
            reason=type(error).__name__,
        ) from None  # not chained: the texts of the chain's errors may hold addresses and paths


def credential_error(error: Exception) -> TraceError | None:
    """Translate an error of boto3's chain, which may come with any request; None if it is not about credentials."""
    from botocore import exceptions

    reason = type(error).__name__
    if isinstance(error, exceptions.ProfileNotFound):
        return WrongSetup("~/.aws has no such profile: check AWS_PROFILE, or set AWS_ACCESS_KEY_ID")
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return _none_found()
    if isinstance(error, exceptions.SSOError | exceptions.TokenRetrievalError):
        return WrongSetup("the SSO session is over: run `aws sso login`", reason=reason)
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.MetadataRetrievalError):
        return Unavailable(
            "the credentials of the object store cannot be fetched: the role's service does not answer as it should",
            reason=reason,
        )
    if isinstance(error, exceptions.ClientError) and error.operation_name.startswith(("AssumeRole", "GetRole")):
        code = error.response.get("Error", {}).get("Code")
        return WrongSetup("AWS gives no credentials for this role: check its trust policy", code=code)
    return None


def _none_found() -> WrongSetup:
    return WrongSetup(
        "there are no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
        " AWS_PROFILE, give this machine a role, or start a stack here with `trace-lite up --detach`"
    )
