"""The command `trace-lite serve`: the query service in the foreground."""

from __future__ import annotations

import errno
import ipaddress
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from trace_dagster.cli.query_limits import limits_of
from trace_dagster.config.settings import QuerySettings, Settings
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.query.opening import Opening
from trace_dagster.query.runner import QueryRunner
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.migrations import is_current
from trace_dagster.service.parts import Parts
from trace_dagster.service.server import server
from trace_dagster.store.objects import ObjectStore

_BACKLOG = 2048
_DESCRIPTORS = 8192
"""Four for each query and each connection to the registry, of at most 256 queries, and one for each client."""
_CONNECT_SECONDS = 2.0
"""A registry that is away is an answer of 503 after so long, and is found again as soon as it is back."""


def run_service(settings: Settings, say: Callable[[str], None], host: str, port: int) -> None:
    """Serve queries on an address until Ctrl-C.

    Raises InvalidInput if the registry's schema is not current or the address cannot be used, Unavailable if the
    registry does not answer.
    """
    if not is_current(settings.complete().postgres_url):
        raise InvalidInput("the registry's schema is not current: run `trace-lite migrate`")
    if not is_of_this_machine(host):
        say(
            f"note: the service listens on {host} without TLS, so tokens and rows can be read on the network: let a"
            " proxy with TLS stand before it"
        )
    allow_descriptors()
    # the server ends by the handler that it found: the default one would end the process before anything is closed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with closing(listening(host, port)) as listener, service_parts(settings) as parts:
        say(f"queries are answered at {_url(host, listener)}   (ctrl-c ends it)")
        server(parts, host, port).run([listener])


def allow_descriptors() -> None:
    """Let this process open as many files as connections and queries need. Most systems allow 1024 at first, and more
    to a process that asks: without them, clients that only hold connections would keep queries from their files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address. Raises InvalidInput if the port is taken or the host is not ours."""
    try:
        family, *_ = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((host.strip("[]"), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InvalidInput(f"port {port} is taken: end what uses it, or pass another --port") from None
        if error.errno == errno.EACCES:
            raise InvalidInput(f"port {port} is for root only: pass a --port of 1024 or more") from None
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput(f"{host[:100]!r} is no address of this machine: pass another --host") from None
        raise Unavailable("the service cannot listen", reason=error.strerror) from None


@contextmanager
def service_parts(settings: Settings) -> Iterator[Parts]:
    """Make the parts of the service. Objects are read with the key that may only read, if there is one."""
    asked, access = settings.query, settings.s3_for_queries
    database = Database(
        settings.postgres_url,
        max_connections=_connections(asked),
        connect_timeout_seconds=_CONNECT_SECONDS,
        reconnect_seconds=_CONNECT_SECONDS,
    )
    with closing(database), QueryRunner(limits_of(asked), ahead=asked.running) as runner:
        catalog = Catalog(database)
        opening = Opening(catalog, access, CommittedObjects(database, ObjectStore(access)))
        yield Parts(asked, database, catalog, opening, runner)


def is_of_this_machine(host: str) -> bool:
    """Return whether only processes of this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _url(host: str, listener: socket.socket) -> str:
    name = host.strip("[]")
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"


def _connections(settings: QuerySettings) -> int:
    """Return how many connections to the registry the service needs: two for each query that runs, and some more."""
    return 2 * settings.running + 8
