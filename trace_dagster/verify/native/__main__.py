"""Compile the proof now: `make install` does, elsewhere the first run that proves does it beside its work."""

from trace_dagster.verify.plain import await_compiled

await_compiled()
