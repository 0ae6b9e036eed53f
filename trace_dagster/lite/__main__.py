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
        Stack(settings).run_foreground(lambda text: print(text, flush=True))
    except TraceError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
