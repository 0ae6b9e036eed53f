"""RPC pools: names in YAML, URLs only in the environment."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace

from trace_dagster.messages.redaction import protect

BATCH_CALLS = 50
"""JSON-RPC calls per HTTP request: providers accept at least 100, and 50 blocks of a busy chain stay below 25 MB."""

_FINGERPRINT = re.compile(r"#([0-9a-f]{16})$")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One node of a pool. Its URL contains a key, therefore messages show its name, ``standard#1``."""

    pool: str
    position: int
    url: str = field(repr=False)
    gateway_url: str = field(default="", repr=False)
    """A gateway's URL for this endpoint; empty if requests go to the endpoint directly."""
    batch: int = BATCH_CALLS
    """Most JSON-RPC calls that it accepts in one HTTP request."""

    def __post_init__(self) -> None:
        """Have the URL redacted wherever it shows up, because the node may echo it."""
        protect([self.url], public=[self.pool])

    @property
    def name(self) -> str:
        """The pool's name and the endpoint's position in the pool's list, counted from 1."""
        return f"{self.pool}#{self.position}"

    @property
    def address(self) -> str:
        """The URL that requests go to."""
        return self.gateway_url or self.url

    def again(self, attempt: int) -> Endpoint:
        """Return the endpoint for another attempt: a gateway then uses no answers that it cached in the
        attempts before.
        """
        return replace(self, gateway_url=f"{self.gateway_url}?try={attempt}") if self.gateway_url and attempt else self

    @property
    def fingerprint(self) -> str:
        """An id of the URL that is stable across restarts and does not reveal it."""
        found = _FINGERPRINT.search(self.url)
        return found[1] if found else hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def local_url(self, gateway_url: str) -> str:
        """Return a gateway's URL for this endpoint, for processes that must not know the endpoint's own.

        It has the same fingerprint: servers do not get what follows the ``#``.
        """
        return f"{gateway_url}/{self.pool}/{self.position}#{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one endpoint of a pool, for all processes together; None if there is no limit."""

    requests_per_second: float | None = None
    """JSON-RPC calls per second, as providers count them: each call of a batch counts."""
    concurrency: int | None = None
    """HTTP requests in flight."""
    batch: int = BATCH_CALLS
    """Most JSON-RPC calls in one HTTP request; 1 if the endpoint accepts no batches."""

    @property
    def are_set(self) -> bool:
        """True if there is a limit that the processes must share."""
        return self.requests_per_second is not None or self.concurrency is not None


@dataclass(frozen=True, slots=True)
class RpcPool:
    """A named set of endpoints. URLs contain keys: they never appear in repr, logs or errors."""

    name: str
    urls: tuple[str, ...] = field(repr=False)
    quorum: int = 1
    """Number of endpoints that must return the same rows before a commit."""
    limits: Limits = Limits()
    """The limits of each endpoint."""
    gateway_urls: tuple[str, ...] = field(default=(), repr=False)
    """The gateway URLs of the endpoints, in order; empty if requests go to all endpoints directly."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints in the order of the configuration."""
        gateway_urls = self.gateway_urls or ("",) * len(self.urls)
        return tuple(
            Endpoint(self.name, position, url, gateway_url, self.limits.batch)
            for position, (url, gateway_url) in enumerate(zip(self.urls, gateway_urls, strict=True), 1)
        )


def variable_of(name: str, setting: str = "URL") -> str:
    """Return the name of the environment variable with a pool's URLs, or with another setting of the pool."""
    return f"TRACE_RPC_POOL_{name.upper()}_{setting}"
