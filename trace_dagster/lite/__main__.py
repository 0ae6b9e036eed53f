"""The detached supervisor: what `trace-lite up --detach` leaves running."""

import os
import sys

from trace_dagster.config.running_stack import home_of
from trace_dagster.errors import TraceError
from trace_dagster.lite.stack import Stack


def main() -> int:
    """Run until told to stop; the last line of the log says why it ended."""
    try:
        Stack(home_of(os.environ), dict(os.environ)).run_foreground(lambda text: print(text, flush=True))
    except TraceError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
