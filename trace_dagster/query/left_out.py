"""Keeps DuckDB from importing packages in a query's process, before the first session there."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


def keep_filters_from_arrow() -> None:
    """Let DuckDB filter hot rows itself.

    With ``pyarrow.dataset``, DuckDB hands filters of hot rows to Arrow, and the query fails if it is a kind of filter
    that Arrow does not have, as those that DuckDB derives from a join while it runs.
    """
    _leave_out("pyarrow.dataset")


def leave_pandas_out() -> None:
    """Keep DuckDB from importing pandas for the first parameter of a statement: each query would wait 0.4 s for it."""
    _leave_out("pandas")


def _leave_out(module: str) -> None:
    sys.meta_path.insert(0, _NotInstalled(module))


class _NotInstalled(MetaPathFinder):
    """Finds that a module is not installed. ``None`` in ``sys.modules`` would not do: DuckDB takes it for a module."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for this module."""
        if fullname == self._module:
            raise ModuleNotFoundError(f"{fullname} is left out in this process", name=fullname)
