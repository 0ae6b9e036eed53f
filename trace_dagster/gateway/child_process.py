"""A gateway as a child process, for a process that has no shared gateway; the registry still divides the rate
limits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

from trace_dagster.errors import Unavailable
from trace_dagster.messages.redaction import protect

_STOP_SECONDS = 5.0


class ChildGateway:
    """Child process that ends when its parent ends, because the pipe between them closes.

    Raises Unavailable if it does not start.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trace_dagster.gateway", "--owned"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            self.close()
            raise Unavailable("the rpc gateway did not start: its reason is in this process's log")
        self.url = str(json.loads(said)["url"])
        protect([self.url])  # it holds the gateway's token

    @property
    def alive(self) -> bool:
        """Whether the child process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the child process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
