"""RPC pools: names in YAML, URLs only in the environment."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

BATCH_CALLS = 50
"""JSON-RPC calls per HTTP request: providers take at least 100, and 50 blocks of a busy chain stay below 25 MB."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One node of a pool. Its URL carries a key: people see its name, ``standard#1``."""

    pool: str
    position: int
    url: str = field(repr=False)
    gateway_url: str = field(default="", repr=False)
    """A gateway's URL for this endpoint; empty where it is asked directly."""
    batch: int = BATCH_CALLS
    """JSON-RPC calls it takes in one HTTP request."""

    @property
    def name(self) -> str:
        """Pool and place in the pool's list, counted from 1."""
        return f"{self.pool}#{self.position}"

    @property
    def address(self) -> str:
        """Where requests go."""
        return self.gateway_url or self.url

    def again(self, attempt: int) -> Endpoint:
        """The endpoint for another try: a gateway then gives nothing it kept from the tries before."""
        return replace(self, gateway_url=f"{self.gateway_url}?try={attempt}") if self.gateway_url and attempt else self

    @property
    def fingerprint(self) -> str:
        """Names the URL across restarts and reorderings, without telling it."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one endpoint of a pool may be asked, by all processes together; None where nobody said."""

    requests_per_second: float | None = None
    """JSON-RPC calls, however many of them share an HTTP request: it is how providers count."""
    concurrency: int | None = None
    """HTTP requests under way at once."""
    batch: int = BATCH_CALLS
    """JSON-RPC calls in one HTTP request at most; 1 where the endpoint takes no batches."""

    @property
    def are_set(self) -> bool:
        """Whether somebody has to count what is asked."""
        return self.requests_per_second is not None or self.concurrency is not None


@dataclass(frozen=True, slots=True)
class RpcPool:
    """A named set of endpoints. URLs carry keys: they never show in repr, logs or errors."""

    name: str
    urls: tuple[str, ...] = field(repr=False)
    quorum: int = 1
    """How many endpoints must give the same rows before they are committed."""
    limits: Limits = Limits()
    """The same for each of its endpoints."""
    gateway_urls: tuple[str, ...] = field(default=(), repr=False)
    """Of its endpoints, in order; none where all are asked directly."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every node, in the order written."""
        gateway_urls = self.gateway_urls or ("",) * len(self.urls)
        return tuple(
            Endpoint(self.name, position, url, gateway_url, self.limits.batch)
            for position, (url, gateway_url) in enumerate(zip(self.urls, gateway_urls, strict=True), 1)
        )


def variable_of(name: str, setting: str = "URL") -> str:
    """The environment variable that holds a pool's URLs, or another setting of it."""
    return f"TRACE_RPC_POOL_{name.upper()}_{setting}"
