"""TRACE_HOME: one folder with everything a stack keeps, readable by its owner only."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from trace_dagster.config.running_stack import STATE_FILE
from trace_dagster.errors import InvalidInput

HOME_VERSION = 1
_MARKER = "home_version"
_BEFORE_THE_FIRST_UP = {"dagster-scratch"}
"""Entries that `dagster dev` may have created while no stack was running."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Secrets of one home, generated when it is first used."""

    postgres_password: str = field(repr=False)
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    s3_query_access_key: str = field(repr=False)
    s3_query_secret_key: str = field(repr=False)
    weed_signing: dict[str, str] = field(repr=False)


class Home:
    """Paths below TRACE_HOME."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def logs(self) -> Path:
        """Log files of the services."""
        return self.path / "logs"

    @property
    def state_file(self) -> Path:
        """The file that exists while a stack runs; it holds addresses and secrets."""
        return self.path / STATE_FILE

    def prepare(self) -> None:
        """Create the folder.

        Raises InvalidInput if it cannot be written, holds files that are not ours, or was made by a newer version.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_folder()
            self.path.chmod(0o711)  # the database user must pass through it; its entries are closed
            self.logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"TRACE_HOME cannot be used: {error.strerror}", path=self.path) from None
        marker = self.path / _MARKER
        if marker.exists():
            self._check_version(marker.read_text().strip())
        write_private(marker, str(HOME_VERSION))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of this home. Raises InvalidInput if a stack runs in it."""
        with _open_private(self.path / "lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InvalidInput(
                    "a stack already runs in this TRACE_HOME: use it, or end it with `trace-lite down`",
                    path=self.path,
                ) from None
            yield

    def secrets(self) -> Secrets:
        """Return this home's secrets; the first call generates them. Raises InvalidInput if the file is damaged."""
        file = self.path / "secrets.json"
        made = asdict(_new_secrets())
        try:
            kept = json.loads(file.read_text()) if file.exists() else {}
            found = Secrets(**{**made, **kept})
            if made.keys() - kept.keys():  # a new home, or one of an earlier version that has fewer secrets
                write_private(file, json.dumps(asdict(found)))
            return found
        except (ValueError, TypeError):
            raise InvalidInput("secrets.json cannot be read: this TRACE_HOME is damaged", path=file) from None

    def _refuse_foreign_folder(self) -> None:
        """Raise InvalidInput if the folder holds other files: its mode would change."""
        held = {entry.name for entry in self.path.iterdir()}
        if held - _BEFORE_THE_FIRST_UP and _MARKER not in held:
            raise InvalidInput(
                "TRACE_HOME is a folder with other files in it: name one that is empty or does not exist",
                path=self.path,
            )

    def _check_version(self, written: str) -> None:
        if not written.isdecimal():
            raise InvalidInput("home_version cannot be read: this TRACE_HOME is damaged", path=self.path)
        if int(written) > HOME_VERSION:
            raise InvalidInput(
                f"this TRACE_HOME was made by a newer trace_dagster (version {written}, this one knows"
                f" {HOME_VERSION}): upgrade, or use another TRACE_HOME",
                path=self.path,
            )


def _new_secrets() -> Secrets:
    signing = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    return Secrets(
        postgres_password=secrets.token_urlsafe(24),
        s3_access_key="trace" + secrets.token_hex(8),
        s3_secret_key=secrets.token_urlsafe(32),
        s3_query_access_key="query" + secrets.token_hex(8),
        s3_query_secret_key=secrets.token_urlsafe(32),
        weed_signing={name: secrets.token_urlsafe(32) for name in signing},
    )


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, with mode 0600."""
    temporary = path.with_suffix(path.suffix + ".new")
    with _open_private(temporary) as file:
        file.write(text)
    temporary.replace(path)


def _open_private(path: Path) -> IO[str]:
    """Open a file for writing that only its owner can open; others could lock a file that they can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # an earlier version may have made it
    return os.fdopen(descriptor, "w")
