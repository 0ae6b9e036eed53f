"""Folders in which queries sort and join what exceeds their memory. Each query has one, which goes with it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from trace_dagster.errors import Unavailable

_MODE = 0o700
_TRIES = 20
_PAUSE_SECONDS = 0.05
_KEPT = 8
"""Folders of ended queries that are removed once more."""


class TemporarySpace:
    """The folders of one process's queries, in a folder of the system's temporary folder (``TMPDIR``).

    The process holds a lock on its folder. What a killed process left has no lock; the next one removes it.
    """

    def __init__(self, mib: int) -> None:
        """Make the folder, unless queries get no space at all. Raises Unavailable if it cannot be made."""
        self._home: Path | None = None
        self._lock = -1
        self._ended: deque[Path] = deque(maxlen=_KEPT)
        if mib:
            try:
                self._home, self._lock = _made(_root())
            except OSError as error:
                reason = error.strerror
                raise Unavailable("no temporary folder for queries can be made: set TMPDIR", reason=reason) from None

    @contextmanager
    def folder(self) -> Iterator[str | None]:
        """Make a folder for one query, which nobody else can enter; remove it at the end. None without space."""
        if self._home is None:
            yield None
            return
        found = self._home / uuid4().hex
        try:
            found.mkdir(_MODE)
        except OSError as error:
            raise Unavailable("a query's temporary folder cannot be made", reason=error.strerror) from None
        try:
            yield str(found)
        finally:
            self._remove(found)

    def _remove(self, folder: Path) -> None:
        """Remove a folder. Its process may live on for a moment and put files there until it has ended, or make the
        folder again: then the end of a later query removes it.
        """
        tries = 0
        while folder.exists() and tries < _TRIES:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(_PAUSE_SECONDS if folder.exists() else 0)
            tries += 1
        for earlier in self._ended.copy():
            shutil.rmtree(earlier, ignore_errors=True)
        self._ended.append(folder)

    def close(self) -> None:
        """Remove all folders."""
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            os.close(self._lock)
            self._home = None


def _root() -> Path:
    """Return the folder of all processes of this user. Raises PermissionError if it belongs to another user."""
    root = Path(tempfile.gettempdir()) / f"trace-queries-{os.getuid()}"
    with suppress(FileExistsError):
        root.mkdir(_MODE)
    found = root.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o777 != _MODE or not root.is_dir() or root.is_symlink():
        raise PermissionError(1, f"{root.name} is not a folder of this user alone")
    return root


def _made(root: Path) -> tuple[Path, int]:
    """Make a folder and lock it, and remove those that no process holds. Return it, and the lock's descriptor."""
    door = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(door, fcntl.LOCK_EX)  # no other process is between making its folder and locking it
        for left in root.iterdir():
            _remove_unless_held(left)
        home = Path(tempfile.mkdtemp(dir=root))
        lock = os.open(home, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return home, lock
    finally:
        os.close(door)


def _remove_unless_held(folder: Path) -> None:
    with suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
