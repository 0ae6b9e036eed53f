"""The Python client of the query service; ``trace_dagster.connect()`` is its entry."""
