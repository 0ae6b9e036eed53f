"""The clients of the object store: obstore and boto3."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.config import Config
from obstore.store import S3Store

from trace_dagster.loopback import on_loopback
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import CredentialSource

if TYPE_CHECKING:
    from obstore.store import ClientConfig


def obstore_client(access: S3Access) -> S3Store:
    """Return obstore's client. It ignores AWS_* variables: a stray session token would break every request."""
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
        credential_provider=CredentialSource.of(access).obstore_provider(),
        client_options=options,
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
    )


def boto_client(access: S3Access, max_connections: int) -> Any:
    return CredentialSource.of(access).client(
        "s3",
        endpoint_url=access.endpoint,
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
