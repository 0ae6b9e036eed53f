"""One way to compile: for the types a function is annotated with, without Python's lock, kept on disk."""

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
    """A folder for compiled code of exactly these sources: numba would look at one file of them only.

    The code of a function holds that of those it calls. Empty where nothing can be written.
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
    """Compiled when its module is first imported, read from disk from then on (NUMBA_CACHE_DIR, else beside it).

    Indices are not checked unless NUMBA_BOUNDSCHECK=1 says so, as tests do.
    """
    if ENDING.is_set():
        raise RuntimeError("the process ends")
    hints = {name: _type(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
    result = hints.pop("return")
    keeps = bool(config.CACHE_DIR)
    return njit(result(*hints.values()), nogil=True, cache=keeps)(function)  # type: ignore[no-any-return]


def _type(hint: Any) -> Any:
    """Python's int and bool, or the type an array's alias carries."""
    return _PLAIN[hint] if hint in _PLAIN else get_args(hint)[1]
