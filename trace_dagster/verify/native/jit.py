"""One way to compile: for the types a function is annotated with, without Python's lock, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

from numba import njit, types

from trace_dagster.verify.native import ENDING

Function = TypeVar("Function", bound=Callable[..., Any])
_PLAIN = {int: types.int64, bool: types.boolean, type(None): types.void}


def native(function: Function) -> Function:
    """Compiled when its module is first imported, read from disk from then on (NUMBA_CACHE_DIR, else beside it).

    Indices are not checked unless NUMBA_BOUNDSCHECK=1 says so, as tests do.
    """
    if ENDING.is_set():
        raise RuntimeError("the process ends")
    hints = {name: _type(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
    result = hints.pop("return")
    signature = result(*hints.values())
    try:
        return njit(signature, nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # nowhere to keep it
        return njit(signature, nogil=True)(function)  # type: ignore[no-any-return]


def _type(hint: Any) -> Any:
    """Python's int and bool, or the type an array's alias carries."""
    return _PLAIN[hint] if hint in _PLAIN else get_args(hint)[1]
