"""Saves a streamed answer as a file. The file is there whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from trace_dagster.errors import InvalidInput

FORMATS = {".arrow": "arrow", ".csv": "csv", ".parquet": "parquet"}
"""Format by the end of a file's name."""


def format_of(path: Path) -> str:
    """Return the format that a file's name asks for. Raises InvalidInput for another name."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise InvalidInput(f"the name of the file must end in one of {', '.join(FORMATS)}: {path.name!r}") from None


def save(pieces: Iterable[bytes], path: Path) -> None:
    """Write the pieces of an answer to a file, which replaces an older one when all of them have arrived.

    Raises InvalidInput if the file cannot be written, and what ``pieces`` raise; then nothing changed.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise InvalidInput(f"{path} cannot be written: it is no regular file")
    part = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            for piece in pieces:
                file.write(piece)
        part.replace(target)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
