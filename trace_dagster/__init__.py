"""trace_dagster: every block range of an EVM chain in Parquet on your own object store."""

__version__ = "0.1.0"
