"""The `trace-lite` command: argument parsing, what each command does, and how results are printed."""
