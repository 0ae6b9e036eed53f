"""The laptop stack: Postgres, S3, devchain, gateway, follower, query service and Dagster, started in order and ended
together.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from secrets import token_urlsafe
from uuid import uuid4

import psutil
import psycopg

from trace_dagster.config.local_urls import behind_gateway
from trace_dagster.config.running_stack import CREDENTIALS, STACK_VARIABLE, StackState, load_state
from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.lite.dagster_services import WEB_PASSWORD, WebServer, dagster_services, prepare_dagster
from trace_dagster.lite.devchain import devchain_service
from trace_dagster.lite.environments import (
    code_environment,
    dagster_environment,
    devchain_environment,
    follower_environment,
    gateway_variables,
    query_environment,
)
from trace_dagster.lite.follower import follower_service
from trace_dagster.lite.gateway import URL_VARIABLE, gateway_service
from trace_dagster.lite.home import Home, write_private
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.postgres import dsn, ensure_database, folder_for, postgres_service
from trace_dagster.lite.processes import Child, Service, reap
from trace_dagster.lite.query_service import end_token, login_link, make_token, query_service
from trace_dagster.lite.query_service import url_of as query_url
from trace_dagster.lite.s3 import PORT_VARIABLE, s3_service
from trace_dagster.lite.sockets import private_socket
from trace_dagster.messages.redaction import protect
from trace_dagster.registry.connection import Database, require_database
from trace_dagster.registry.forms import old_form_notes
from trace_dagster.registry.migrations import migrate
from trace_dagster.store.access import S3Access
from trace_dagster.store.probe import prepare_bucket

Say = Callable[[str], None]

STOP_SECONDS = 15.0
_SHARED = (
    "TRACE_RPC_",
    "TRACE_CRYO_",
    "TRACE_SQS_",
    "TRACE_QUERY_",
    WEB_PASSWORD,
    "TRACE_LEASE_TTL_SECONDS",
    "TRACE_MAX_ATTEMPTS",
    "TRACE_RANGES_PER_RUN",
    "TRACE_RETRY_BASE_SECONDS",
    "CRYO_BIN",
    "MAX_PARQUET",
    "MAX_TOTAL_PARQUET",
)
"""Prefixes of the variables that commands in another shell must share with the services."""

_WATCH_SECONDS = 0.5
_DETACH_SECONDS = 180.0
_STABLE_SECONDS = 60.0
"""Restarts older than this no longer count against a service."""


class Stack:
    """One stack in one TRACE_HOME: starts the services, restarts those that die, ends them together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = Home(settings.home)
        self._given = settings.child_variables()
        self._ports = Ports(settings.stack.ports)
        self._stack_id = uuid4().hex
        self._children: list[Child] = []
        self._stopping = threading.Event()
        self._has_token_in: str | None = None
        """The registry that holds the stack's token."""

    @contextmanager
    def running(self, say: Say) -> Iterator[StackState]:
        """Start everything, yield when it is healthy, and end it when the block is left."""
        self._home.prepare()
        with self._home.locked():
            self._reap_predecessor()
            try:
                state = self._start(say)
                yield state
            finally:
                self._stop()

    def run_foreground(self, say: Say, announce: Callable[[StackState], None]) -> None:
        """Start, announce the stack when it is healthy, and restart services that die, until SIGINT or SIGTERM."""
        self._stop_on_signals()
        with self.running(say) as state:
            announce(state)
            say("ctrl-c ends everything")
            self.supervise(say)
        say("stopped")

    def run_until_interrupted(self, say: Say) -> None:
        """Keep a running stack up until SIGINT or SIGTERM."""
        self._stop_on_signals()
        self.supervise(say)

    def _stop_on_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())

    def supervise(self, say: Say) -> None:
        """Restart children that die, until a signal arrives. Raises Unavailable if one dies too often."""
        restarts: dict[str, list[float]] = {}
        while not self._stopping.wait(_WATCH_SECONDS):
            for child in self._children:
                if child.dead:
                    self._revive(child, restarts.setdefault(child.service.name, []), say)

    def start_detached(self, say: Say) -> StackState:
        """Start a supervisor in a process of its own and return when everything is healthy.

        Raises InvalidInput if a stack runs in this home, Unavailable if the supervisor ends or takes too long.
        """
        self._home.prepare()
        if load_state(self._home.path) is not None:
            raise InvalidInput(
                "a stack already runs in this TRACE_HOME: use it, or end it with `trace-lite down`",
                path=self._home.path,
            )
        with self._home.locked():
            pass  # raises if another is still starting, before its log is overwritten
        say("starting")
        log = self._home.logs / "supervisor.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "trace_dagster.lite"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self._given, "TRACE_HOME": str(self._home.path)},
                start_new_session=True,
            )
        deadline = time.monotonic() + _DETACH_SECONDS
        while time.monotonic() < deadline:
            if (state := load_state(self._home.path)) is not None:
                return state
            if process.poll() is not None:
                raise Unavailable(_last_error(log), log=log)
            time.sleep(0.1)
        process.terminate()
        raise Unavailable("the stack was not healthy in time", log=log)

    def _start(self, say: Say) -> StackState:
        for log in self._home.logs.glob("*.log"):
            if log.name != "supervisor.log":
                log.replace(log.with_suffix(".log.1"))
        secrets = self._home.secrets()
        protect([secrets.postgres_password, secrets.s3_access_key, secrets.s3_secret_key, secrets.s3_query_secret_key])
        variables = self._service_variables()
        first: list[Service] = []
        postgres_port = self._add_postgres(first, variables)
        self._add_s3(first, variables)
        devchain_port = self._add_devchain(first, variables)
        say(f"starting {', '.join(service.name for service in first)}")
        self._launch(first)
        if postgres_port is not None:
            ensure_database(postgres_port, secrets.postgres_password)
        migrate(variables["TRACE_POSTGRES_URL"])
        with closing(Database(variables["TRACE_POSTGRES_URL"])) as database:
            for line in old_form_notes(database):
                say(f"note: {line}")
            variables["TRACE_QUERY_TOKEN"] = make_token(database, self._home.path)
        self._has_token_in = variables["TRACE_POSTGRES_URL"]
        protect([variables["TRACE_QUERY_TOKEN"]])
        web = WebServer(self._ports.take("TRACE_PORT_WEB"), self._settings.web_password, self._settings.stack.web_url)
        variables["TRACE_WEB_URL"] = web.url
        folder = self._home.path / "dagster"
        code_socket = private_socket(folder, "code.sock")
        variables["DAGSTER_HOME"] = str(folder)
        say("starting dagster")
        # the user's own session token or profile must not be combined with the key of our server
        given = {name: value for name, value in self._given.items() if name not in CREDENTIALS}
        everything = {**given, **variables, STACK_VARIABLE: self._stack_id}
        of_dagster = dagster_environment(everything)
        prepare_dagster(folder, code_socket, of_dagster)
        gateway = self._gateway(everything, variables)
        everything |= variables
        of_follower = follower_environment(everything, variables[URL_VARIABLE])
        everything = behind_gateway(everything, variables[URL_VARIABLE])
        variables |= {name: everything[name] for name in variables}
        of_code = code_environment(everything)
        follower = follower_service(of_follower, self._home.path)
        queries = self._query_service(everything, variables)
        self._launch([*gateway, follower, queries, *dagster_services(folder, code_socket, web, of_code, of_dagster)])
        return self._publish(variables, devchain_port)

    def _service_variables(self) -> dict[str, str]:
        """Return the variables that the stack's processes and its clients share."""
        kept = self._settings.child_variables(lambda name: name.startswith(_SHARED))
        return {"TRACE_HOME": str(self._home.path), **kept}

    def _add_postgres(self, services: list[Service], variables: dict[str, str]) -> int | None:
        if self._settings.registry.postgres_url is not None:
            url = self._settings.postgres_url
            require_database(url)
            variables["TRACE_POSTGRES_URL"] = url
            return None
        port = self._ports.take("TRACE_PORT_POSTGRES")
        password = self._home.secrets().postgres_password
        services.append(postgres_service(folder_for(self._home.path), port, password))
        variables["TRACE_POSTGRES_URL"] = dsn(port, password)
        return port

    def _add_s3(self, services: list[Service], variables: dict[str, str]) -> None:
        store = self._settings.object_store
        if store.endpoint is not None:
            access = self._settings.s3
            prepare_bucket(access)
            variables |= self._settings.child_variables(lambda name: name.startswith("TRACE_S3_QUERY_"))
        else:
            secrets = self._home.secrets()
            port = self._ports.take(PORT_VARIABLE, with_grpc=True)
            endpoint = f"http://{HOST}:{port}"
            access = S3Access(store.bucket, secrets.s3_access_key, secrets.s3_secret_key, endpoint)
            services.append(s3_service(self._home.path / "s3", self._ports, secrets, access, port))
            variables["TRACE_S3_QUERY_ACCESS_KEY_ID"] = secrets.s3_query_access_key
            variables["TRACE_S3_QUERY_SECRET_ACCESS_KEY"] = secrets.s3_query_secret_key
        variables |= {
            "TRACE_S3_ENDPOINT": access.endpoint or "",
            "TRACE_S3_BUCKET": access.bucket,
            "AWS_REGION": access.region,
            **{name: value for name, value in _credentials(access) if value is not None},
        }

    def _add_devchain(self, services: list[Service], variables: dict[str, str]) -> int:
        port = self._ports.take("TRACE_PORT_DEVCHAIN")
        services.append(
            devchain_service(port, self._settings.stack, devchain_environment(self._given), self._home.path)
        )
        variables["TRACE_RPC_POOL_DEVCHAIN_URL"] = f"http://{HOST}:{port}"
        variables["TRACE_RPC_POOL_DEVCHAIN_WS_URL"] = f"ws://{HOST}:{port}"
        return port

    def _gateway(self, everything: dict[str, str], variables: dict[str, str]) -> list[Service]:
        """Describe the gateway, unless settings name one that runs already. Each start makes a new token."""
        given = self._settings.gateway_url
        if given is not None:
            variables[URL_VARIABLE] = given
            return []
        port, token = self._ports.take("TRACE_PORT_GATEWAY"), token_urlsafe(24)
        variables[URL_VARIABLE] = f"http://{HOST}:{port}/{token}"
        protect([variables[URL_VARIABLE]])
        return [gateway_service(port, token, gateway_variables(everything), self._home.path)]

    def _query_service(self, everything: dict[str, str], variables: dict[str, str]) -> Service:
        """Describe the query service. It starts even if TRACE_QUERY_URL names another one, which commands ask then."""
        port = self._ports.take("TRACE_PORT_QUERY")
        variables["TRACE_QUERY_URL"] = query_url(port)
        return query_service(port, query_environment(everything), self._home.path)

    def _launch(self, services: list[Service]) -> None:
        """Start all services, then wait until each is healthy."""
        children = []
        for service in services:
            children.append(Child(service, self._home.logs / f"{service.name}.log", self._stack_id))
            self._children.append(children[-1])
        with ThreadPoolExecutor(len(children) or 1) as pool:
            list(pool.map(Child.wait_healthy, children))

    def _publish(self, variables: dict[str, str], devchain_port: int) -> StackState:
        address = psycopg.conninfo.conninfo_to_dict(variables["TRACE_POSTGRES_URL"])
        state = StackState(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            stack_id=self._stack_id,
            web_url=variables["TRACE_WEB_URL"],
            s3_endpoint=variables["TRACE_S3_ENDPOINT"] or "aws",
            postgres_address=f"{address.get('host', HOST)}:{address.get('port', 5432)}",
            devchain_address=f"{HOST}:{devchain_port}",
            variables=variables,
        )
        write_private(self._home.state_file, _to_json(state))
        return state

    def _revive(self, child: Child, times: list[float], say: Say) -> None:
        now = time.monotonic()
        times[:] = [moment for moment in times if now - moment < _STABLE_SECONDS]
        if len(times) >= child.service.restarts:
            raise Unavailable(f"{child.service.name} keeps dying: the stack ends", log=self._home.logs)
        times.append(now)
        say(f"{child.service.name} died: starting it again")
        child.restart()
        try:
            child.wait_healthy()
        except Unavailable as error:
            if not child.dead:
                raise
            say(str(error))  # it died again, and has further starts

    def _stop(self) -> None:
        self._home.state_file.unlink(missing_ok=True)
        self._end_token()
        for group in _stop_order(self._children):
            for child in group:
                child.signal_stop()
            deadline = time.monotonic() + STOP_SECONDS
            for child in group:
                child.wait_stopped(max(0.1, deadline - time.monotonic()))
            reap(self._stack_id)
        self._children.clear()

    def _end_token(self) -> None:
        """Revoke the stack's token. If the registry is away, the next start does it."""
        if self._has_token_in is not None:
            with suppress(TraceError), closing(Database(self._has_token_in, connect_timeout_seconds=2.0)) as database:
                end_token(database, self._home.path)
            self._has_token_in = None

    def _reap_predecessor(self) -> None:
        """Kill the processes that a killed supervisor left in this home."""
        try:
            text = self._home.state_file.read_text()
        except OSError:
            return
        old = _stack_id_in(text)
        if old:
            reap(old)
        self._home.state_file.unlink(missing_ok=True)


