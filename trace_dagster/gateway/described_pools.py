"""What a gateway tells of its pools, for processes that know only the gateway: endpoints and limits, but no URL."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import msgspec

from trace_dagster.config.settings import RpcSettings
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.rpc.pools import BATCH_CALLS, Limits, RpcPool, local_url, variable_of

REMEMBERED_SECONDS = 30.0
"""Seconds after which a pool is asked for again: its gateway may have been restarted with other endpoints."""

_TIMEOUT_SECONDS = 3.0


class _Pool(msgspec.Struct):
    """A pool without its URLs."""

    fingerprints: list[str]
    """Of its endpoints, in order; empty if the gateway does not know the pool."""
    known: list[str] = []
    """The names of all pools, if it does not."""
    quorum: int = 1
    requests_per_second: float | None = None
    concurrency: int | None = None
    batch: int = BATCH_CALLS


def described(rpc: RpcSettings, name: str) -> bytes:
    """Return a pool as JSON, for :class:`PoolReader`."""
    try:
        pool = rpc.pool(name)
    except InvalidInput:
        return msgspec.json.encode(_Pool([], sorted(rpc.pools)))
    fingerprints = [endpoint.fingerprint for endpoint in pool.endpoints]
    limits = pool.limits
    return msgspec.json.encode(
        _Pool(fingerprints, [], pool.quorum, limits.requests_per_second, limits.concurrency, limits.batch)
    )


class PoolReader:
    """Asks the gateway at ``url`` for its pools. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._read: dict[str, tuple[float, RpcPool]] = {}

    def pool(self, name: str) -> RpcPool:
        """Return a pool whose endpoints have the gateway's URLs, and the limits and quorum that the gateway knows.

        If the gateway does not answer, what it said before still holds. Raises Unavailable if it has said nothing yet,
        InvalidInput if it does not know the pool or refuses the token.
        """
        with self._lock:
            read_at, pool = self._read.get(name, (float("-inf"), None))
            if pool is not None and time.monotonic() - read_at < REMEMBERED_SECONDS:
                return pool
            try:
                found = self._ask(name)
            except Unavailable:
                if pool is None:
                    raise
                found = pool  # calls to its endpoints tell that the gateway is gone
            self._read[name] = (time.monotonic(), found)
            return found

    def _ask(self, name: str) -> RpcPool:
        told = self._told(name)
        if not told.fingerprints:
            raise InvalidInput(
                f"rpc pool {name!r} has no URL: set {variable_of(name)} and restart `trace-lite up`, or the rpc"
                " gateway if it is a service of its own",
                known=",".join(told.known) or "none",
            )
        places = enumerate(told.fingerprints, 1)
        urls = tuple(local_url(self._url, name, position, fingerprint) for position, fingerprint in places)
        return RpcPool(name, urls, told.quorum, Limits(told.requests_per_second, told.concurrency, told.batch))

    def _told(self, name: str) -> _Pool:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self._url}/{name}/endpoints", timeout=_TIMEOUT_SECONDS) as answer:
                return msgspec.json.decode(answer.read(), type=_Pool)
        except urllib.error.HTTPError as error:
            error.close()
            raise InvalidInput(
                "the rpc gateway refuses the URL: end TRACE_RPC_GATEWAY_URL with the gateway's token", http=error.code
            ) from None
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise Unavailable("the rpc gateway does not answer", reason=type(error).__name__) from None
