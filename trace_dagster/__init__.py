"""trace_dagster: every block range of an EVM chain in Parquet on your own object store.

``trace_dagster.connect()`` returns the lake behind a query service (docs/python.md).
"""

import os

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the import: this module is in every process
if TYPE_CHECKING:
    from trace_dagster.client.connect import connect

__all__ = ["connect"]
__version__ = "0.1.0"

# Read when Arrow is loaded. Its own allocator keeps what reading large row groups took: a run over ranges of 50,000
# blocks grew to 785 MiB with it, to 520 with the system's, which costs no time (bench/memory.py).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def __getattr__(name: str) -> object:
    """Import the client when it is used: processes of a stack do without."""
    if name == "connect":
        from trace_dagster.client.connect import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
