"""The heap of a process that brings ranges in: one that is small however long the ranges are.

Measured on runs over ranges of 50,000 blocks (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_GARBAGE = (50_000, 10, 10)
"""Proof makes many small objects and no cycles: Python's own thresholds cost it a fifth of its time."""

_MALLOC = {"M_ARENA_MAX": (-8, 2), "M_MMAP_THRESHOLD": (-3, 256 << 10), "M_TRIM_THRESHOLD": (-1, 16 << 20)}
"""Options of glibc's malloc.h and their values: an arena per thread each keeps what answers and row groups took."""


def prepare() -> None:
    """Set up this process's memory for many ranges. Call it once imports are done."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC.values():
            mallopt(option, value)
