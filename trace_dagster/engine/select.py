"""Makes the engine that the settings name. Unset means real: made-up data is never a default."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trace_dagster.engine.base import Engine
from trace_dagster.engine.binary import CryoBinary
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import InvalidInput


def selected_engine(
    mode: str = "real",
    binary: Path | None = None,
    variable: str = "TRACE_CRYO_BIN",
    staging: Path | None = None,
    ttl_hours: float = 24.0,
) -> Engine:
    """Return the fake engine, the binary's, or the embedded one.

    ``variable`` names the variable that holds the binary's path; the binary stages in ``staging``. Raises InvalidInput
    if the binary is not an executable file.
    """
    if mode == "fake":
        return FakeCryo()
    if binary is None:
        return EmbeddedCryo()
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise InvalidInput(f"{variable} is not an executable file: {binary}")
    return CryoBinary(binary.absolute(), staging or Path(tempfile.gettempdir()) / "trace" / "cryo", ttl_hours)
