"""Dagster's three processes: code server, daemon, web server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trace_dagster.config.shipped_files import shipped_file
from trace_dagster.config.web_password import authorization
from trace_dagster.errors import Unavailable
from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import Service
from trace_dagster.lite.sockets import can_be_socket

LOCATION = "trace_dagster"
WEB_PASSWORD = "TRACE_WEB_PASSWORD"  # noqa: S105  (a variable's name)
_TIMEOUT_SECONDS = 5.0
_TEMPORARY = "tmp"


@dataclass(frozen=True, slots=True)
class WebServer:
    """Where the web server listens, the password of its door, and the address under which others open it, if any."""

    port: int
    password: str | None = field(repr=False)
    public_url: str | None = field(repr=False)

    @property
    def url(self) -> str:
        """The address on this machine."""
        return f"http://{HOST}:{self.port}"

    def variables(self) -> dict[str, str]:
        """Return the variables that only the web server needs."""
        return {"TRACE_WEB_URL": self.public_url or self.url, WEB_PASSWORD: self.password or ""}


_LOADED_QUERY = """
{ workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError { __typename } } } } }
"""
_DAEMONS_QUERY = """
{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } } }
"""


def prepare_dagster(folder: Path, code_socket: Path, environment: Mapping[str, str]) -> None:
    """Write the instance's files and create its tables, before three processes try to at the same time.

    Raises Unavailable if the tables cannot be created.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.rmtree(folder / _TEMPORARY, ignore_errors=True)
    (folder / _TEMPORARY).mkdir(mode=0o700, exist_ok=True)
    (folder / "dagster.yaml").write_text(instance_yaml())
    workspace = {"load_from": [{"grpc_server": {"socket": str(code_socket), "location_name": LOCATION}}]}
    (folder / "workspace.yaml").write_text(json.dumps(workspace))
    done = subprocess.run(
        [sys.executable, "-m", "trace_dagster.dagster_instance.storage"],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"dagster's tables could not be created: {last[:300]}")


def instance_yaml() -> str:
    """Return the text of the dagster.yaml that ships with the package."""
    return shipped_file("dagster.yaml").read_text()


def dagster_services(
    folder: Path, code_socket: Path, web: WebServer, of_code: Mapping[str, str], of_others: Mapping[str, str]
) -> list[Service]:
    """Describe the three processes; each is healthy when Dagster's GraphQL API reports it.

    ``of_code`` is the code server's environment, ``of_others`` that of web server and daemon. The code server listens
    on a socket, because its API runs code without asking for a credential.
    """
    workspace = str(folder / "workspace.yaml")
    described = time.time()
    python = [sys.executable, "-m"]
    quiet = {"PYTHONWARNINGS": "ignore"}
    common = {
        "folder": folder,
        "start_seconds": 120.0,
    }
    return [
        Service(
            name="code-server",
            command=[
                *python,
                "dagster",
                "code-server",
                "start",
                "--socket",
                str(code_socket),
                "-m",
                "trace_dagster.definitions",
                "--location-name",
                LOCATION,
                "--use-python-environment-entry-point",
                "--inject-env-vars-from-instance",
            ],
            healthy=lambda: _location_loaded(web),
            environment={**_temporary(folder), **of_code, **quiet},
            leaves=[code_socket] if code_socket.parent == folder else [code_socket, code_socket.parent],
            **common,  # type: ignore[arg-type]
        ),
        Service(
            name="web-server",
            command=[*python, "trace_dagster.dagster_instance.web", "-h", HOST, "-p", str(web.port), "-w", workspace],
            healthy=lambda: _graphql(web, "{ version }") is not None,
            environment={**of_others, **quiet, **web.variables()},
            **common,  # type: ignore[arg-type]
        ),
        Service(
            name="daemon",
            command=[*python, "dagster._daemon", "run", "-w", workspace],
            healthy=lambda: _daemons_healthy(web, described),
            environment={**of_others, **quiet},
            **common,  # type: ignore[arg-type]
        ),
    ]


def _temporary(folder: Path) -> dict[str, str]:
    """Return the temporary folder of code server and runs, which TMPDIR overrides: Dagster's inner server makes its
    socket there.
    """
    temporary = folder / _TEMPORARY
    return {"TMPDIR": str(temporary)} if can_be_socket(temporary / "tmp12345678") else {}


def _location_loaded(web: WebServer) -> bool:
    data = _graphql(web, _LOADED_QUERY) or {}
    entries = (data.get("workspaceOrError") or {}).get("locationEntries") or []
    return any(
        entry["loadStatus"] == "LOADED"
        and (entry["locationOrLoadError"] or {}).get("__typename") == "RepositoryLocation"
        for entry in entries
    )


def _daemons_healthy(web: WebServer, since: float) -> bool:
    """Return whether every required daemon has a heartbeat after ``since``.

    Dagster's own check also accepts the heartbeat of the previous daemon process.
    """
    data = _graphql(web, _DAEMONS_QUERY) or {}
    statuses = ((data.get("instance") or {}).get("daemonHealth") or {}).get("allDaemonStatuses") or []
    required = [status for status in statuses if status["required"]]
    return bool(required) and all(
        status["healthy"] and (status["lastHeartbeatTime"] or 0) >= since for status in required
    )


def _graphql(web: WebServer, query: str) -> dict[str, Any] | None:
    headers = {"content-type": "application/json", **authorization(web.password)}
    request = urllib.request.Request(f"{web.url}/graphql", json.dumps({"query": query}).encode(), headers)  # noqa: S310
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach our loopback
    try:
        with direct.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            data = json.load(answer).get("data")
            return data if isinstance(data, dict) else None
    except (OSError, ValueError, urllib.error.URLError):
        return None
