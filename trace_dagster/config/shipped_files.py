"""Files that ship with the package: ``dagster.yaml``, ``examples`` and ``sql_templates``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped_file(name: str) -> Path:
    """Return the path of a file or folder: inside the package if a wheel installed it, else in the repository."""
    package = Path(str(files("trace_dagster")))
    packaged = package / name
    return packaged if packaged.exists() else package.parent / name
