"""The code location: ``dagster dev``, web server, daemon, code server and runs all load this module."""

import os

from trace_dagster.config.process import start_process
from trace_dagster.defs.build import build_definitions

defs = build_definitions(lambda: start_process(os.environ))
