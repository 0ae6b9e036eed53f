"""Runs a generator in a thread, a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item, None, None], most: int) -> Generator[Item, None, None]:
    """Yield the items of a generator that a thread advances, at most ``most`` items ahead.

    An error of the generator is raised here. Closing this generator closes the other one before its next item, and ends
    the thread.
    """
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(most)
    closed = threading.Event()

    def put(entry: tuple[Item] | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:
            put(error)
        finally:
            items.close()

    thread = threading.Thread(target=run, name="trace-ahead", daemon=True)
    thread.start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        closed.set()
        thread.join()
