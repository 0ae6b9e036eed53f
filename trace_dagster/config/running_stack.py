"""Finds the running stack, so that a command started in the same folder needs no exported variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from trace_dagster.config.settings import DEFAULT_HOME

STATE_FILE = "stack.json"
"""The file in TRACE_HOME that the supervisor writes while the stack runs."""


@dataclass(frozen=True, slots=True)
class StackState:
    """A running stack: the supervisor's process, the addresses of its services, and the variables to use them."""

    pid: int
    started: float
    """When the supervisor started, in seconds since the epoch: another process may have its pid later."""
    stack_id: str
    web_url: str
    s3_endpoint: str
    postgres_address: str
    devchain_address: str
    variables: dict[str, str] = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return the variables that a process needs to use this stack. They hold secrets."""
        return dict(self.variables)

    def summary(self) -> str:
        """Return the addresses, one a line, without secrets."""
        lines = [
            f"dagster ui   {self.web_url}",
            f"s3           {self.s3_endpoint} (bucket {self.variables['TRACE_S3_BUCKET']})",
            f"postgres     {self.postgres_address}",
            f"devchain     {self.devchain_address} (rpc pool `devchain`, chain 20143)",
        ]
        return "\n".join(lines)


def environment_with_stack(environment: Mapping[str, str]) -> dict[str, str]:
    """Complete ``environment`` with the running stack's variables; a variable that is set already wins.

    The stack is ignored if TRACE_POSTGRES_URL is set.
    """
    if environment.get("TRACE_POSTGRES_URL"):
        return dict(environment)
    state = load_state(Path(environment.get("TRACE_HOME") or DEFAULT_HOME).absolute())
    return {**(state.environment() if state else {}), **environment}


def load_state(home: Path) -> StackState | None:
    """Return the stack that runs in ``home``, or None."""
    try:
        state = StackState(**json.loads((home / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return state if _is_running(state) else None


def _is_running(state: StackState) -> bool:
    try:
        process = psutil.Process(state.pid)
        # if nothing reaps orphans, a killed supervisor stays as a zombie
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - state.started) < 1
    except psutil.Error:
        return False
