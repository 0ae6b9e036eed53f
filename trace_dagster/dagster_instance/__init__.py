"""Plugins of the Dagster instance: run executor, event log, storage and run launcher."""
