"""The `trace-lite` command: argument parsing, the commands' functions, and how results are printed."""
