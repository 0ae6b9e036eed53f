"""The code location: ``dagster dev``, web server, daemon and code server all load this module."""

import os

from trace_dagster.config.running_stack import environment_with_stack
from trace_dagster.defs.build import build_definitions

defs = build_definitions(environment_with_stack(os.environ))
