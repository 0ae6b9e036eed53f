"""Which engine TRACE_CRYO_MODE asks for. Unset means real: made-up data is never a default."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trace_dagster.engine.base import Engine
from trace_dagster.engine.binary import CryoBinary
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import InvalidInput

MODES = ("real", "fake")


def mode_of(environment: Mapping[str, str]) -> str:
    """``real`` or ``fake``. Raises InvalidInput for anything else."""
    mode = environment.get("TRACE_CRYO_MODE", "").strip() or "real"
    if mode not in MODES:
        close = difflib.get_close_matches(mode.lower(), MODES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InvalidInput(f"TRACE_CRYO_MODE must be real or fake, not {mode[:40]!r}{hint}")
    return mode


def engine_from(environment: Mapping[str, str]) -> Engine:
    """The engine the environment names. Raises InvalidInput for an unknown mode or an unusable binary."""
    if mode_of(environment) == "fake":
        return FakeCryo()
    for variable in ("TRACE_CRYO_BIN", "CRYO_BIN"):
        written = environment.get(variable, "").strip()
        if written:
            return CryoBinary(_executable(variable, written), _staging(environment), _ttl_hours(environment))
    return EmbeddedCryo()


def _executable(variable: str, written: str) -> Path:
    path = Path(written)
    if not path.is_file() or not os.access(path, os.X_OK):
        raise InvalidInput(f"{variable} is not an executable file: {written}")
    return path.absolute()


def _staging(environment: Mapping[str, str]) -> Path:
    written = environment.get("TRACE_STAGING_DIR", "").strip()
    return Path(written) if written else Path(tempfile.gettempdir()) / "trace" / "cryo"


def _ttl_hours(environment: Mapping[str, str]) -> float:
    written = environment.get("TRACE_CRYO_STAGING_TTL_HOURS", "").strip() or "24"
    try:
        hours = float(written)
    except ValueError:
        hours = -1.0
    if not 0 <= hours < 1e6:
        raise InvalidInput("TRACE_CRYO_STAGING_TTL_HOURS must be a number of hours")
    return hours
