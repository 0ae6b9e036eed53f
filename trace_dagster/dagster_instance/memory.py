"""Memory tuning for a process that extracts ranges, so that its memory does not grow with the length of ranges.

Measured on runs over ranges of 50,000 blocks (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_GARBAGE = (50_000, 10, 10)
"""Garbage collector thresholds. Verification makes many small objects, no cycles: the defaults cost 1/5 of its time."""

_MALLOC = {"M_ARENA_MAX": (-8, 2), "M_MMAP_THRESHOLD": (-3, 256 << 10), "M_TRIM_THRESHOLD": (-1, 16 << 20)}
"""Number and value of mallopt options (glibc's malloc.h). With one arena per thread, each would keep freed memory."""


def tune_memory() -> None:
    """Tune garbage collection and malloc of this process. Call it after all imports."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC.values():
            mallopt(option, value)
