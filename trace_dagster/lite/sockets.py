"""Unix sockets of the stack: where they are, because their folder decides who may connect."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_MOST_BYTES = 103
"""Of a socket's path: macOS has room for 104 bytes with the final zero, Linux for 108."""

_NOT_IN_GRPC = frozenset("%#?")
"""Characters that gRPC reads as those of a URL."""


def private_socket(folder: Path, name: str) -> Path:
    """Return the path of a socket in ``folder``, which is closed to others.

    If a socket cannot be there, it is in a new closed folder of the temporary folder.
    """
    inside = folder / name
    return inside if can_be_socket(inside) else Path(tempfile.mkdtemp(prefix="trace-lite-")) / name


def can_be_socket(path: Path) -> bool:
    """Return whether the path is short enough, and has no character that gRPC cannot take."""
    return len(os.fsencode(path)) <= _MOST_BYTES and not _NOT_IN_GRPC & set(str(path))
