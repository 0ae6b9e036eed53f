"""The start of a process: read its settings, protect its secrets, configure its log, warn of unknown variables."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from trace_dagster.config.rpc_pools import POOL_SETTINGS, POOL_VARIABLE
from trace_dagster.config.running_stack import environment_with_stack
from trace_dagster.config.settings import Settings, fields
from trace_dagster.messages.logs import component_log, configure_logs
from trace_dagster.messages.redaction import protect
from trace_dagster.rpc.pools import variable_of

Warn = Callable[[str, str | None], None]
"""Receives an unknown variable and the nearest known one."""

TEST_VARIABLES = (
    "TRACE_FAULTS_EXAMPLES",
    "TRACE_FAULTS_FULL",
    "TRACE_REAL_BLOCKS",
    "TRACE_REAL_CHAINS",
    "TRACE_REQUIRE_BROWSER",
    "TRACE_REQUIRE_NODE",
    "TRACE_VERIFY_EXAMPLES",
)
"""Variables of the tests and the Makefile: known, and of no effect on the product."""

_PLAIN = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR")
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_MARKS = ("DAGSTER_HOME", "TRACE_STACK_ID")
_POOL_PREFIX = "TRACE_RPC_POOL_"
_log = component_log("config")
_started: set[str] = set()
"""What this process has done already: logs are configured and unknown variables are warned about a single time."""


def start_process(
    environment: Mapping[str, str], *, level: str = "info", warn: Warn | None = None, with_stack: bool = True
) -> Settings:
    """Read the settings of this process; ``with_stack`` completes the environment with the running stack's variables.

    The first call configures the process log, from ``level`` up unless TRACE_LOG_LEVEL is set, and warns about
    unknown variables (in the log, or through ``warn``). Raises InvalidInput with the name of a variable that is wrong.
    """
    settings = Settings.read(environment_with_stack(environment) if with_stack else environment)
    protect(settings.secrets(), public=settings.rpc.names)
    if "logs" not in _started:
        _started.add("logs")
        configure_logs(settings.log.format, settings.log.level or level)
        for variable, close in unknown_variables(environment):
            (warn or _log_unknown)(variable, close)
    return settings


def unknown_variables(environment: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Return every TRACE_ variable that no setting knows, and the nearest known name."""
    known = [variable for variable, _ in fields()]
    found = [
        variable
        for variable in sorted(environment)
        if variable.startswith("TRACE_")
        and variable not in known
        and variable not in TEST_VARIABLES
        and not POOL_VARIABLE.fullmatch(variable)
    ]
    return [(variable, _nearest(variable, known)) for variable in found]


def gateway_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a gateway that this process starts: pools, limits, registry, log."""
    own = settings.child_variables(
        lambda name: (
            name.startswith(("TRACE_RPC_", "TRACE_GATEWAY_", "TRACE_LOG_"))
            or name in {"TRACE_CRYO_RPC_URL", "TRACE_POSTGRES_URL", "TRACE_STACK_ID"}
        )
    )
    return {**plain_environment(), **own}


def plain_environment() -> dict[str, str]:
    """Return the variables of the operating system that every Python child process needs; none of them is ours."""
    names = (*_PLAIN, *_PROXIES, *(name.lower() for name in _PROXIES))
    return {name: os.environ[name] for name in names if name in os.environ}


@contextmanager
def bare_environment() -> Iterator[None]:
    """Take everything but the operating system's variables out of this process's environment, for children that a
    library starts with it.
    """
    before = dict(os.environ)
    kept = {**plain_environment(), **{name: before[name] for name in _MARKS if name in before}}
    for name in before.keys() - kept.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _nearest(variable: str, known: list[str]) -> str | None:
    if variable.startswith(_POOL_PREFIX):
        pool, _, setting = variable.removeprefix(_POOL_PREFIX).rpartition("_")
        close = difflib.get_close_matches(setting, POOL_SETTINGS, n=1, cutoff=0.3)
        return variable_of(pool, close[0]) if pool and close else None
    return next(iter(difflib.get_close_matches(variable, known, n=1, cutoff=0.75)), None)


def _log_unknown(variable: str, close: str | None) -> None:
    _log.warning("unknown_variable", variable=variable, did_you_mean=close)
