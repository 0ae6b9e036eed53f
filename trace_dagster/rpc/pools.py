"""RPC pools: names in YAML, URLs only in the environment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from trace_dagster.errors import InvalidInput

POOL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_VARIABLE = re.compile(r"TRACE_RPC_POOL_([A-Z][A-Z0-9_]{0,63})_URL")
FALLBACK_VARIABLE = "TRACE_CRYO_RPC_URL"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One node of a pool. Its URL carries a key: people see its name, ``standard#1``."""

    pool: str
    position: int
    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """Pool and place in the pool's list, counted from 1."""
        return f"{self.pool}#{self.position}"

    @property
    def fingerprint(self) -> str:
        """Names the URL across restarts and reorderings, without telling it."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RpcPool:
    """A named set of endpoints. URLs carry keys: they never show in repr, logs or errors."""

    name: str
    urls: tuple[str, ...] = field(repr=False)
    quorum: int = 1
    """How many endpoints must give the same rows before they are committed."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every node, in the order written."""
        return tuple(Endpoint(self.name, position, url) for position, url in enumerate(self.urls, 1))


def variable_of(name: str) -> str:
    """The environment variable that holds a pool's URLs."""
    return f"TRACE_RPC_POOL_{name.upper()}_URL"


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
    variable = f"TRACE_RPC_POOL_{name.upper()}_QUORUM"
    written = environment.get(variable, "").strip() or "1"
    if not (written.isascii() and written.isdecimal() and 1 <= int(written) <= len(urls)):
        raise InvalidInput(f"{variable} must be a number from 1 to the pool's {len(urls)} endpoints")
    return RpcPool(name, urls, int(written))


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
