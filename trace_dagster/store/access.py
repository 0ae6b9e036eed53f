"""Address and credentials of the object store."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from trace_dagster.errors import InvalidInput

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Access:
    """One bucket on one S3 server. ``endpoint`` is a URL; None means AWS itself.

    Without ``access_key`` the credentials come from boto3's default chain, see ``credentials.py``.
    """

    bucket: str
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    endpoint: str | None = field(default=None, repr=False)
    region: str = DEFAULT_REGION
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None

    def __post_init__(self) -> None:
        if self.endpoint is None:
            return
        try:
            parts = urlsplit(self.endpoint)
            sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.username
        except ValueError:
            sound = False
        if not sound:
            raise InvalidInput("TRACE_S3_ENDPOINT must look like http://127.0.0.1:9000 (value not shown)")

    @property
    def host(self) -> str:
        """``host:port`` of the endpoint, without the scheme."""
        return urlsplit(self.endpoint).netloc if self.endpoint else f"s3.{self.region}.amazonaws.com"

    @property
    def hostname(self) -> str:
        """Host without the port."""
        return urlsplit(f"//{self.host}").hostname or ""

    @property
    def port(self) -> int:
        """Port of the endpoint; if it names none, that of its scheme."""
        return urlsplit(f"//{self.host}").port or (443 if self.use_ssl else 80)

    @property
    def use_ssl(self) -> bool:
        """Whether the endpoint uses TLS."""
        return self.endpoint is None or self.endpoint.startswith("https:")

    def key(self, uri: str) -> str:
        """Return the key of an ``s3://`` URI of this bucket."""
        return uri.removeprefix(self.uri(""))

    def uri(self, key: str) -> str:
        """Return ``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"
