"""Compiles functions for their annotated types, without Python's lock, and caches the code on disk."""

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


def _cache_folder() -> str:
    """Return a folder for the compiled code of exactly these sources, or an empty text if no folder can be written.

    Numba's own check only covers the file of a function, but its code contains that of the functions it calls.
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


config.CACHE_DIR = _cache_folder()


def native(function: Function) -> Function:
    """Compile a function at the first import of its module. Later processes read it from the cache.

    The cache is NUMBA_CACHE_DIR, or else next to the source. Indices are only checked if NUMBA_BOUNDSCHECK=1, which
    tests set. References to arrays are not counted (``_nrt``), because the caller holds every array and the compiled
    code allocates none: numba counted them atomically in every call, a third of the time of a proof.
    """
    if ENDING.is_set():
        raise RuntimeError("the process is ending")
    hints = {name: _type(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
    result = hints.pop("return")
    options: dict[str, Any] = {"nogil": True, "cache": bool(config.CACHE_DIR), "_nrt": False}
    return njit(result(*hints.values()), **options)(function)  # type: ignore[no-any-return]


def _type(hint: Any) -> Any:
    """Return numba's type of an annotation: int, bool, None, or the type in an alias of an array."""
    return _PLAIN[hint] if hint in _PLAIN else get_args(hint)[1]
