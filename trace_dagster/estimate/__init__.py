"""Estimates of a job before it runs: RPC calls, rows, bytes, hours."""
