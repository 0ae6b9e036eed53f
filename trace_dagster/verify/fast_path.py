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
from trace_dagster.verify.model import Header, Rows
from trace_dagster.verify.native import ENDING

Plain = tuple[list[Header], Rows]
Prove = Callable[[Sequence[Json], int], Plain | None]

READ_SECONDS = 3.0
"""So long the first proofs wait for the compiled code: read from disk it is there by then."""


def prove_plain(answers: Sequence[Json], first: int) -> Plain | None:
    """Headers, transactions, receipts and logs of the blocks from ``first`` on, proven; None where they are not plain.

    ``answers`` are those to ``eth_getBlockByNumber`` with whole transactions, then those to ``eth_getBlockReceipts``.
    None as well until the compiled code is there: half a second after the first call, 20 where it is not on disk yet.
    The first calls wait for it, READ_SECONDS.
    """
    compiled, until = _compiled()
    if not compiled.done():
        wait([compiled], max(0.0, until - time.monotonic()))
    if not compiled.done() or compiled.exception() is not None:
        return None
    try:
        return compiled.result()(answers, first)
    except MemoryError:  # answers made to need more room than real ones do
        return None


def await_compiled() -> None:
    """Until the compiled code is there. Raises what kept it from being compiled."""
    _compiled().found.result()


class _Loading(NamedTuple):
    found: Future[Prove]
    until: float
    """When nobody waits for it any longer, by the monotonic clock."""


@cache
def _compiled() -> _Loading:
    """Read or compiled beside the work: until then Python proves."""
    found: Future[Prove] = Future()
    thread = threading.Thread(target=_load, args=(found,), name="compile", daemon=True)
    thread.start()
    atexit.register(_end, thread)
    return _Loading(found, time.monotonic() + READ_SECONDS)


def _load(found: Future[Prove]) -> None:
    try:
        found.set_result(import_module("trace_dagster.verify.native.columns").proven)
    except BaseException as error:  # a processor or a disk it does not know how to use
        found.set_exception(error)
        if not ENDING.is_set():
            warnings.warn(f"proofs run in Python, several times slower: {error!r}", RuntimeWarning, stacklevel=2)


def _end(thread: threading.Thread) -> None:
    """A process that ends under the compiler crashes: it ends with the function at hand."""
    ENDING.set()
    thread.join()
