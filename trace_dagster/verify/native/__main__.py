"""Compiles the proof now, for `make install`. Without it, the first process that proves compiles in a thread."""

from trace_dagster.verify.fast_path import await_compiled

await_compiled()
