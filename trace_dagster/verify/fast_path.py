"""Prove whole blocks and their receipts in columns, with compiled code.

The compiled code only accepts blocks. Anything it does not accept (wrong, unusual, or of an unknown form) is checked
again in Python by ``verify/commitments/prove.py``, which accepts the same blocks and produces the error for the others.
"""

from __future__ import annotations

import atexit
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import cache
from importlib import import_module
from typing import NamedTuple

from trace_dagster.verify.commitments.rpc_json import Json
from trace_dagster.verify.model import Header, ProvenRows
from trace_dagster.verify.native import ENDING

Plain = tuple[list[Header], ProvenRows]
Prove = Callable[[Sequence[Json], int], Plain | None]

READ_SECONDS = 3.0
"""How long the first proofs wait for the compiled code. Code that is read from disk is ready by then."""


def prove_in_columns(answers: Sequence[Json], first: int) -> Plain | None:
    """Prove the blocks from ``first`` on in columns; return their headers and rows, or None if the compiled code does
    not.

    ``answers`` are the answers to ``eth_getBlockByNumber`` with whole transactions, then those to
    ``eth_getBlockReceipts``. The result is also None until the compiled code is ready: half a second after the first
    call, 20 seconds if it must be compiled first. The first calls wait up to READ_SECONDS for it.
    """
    compiled, until = _compiled()
    if not compiled.done():
        wait([compiled], max(0.0, until - time.monotonic()))
    if not compiled.done() or compiled.exception() is not None:
        return None
    try:
        return compiled.result()(answers, first)
    except MemoryError:  # a hostile answer can need more memory than a real one
        return None


def await_compiled() -> None:
    """Wait until the compiled code is ready. Raise the error that kept it from being compiled."""
    _compiled().found.result()


class _Loading(NamedTuple):
    found: Future[Prove]
    until: float
    """Time after which no caller waits for the code any more, by the monotonic clock."""


@cache
def _compiled() -> _Loading:
    """Start to read or compile the code in a thread. Until it is ready, blocks are proven in Python."""
    found: Future[Prove] = Future()
    thread = threading.Thread(target=_load, args=(found,), name="compile", daemon=True)
    thread.start()
    atexit.register(_end, thread)
    return _Loading(found, time.monotonic() + READ_SECONDS)


def _load(found: Future[Prove]) -> None:
    try:
        found.set_result(import_module("trace_dagster.verify.native.columns").proven)
    except BaseException as error:  # a processor or a disk that numba cannot use
        found.set_exception(error)
        if not ENDING.is_set():
            warnings.warn(f"proofs run in Python, several times slower: {error!r}", RuntimeWarning, stacklevel=2)


def _end(thread: threading.Thread) -> None:
    """Stop compiling after the current function: a process that exits while the compiler runs crashes."""
    ENDING.set()
    thread.join()
