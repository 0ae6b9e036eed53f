"""Finding the running stack: any command started in the same folder talks to it without exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trace_dagster.lite.home import load_state

DEFAULT_HOME = ".trace"


def home_of(environment: Mapping[str, str]) -> Path:
    """TRACE_HOME, or ``.trace`` in the current folder."""
    return Path(environment.get("TRACE_HOME") or DEFAULT_HOME).absolute()


def environment_with_stack(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment``, completed by what the stack under TRACE_HOME serves; what is set already wins."""
    if environment.get("TRACE_POSTGRES_URL"):
        return dict(environment)
    state = load_state(home_of(environment))
    return {**(state.environment() if state else {}), **environment}
