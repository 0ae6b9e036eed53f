"""RPC pools: names in YAML, URLs only in the environment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from trace_dagster.errors import InvalidInput

POOL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VARIABLE = re.compile(r"TRACE_RPC_POOL_([A-Z][A-Z0-9_]{0,63})_URL")
FALLBACK_VARIABLE = "TRACE_CRYO_RPC_URL"
GATEWAY_VARIABLE = "TRACE_RPC_GATEWAY_URL"
"""Where the gateway is that remote and limited endpoints are asked through."""


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


def pools_from(environment: Mapping[str, str]) -> dict[str, RpcPool]:
    """Every pool that ``environment`` names. Raises InvalidInput for a value that is no http(s) URL."""
    pools: dict[str, RpcPool] = {}
    for variable, value in environment.items():
        match = _VARIABLE.fullmatch(variable)
        if match and value.strip():
            name = match[1].lower()
            pools[name] = _pool(name, _urls(variable, value), environment)
    return pools


def pool_named(name: str, environment: Mapping[str, str]) -> RpcPool:
    """The pool called ``name``, or the fallback URL under that name.

    Raises InvalidInput, naming the variable to set, when neither is there.
    """
    pools = pools_from(environment)
    if name in pools:
        return pools[name]
    fallback = environment.get(FALLBACK_VARIABLE, "").strip()
    if fallback:
        return _pool(name, _urls(FALLBACK_VARIABLE, fallback), environment)
    raise InvalidInput(
        f"rpc pool {name!r} has no URL: set {variable_of(name)} and restart `trace-lite up` with it",
        known=",".join(sorted(pools)) or "none",
    )


def _pool(name: str, urls: tuple[str, ...], environment: Mapping[str, str]) -> RpcPool:
    quorum = _number(name, "QUORUM", environment, most=len(urls), of=f"the pool's {len(urls)} endpoints")
    limits = Limits(
        requests_per_second=_number(name, "RPS", environment, most=1_000_000),
        concurrency=_number(name, "CONCURRENCY", environment, most=10_000),
        batch=_number(name, "BATCH", environment, most=1000) or BATCH_CALLS,
    )
    return RpcPool(name, urls, quorum or 1, limits)


def _number(name: str, setting: str, environment: Mapping[str, str], *, most: int, of: str = "") -> int | None:
    """``TRACE_RPC_POOL_<NAME>_<SETTING>``, from 1 to ``most``; None where it is not set."""
    variable = variable_of(name, setting)
    written = environment.get(variable, "").strip()
    if not written:
        return None
    if not (written.isascii() and written.isdecimal() and len(written) < 9 and 1 <= int(written) <= most):
        raise InvalidInput(f"{variable} must be a number from 1 to {of or most}")
    return int(written)


def _urls(variable: str, value: str) -> tuple[str, ...]:
    urls = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    for url in urls:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise InvalidInput(f"{variable} must hold http:// or https:// URLs, comma-separated (value not shown)")
    return urls
