"""Compile functions for the types of their annotations, without Python's lock, and keep the result on disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar, get_args, get_type_hints

import numba
from numba import njit, types

from trace_dagster.verify.native import ENDING

Function = TypeVar("Function", bound=Callable[..., Any])
config: Any = numba.config
_PLAIN = {int: types.int64, bool: types.boolean, type(None): types.void}


def _kept_in() -> str:
    """Return the folder for code compiled from exactly these sources, or an empty text if no folder is writable.

    Numba itself compares one source file only, but the code of a function contains the functions that it calls.
    """
    here = Path(__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted(here.glob("*.py")))
    stamp = sha256(sources + repr(config.BOUNDSCHECK).encode()).hexdigest()[:16]
    for base in [Path(config.CACHE_DIR)] if config.CACHE_DIR else [here / "__pycache__", Path.home() / ".cache"]:
        folder = base / f"trace_dagster-{stamp}"
        with suppress(OSError, RuntimeError):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                return str(folder)
    return ""


config.CACHE_DIR = _kept_in()


def native(function: Function) -> Function:
    """Compile a function when its module is first imported; later imports read it from disk (NUMBA_CACHE_DIR, or here).

    Indices are checked only if NUMBA_BOUNDSCHECK=1, as in tests.
    """
    if ENDING.is_set():
        raise RuntimeError("the process ends")
    hints = {name: _type(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
    result = hints.pop("return")
    keeps = bool(config.CACHE_DIR)
    return njit(result(*hints.values()), nogil=True, cache=keeps)(function)  # type: ignore[no-any-return]


def _type(hint: Any) -> Any:
    """Return the numba type of Python's int or bool, or the type that an array's alias holds."""
    return _PLAIN[hint] if hint in _PLAIN else get_args(hint)[1]
