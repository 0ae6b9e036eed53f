"""Runs SeaweedFS `weed mini`: an S3 server with signatures, conditional writes and persistence.

Only its S3 port is for others. The ports of its parts (master, volume server, filer, admin) take TLS with this stack's
client certificate alone: without it they would let every user of the machine delete and read everything.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trace_dagster.errors import TraceError, Unavailable
from trace_dagster.lite.certificates import Certificates, make_certificates
from trace_dagster.lite.home import Secrets, write_private
from trace_dagster.lite.ports import GRPC_OFFSET, HOST, Ports, is_free
from trace_dagster.lite.processes import Service
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ensure_bucket, reachable

PORT_VARIABLE = "TRACE_PORT_S3"

MOST_MEMORY = "1GiB"
"""Above this size Go's garbage collector runs all the time. The server grew by 3 KB per range over 30,000 ranges; with
a limit of 300 MiB each put cost twice as much after 25,000."""

_PARTS = ("master", "volume", "filer", "admin")
_GRPC_SECTIONS = (*_PARTS, "s3", "worker", "client")
_SOCKETS = "sockets"
"""The file that lists the sockets which the server makes outside of its folder."""


def s3_service(folder: Path, ports: Ports, secrets: Secrets, access: S3Access, port: int) -> Service:
    """Prepare ``folder`` and describe the server to run on ``port``."""
    data, config = folder / "data", folder / "config"
    for path in (folder, data, config):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    write_private(config / "security.toml", _security(secrets, make_certificates(config)))
    write_private(config / "s3.json", _identities(secrets, access.bucket))
    taken = {part: ports.take(with_grpc=True) for part in _PARTS} | {"s3": port}
    sockets = _grpc_sockets(taken)
    _remove_dead_sockets(folder)
    write_private(folder / _SOCKETS, "\n".join(map(str, sockets)))
    return Service(
        name="s3",
        command=[
            _weed(),
            "-logtostderr=true",
            f"-config_dir={config}",
            "mini",
            f"-dir={data}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config / 's3.json'}",
            "-filer.localSocket=filer.sock",  # in the working directory: the length of a socket's path is limited
            "-s3.localSocket=s3.sock",
            *(f"-{part}.port={number}" for part, number in taken.items()),
        ],
        environment={
            "PATH": os.pathsep.join(os.get_exec_path()),
            "HOME": str(folder),
            "GOMEMLIMIT": MOST_MEMORY,
        },
        healthy=lambda: _healthy(access),
        folder=folder,
        leaves=sockets,
    )


def _healthy(access: S3Access) -> bool:
    """Create the bucket and return whether the server answers signed requests."""
    if not reachable(access.endpoint or ""):
        return False
    try:
        ensure_bucket(access)
    except TraceError:
        return False
    return True


def _identities(secrets: Secrets, bucket: str) -> str:
    """Return the server's keys: one for everything, and one for queries that may only list and read the bucket."""

    def identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, object]:
        return {
            "name": name,
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": actions,
        }

    return json.dumps(
        {
            "identities": [
                identity("trace", secrets.s3_access_key, secrets.s3_secret_key, ["Admin"]),
                identity(
                    "query",
                    secrets.s3_query_access_key,
                    secrets.s3_query_secret_key,
                    [f"Read:{bucket}", f"List:{bucket}"],
                ),
            ]
        }
    )


def _security(secrets: Secrets, files: Certificates) -> str:
    """Return security.toml: signed tokens for HTTP, and TLS with client certificates for HTTP and gRPC of all parts."""
    identity = {"cert": str(files.certificate), "key": str(files.key)}
    authority = {"ca": str(files.authority)}
    sections: dict[str, dict[str, str | bool]] = {
        **{section: {"key": key} for section, key in secrets.weed_signing.items()},
        "grpc": {**authority},
        **{f"grpc.{part}": {**identity} for part in _GRPC_SECTIONS},
        **{f"https.{part}": {**identity, **authority} for part in _PARTS},
        "https.client": {"enabled": True, **identity, **authority},
    }
    return "".join(f"[{section}]\n{_toml_lines(values)}" for section, values in sections.items())


def _toml_lines(values: dict[str, str | bool]) -> str:
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _grpc_sockets(taken: Mapping[str, int]) -> list[Path]:
    """Return the sockets that `weed mini` makes in /tmp; it has no option to put them elsewhere.

    They need the client certificate as the ports do.
    """
    return [Path(f"/tmp/seaweedfs-{part}-grpc-{port + GRPC_OFFSET}.sock") for part, port in taken.items()]  # noqa: S108


def _remove_dead_sockets(folder: Path) -> None:
    """Remove the sockets that a killed server of this folder left, unless another server has their ports now."""
    try:
        listed = (folder / _SOCKETS).read_text().splitlines()
    except OSError:
        return
    for socket in map(Path, listed):
        if is_free(int(socket.stem.rpartition("-")[2])):
            with suppress(OSError):
                socket.unlink()


def _weed() -> str:
    in_venv = Path(sys.executable).parent / "weed"
    found = str(in_venv) if in_venv.exists() else shutil.which("weed")
    if not found:
        raise Unavailable("the S3 server `weed` is not installed: `make install` brings it (no wheel for macOS x64)")
    return found
