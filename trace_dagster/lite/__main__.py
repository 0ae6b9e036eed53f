"""The detached supervisor: the process that `trace-lite up --detach` leaves running."""

import os
import sys

from trace_dagster.config.process import start_process
from trace_dagster.errors import TraceError
from trace_dagster.lite.stack import Stack


def main() -> int:
    """Run until a signal stops it; the last line of the log gives the reason. Returns the exit code."""
    try:
        settings = start_process(os.environ, with_stack=False)
        # no login link: this output is a log
        Stack(settings).run_foreground(_say, lambda state: _say(state.summary()))
    except TraceError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
