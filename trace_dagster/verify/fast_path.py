"""Proves whole blocks and their receipts with compiled code, into columns.

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

from trace_dagster.datasets.chain import Chain
from trace_dagster.verify.commitments.rpc_json import Json
from trace_dagster.verify.model import Header, ProvenRows
from trace_dagster.verify.native import ENDING

ProvenBlocks = tuple[list[Header], ProvenRows]
Prover = Callable[[Sequence[Json], int, Chain], ProvenBlocks | None]

READ_SECONDS = 3.0
"""How long the first proofs wait for the compiled code. It is loaded by then if it is on disk."""


def prove_compiled(answers: Sequence[Json], first: int, chain: Chain) -> ProvenBlocks | None:
    """Return the proven headers and rows of the blocks from ``first`` on, or None if Python must check them.

    ``answers`` are the answers to ``eth_getBlockByNumber`` with whole transactions, one per block, then the answers to
    ``eth_getBlockReceipts``, one per block. The compiled code accepts the forms of ``chain`` that it knows, and no
    others. The first call starts to load the compiled code in the background, which
    takes half a second, or 20 seconds if it must be compiled. Calls before that wait up to READ_SECONDS, then return
    None.
    """
    compiled, until = _compiled()
    if not compiled.done():
        wait([compiled], max(0.0, until - time.monotonic()))
    if not compiled.done() or compiled.exception() is not None:
        return None
    try:
        return compiled.result()(answers, first, chain)
    except MemoryError:  # the answers need more memory than those of real blocks
        return None


def begin_loading() -> None:
    """Start to load the compiled code in the background, so that the first proof need not wait for it."""
    _compiled()


def await_compiled() -> None:
    """Wait until the compiled code is loaded. Raises the error that prevented compiling it."""
    _compiled().found.result()


class _Loading(NamedTuple):
    found: Future[Prover]
    until: float
    """Time after which calls no longer wait for the code, by the monotonic clock."""


@cache
def _compiled() -> _Loading:
    """Start to load or compile the code in a thread. Until that ends, Python proves."""
    found: Future[Prover] = Future()
    thread = threading.Thread(target=_load, args=(found,), name="compile", daemon=True)
    thread.start()
    atexit.register(_end, thread)
    return _Loading(found, time.monotonic() + READ_SECONDS)


def _load(found: Future[Prover]) -> None:
    try:
        found.set_result(import_module("trace_dagster.verify.native.columns").proven)
    except BaseException as error:  # for example an unsupported processor, or a full disk
        found.set_exception(error)
        if not ENDING.is_set():
            warnings.warn(f"proofs run in Python, several times slower: {error!r}", RuntimeWarning, stacklevel=2)


def _end(thread: threading.Thread) -> None:
    """Wait for the compiler to finish its current function: a process that ends while it compiles crashes."""
    ENDING.set()
    thread.join()
