"""A real PgBouncer before a Postgres server, in any pool mode, with or without TLS."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trustme

PROGRAM = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
"""None if PgBouncer is not installed: Debian has it in the package `pgbouncer`."""

HOST = "127.0.0.1"


@contextmanager
def pgbouncer(
    folder: Path, server: tuple[int, str], port: int, mode: str = "transaction", **options: str
) -> Iterator[str]:
    """Run PgBouncer on ``port``; yield the start of its URLs, to which the name of a database is appended."""
    server_port, password = server
    folder.mkdir(exist_ok=True)
    (folder / "users.txt").write_text(f'"trace" "{password}"\n')
    settings = {
        "listen_addr": HOST,
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": str(folder / "users.txt"),
        "pool_mode": mode,
        "default_pool_size": "20",
        **options,
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={HOST} port={server_port} user=trace password={password}\n"
        "[pgbouncer]\n" + "\n".join(lines) + "\n"
    )
    identity = {}
    if os.geteuid() == 0:  # PgBouncer refuses to run as root
        user = pwd.getpwnam("nobody")
        for path in [folder, *folder.iterdir()]:
            os.chown(path, user.pw_uid, user.pw_gid)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    log = (folder / "pgbouncer.log").open("wb")
    process = subprocess.Popen([str(PROGRAM), str(folder / "pgbouncer.ini")], stdout=log, stderr=log, **identity)
    try:
        _wait(port, process, folder / "pgbouncer.log")
        yield f"postgresql://trace:{password}@{HOST}:{port}/"
    finally:
        process.kill()
        process.wait(10)
        log.close()


def with_tls(folder: Path) -> dict[str, str]:
    """Return the options of a PgBouncer that requires TLS. Its certificate is for ``localhost``; see ``ca.pem``."""
    folder.mkdir(exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server.crt")
    issued.private_key_pem.write_to_path(folder / "server.key")
    return {
        "client_tls_sslmode": "require",
        "client_tls_cert_file": str(folder / "server.crt"),
        "client_tls_key_file": str(folder / "server.key"),
        "client_tls_ca_file": str(folder / "ca.pem"),
    }


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"pgbouncer did not start: {log.read_text()}")
