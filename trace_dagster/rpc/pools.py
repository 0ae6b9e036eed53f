"""RPC pools: names in YAML, URLs only in the environment."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from itertools import zip_longest

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
    websocket_url: str = field(default="", repr=False)
    """Where it pushes new heads; empty if that is not known, or not to this process."""
    is_at_tip: bool = False
    """True for calls about the newest blocks, whose answers are of no use if they come late."""

    def __post_init__(self) -> None:
        """Have the URLs redacted wherever they show up, because the node may echo them."""
        protect(filter(None, [self.url, self.websocket_url]), public=[self.pool])

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

    def tip(self) -> Endpoint:
        """Return the endpoint for calls about the newest blocks.

        A gateway sends them before all others, and neither caches nor shares their answers. Requests end within
        seconds, with and without a gateway.
        """
        if self.is_at_tip:
            return self
        gateway_url = f"{self._gateway}/{self.pool}/{self.position}/tip" if self.gateway_url else ""
        return replace(self, gateway_url=gateway_url, is_at_tip=True)

    @property
    def heads_url(self) -> str:
        """The URL at which a gateway streams the heads of this endpoint's pool; empty without a gateway."""
        return f"{self._gateway}/{self.pool}/heads" if self.gateway_url else ""

    @property
    def _gateway(self) -> str:
        return self.gateway_url.rpartition(f"/{self.pool}/{self.position}")[0]

    @property
    def fingerprint(self) -> str:
        """An id of the URL that is stable across restarts and does not reveal it."""
        found = _FINGERPRINT.search(self.url)
        return found[1] if found else hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def local_url(self, gateway_url: str) -> str:
        """Return a gateway's URL for this endpoint, for processes that must not know the endpoint's own.

        It has the same fingerprint: servers do not get what follows the ``#``.
        """
        return local_url(gateway_url, self.pool, self.position, self.fingerprint)


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
    websocket_urls: tuple[str, ...] = field(default=(), repr=False)
    """Where the endpoints push new heads, in order: fewer than endpoints, or empty, where none is known."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints in the order of the configuration."""
        gateway_urls = self.gateway_urls or ("",) * len(self.urls)
        return tuple(
            Endpoint(self.name, position, url, gateway_url, self.limits.batch, websocket_url)
            for position, (url, gateway_url, websocket_url) in enumerate(
                zip_longest(self.urls, gateway_urls, self.websocket_urls, fillvalue=""), 1
            )
        )


def local_url(gateway_url: str, pool: str, position: int, fingerprint: str) -> str:
    """Return a gateway's URL for an endpoint of a pool; see :meth:`Endpoint.local_url`."""
    return f"{gateway_url}/{pool}/{position}#{fingerprint}"


def variable_of(name: str, setting: str = "URL") -> str:
    """Return the name of the environment variable with a pool's URLs, or with another setting of the pool."""
    return f"TRACE_RPC_POOL_{name.upper()}_{setting}"