def login_link_of(state: StackState) -> str:
    """Return a link that logs a browser in to the page of a running stack's query service, once, within 10 minutes."""
    variables = state.environment()
    return login_link(variables["TRACE_POSTGRES_URL"], variables["TRACE_QUERY_URL"], Path(variables["TRACE_HOME"]))


def down(path: Path) -> bool:
    """End the stack of a home. Returns whether one was running."""
    state = load_state(path)
    if state is None:
        return False
    try:
        supervisor = psutil.Process(state.pid)
        supervisor.terminate()
        supervisor.wait(STOP_SECONDS * 3)
    except psutil.TimeoutExpired:
        supervisor.kill()
    except psutil.NoSuchProcess:
        pass
    reap(state.stack_id)
    Home(path).state_file.unlink(missing_ok=True)
    return True


def _stop_order(children: list[Child]) -> list[list[Child]]:
    """Return Dagster's processes and the follower, then the servers: runs end while registry and store still answer."""
    servers = {"postgres", "s3", "devchain", "gateway"}
    clients = [child for child in children if child.service.name not in servers]
    return [clients, [child for child in children if child.service.name in servers]]


def _credentials(access: S3Access) -> Iterator[tuple[str, str | None]]:
    """Yield the variables that hold the object store's credentials; None for those that are not set."""
    yield "AWS_ACCESS_KEY_ID", access.access_key
    yield "AWS_SECRET_ACCESS_KEY", access.secret_key
    yield "AWS_SESSION_TOKEN", access.session_token
    yield "AWS_PROFILE", access.profile


def _to_json(state: StackState) -> str:
    return json.dumps(asdict(state))


def _stack_id_in(text: str) -> str | None:
    try:
        return str(json.loads(text)["stack_id"])
    except (ValueError, TypeError, KeyError):
        return None


def _last_error(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["the supervisor ended without a message"])[-1]
