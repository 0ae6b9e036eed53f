"""Limits on the size of one range on the object store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits on one range's Parquet: files, bytes per file, bytes in total."""

    files_per_range: int = 256
    bytes_per_file: int = 512 * 1024 * 1024
    bytes_per_range: int = 2 * 1024 * 1024 * 1024
