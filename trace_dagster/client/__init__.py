"""The Python client of the query service."""
