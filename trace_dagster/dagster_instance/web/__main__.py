"""``python -m trace_dagster.dagster_instance.web``: Dagster's web server behind the door.

It takes the options of `dagster-webserver`. If TRACE_WEB_PASSWORD is set, the server asks for it. The server answers to
loopback's names and to the host of TRACE_WEB_URL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps

from dagster_webserver import cli
from starlette.types import ASGIApp

from trace_dagster.config.process import start_process
from trace_dagster.config.settings import Settings
from trace_dagster.dagster_instance.web.door import Door, host_of
from trace_dagster.errors import TraceError

FACTORY = "create_app_from_workspace_process_context"
"""The name by which Dagster's command finds the function that makes its application, when it starts to serve."""


def main() -> None:
    """Serve until a signal ends the process."""
    try:
        settings = start_process(os.environ, with_stack=False)
    except TraceError as error:
        sys.exit(f"error: {error}")
    setattr(cli, FACTORY, behind_door(getattr(cli, FACTORY), settings))
    cli.main()


def behind_door(create: Callable[..., ASGIApp], settings: Settings) -> Callable[..., ASGIApp]:
    """Return ``create`` with a door before the application that it makes."""
    url, password = settings.stack.web_url, settings.web_password
    hosts = {host for host in (host_of(url) if url else None,) if host}

    @wraps(create)
    def created(*arguments: object, **options: object) -> ASGIApp:
        return Door(create(*arguments, **options), hosts=hosts, password=password)

    return created


if __name__ == "__main__":
    main()
