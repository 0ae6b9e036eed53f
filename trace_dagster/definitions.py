"""The code location: ``dagster dev``, web server, daemon and code server all load this module."""

import os

from trace_dagster.defs.build import build_definitions
from trace_dagster.lite.attach import environment_with_stack

defs = build_definitions(environment_with_stack(os.environ))
