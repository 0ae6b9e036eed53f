"""ethereum-etl in a separate virtual environment: blocks, transactions, receipts and logs to CSV files."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

VERSION = "2.4.2"
HOME = Path(__file__).parent.parent / ".cache" / "bench-etl"
_COMMAND = HOME / "bin" / "ethereumetl"
_PACKAGE = f"ethereum-etl=={VERSION}"
_NEWER = "parsimonious==0.9.0"
"""The version that its eth-abi pins needs inspect.getargspec, which Python 3.11 does not have; this one does not."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Items of one batch (one HTTP request), and threads."""

    batch: int
    workers: int


DEFAULT = Setting(100, 5)
CANDIDATES = (DEFAULT, *(Setting(batch, workers) for batch in (20, 500) for workers in (2, 5, 20)))
"""Each is tried one time over some blocks; the fastest is compared in addition to the default."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The seconds that an export took, with the start of its processes, and the number of rows of each file."""

    seconds: float
    cpu_seconds: float
    rows: dict[str, int]


def install() -> None:
    """Create its virtual environment if there is none. Raises RuntimeError if pip fails."""
    if _works():
        return
    pip = [str(HOME / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(HOME)], [*pip, _PACKAGE], [*pip, _NEWER]):
        _run(command)
    if not _works():
        raise RuntimeError("ethereum-etl does not start")


def export(url: str, blocks: int, setting: Setting) -> Exported:
    """Export ``[0, blocks)`` as documented: blocks and transactions, their hashes, then receipts and logs by hash."""
    common = ["-p", url, "-b", str(setting.batch), "-w", str(setting.workers)]
    with tempfile.TemporaryDirectory(prefix="trace-bench-") as name:
        files = {part: Path(name) / f"{part}.csv" for part in ("blocks", "transactions", "receipts", "logs")}
        hashes = str(Path(name) / "hashes.txt")
        started, before = time.perf_counter(), _children_cpu_seconds()
        outputs = ["--blocks-output", str(files["blocks"]), "--transactions-output", str(files["transactions"])]
        _etl("export_blocks_and_transactions", "-s", "0", "-e", str(blocks - 1), *outputs, *common)
        _etl("extract_csv_column", "-i", str(files["transactions"]), "-o", hashes, "-c", "hash")
        outputs = ["--receipts-output", str(files["receipts"]), "--logs-output", str(files["logs"])]
        _etl("export_receipts_and_logs", "-t", hashes, *outputs, *common)
        seconds, cpu_seconds = time.perf_counter() - started, _children_cpu_seconds() - before
        return Exported(seconds, cpu_seconds, {part: _rows(path) for part, path in files.items()})


def _works() -> bool:
    if not _COMMAND.exists():
        return False
    return subprocess.run([str(_COMMAND), "--version"], capture_output=True, check=False).returncode == 0


def _etl(*arguments: str) -> None:
    _run([str(_COMMAND), *arguments])


def _run(command: list[str]) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} {command[1]} failed: {done.stderr[-500:]}")


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rows(path: Path) -> int:
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="") as file:
        return sum(1 for _ in csv.reader(file)) - 1
