"""Runs a Cryo binary (TRACE_CRYO_BIN) as a subprocess. Its staging folder is private and deleted on success."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from trace_dagster.blocks import BlockRange
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.columns import cryo_column, excluded_columns, row_order
from trace_dagster.engine.failures import failure
from trace_dagster.errors import ExtractionFailed, NoAnswer, UnknownFormat
from trace_dagster.messages.redaction import redact

STALL_SECONDS = 120.0
"""A call that takes longer fails. Cryo has no timeout of its own."""

_OUTPUT_CHARACTERS = 4000
_MOST_OUTPUT_BYTES = 65_536
"""Redacted before it is cut to the characters above, because a URL that is cut may not be recognized."""


class CryoBinary:
    """Runs the binary, one process per call. Thread-safe, because each call has its own folder and process."""

    name = "cryo-binary"

    def __init__(
        self, path: Path, staging: Path, ttl_hours: float = 24.0, stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._path = path
        self._staging = staging
        self._stall_seconds = stall_seconds
        self.version = _version(path)
        sweep(staging, older_than_seconds=ttl_hours * 3600)

    def extract(self, request: ExtractRequest) -> pa.Table:
        """Run one process and return its rows; see :class:`~trace_dagster.engine.base.Engine` for errors."""
        folder = self._staging / uuid4().hex
        folder.mkdir(parents=True, mode=0o700)
        output = self._run(request, folder)
        if not any(folder.glob("*.parquet")):  # Cryo counts chunks that failed, and exits as if none had
            raise failure(output, request)
        table = _read(request, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return table

    def made_up_times(self, piece: BlockRange) -> None:
        """Return None: the node that the rows come from has the headers."""

    def close(self) -> None:
        """Do nothing: each process ends with its call."""

    def _run(self, request: ExtractRequest, folder: Path) -> str:
        """Run the process and return the end of its output, redacted."""
        url = request.endpoint.address
        process = subprocess.Popen(
            [str(self._path), *_arguments(request, folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**_environment(), "ETH_RPC_URL": url, "RUST_BACKTRACE": "0"},
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=request.wait_seconds(self._stall_seconds))
        except subprocess.TimeoutExpired:
            name = request.endpoint.name
            raise NoAnswer(f"rpc endpoint {name} stalled: no answer in time", range=request.block_range) from None
        finally:
            _end(process)
        text = redact(output[-_MOST_OUTPUT_BYTES:].decode(errors="replace"))[-_OUTPUT_CHARACTERS:]
        if process.returncode:
            raise failure(text, request)
        return text


def sweep(staging: Path, *, older_than_seconds: float) -> None:
    """Delete staging folders that crashed calls left, if they are older than ``older_than_seconds``."""
    if not staging.is_dir():
        return
    limit = time.time() - older_than_seconds
    for folder in staging.iterdir():
        if folder.is_dir() and folder.stat().st_mtime < limit:
            shutil.rmtree(folder, ignore_errors=True)


def _arguments(request: ExtractRequest, folder: Path) -> list[str]:
    extra = sorted({cryo_column(name) for name in request.schema.names if name not in request.dataset.default_columns})
    arguments = [
        request.dataset.name,
        "--blocks",
        f"{request.block_range.start}:{request.block_range.end}",
        "--chunk-size",
        str(len(request.block_range)),
        "--output-dir",
        str(folder),
        "--overwrite",
        "--no-report",
        "--no-verbose",
        "--inner-request-size",
        str(request.inner_request_blocks),
    ]
    if extra:
        arguments += ["--include-columns", *extra]
    if unwanted := excluded_columns(request.dataset, request.schema.names):
        arguments += ["--exclude-columns", *unwanted]
    if request.requests_per_second:
        arguments += ["--requests-per-second", str(request.requests_per_second)]
    if request.max_concurrent_requests:
        arguments += ["--max-concurrent-requests", str(request.max_concurrent_requests)]
    return arguments


def _read(request: ExtractRequest, folder: Path) -> pa.Table:
    files = sorted(path for path in folder.glob("*.parquet") if path.is_file())
    if len(files) != 1:
        raise ExtractionFailed(
            "the cryo binary did not write exactly one parquet file", files=len(files), range=request.block_range
        )
    table = pq.read_table(files[0])
    missing = [name for name in request.schema.names if name not in table.column_names]
    if missing:
        raise UnknownFormat(f"the engine gave no column {', '.join(missing)}", dataset=request.dataset.name)
    try:
        table = table.select(request.schema.names).cast(request.schema)
    except pa.ArrowInvalid:
        raise UnknownFormat(
            "the engine's columns are not those this version knows", dataset=request.dataset.name
        ) from None
    order = [(key, "ascending") for key in row_order(request.dataset) if key in request.schema.names]
    return table.sort_by(order).replace_schema_metadata(None)


def _version(path: Path) -> str:
    try:
        done = subprocess.run([str(path), "--version"], capture_output=True, timeout=20, text=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    words = done.stdout.split()
    return words[-1][:40] if words else "unknown"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "AWS_"))}
