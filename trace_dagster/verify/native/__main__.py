"""Compile the proof. `make install` runs this; otherwise the first run that proves compiles it in a thread."""

from trace_dagster.verify.fast_path import await_compiled

await_compiled()
