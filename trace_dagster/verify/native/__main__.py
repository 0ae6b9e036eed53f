"""Compile the proof now: `make install` does, elsewhere the first run that proves does it beside its work."""

from trace_dagster.verify.fast_path import await_compiled

await_compiled()
