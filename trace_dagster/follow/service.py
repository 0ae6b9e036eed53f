"""Follows every chain that has streams at its head: as a service of its own, or for a few seconds from a sensor.

Both take the same lease per chain, so that one of them follows a chain at a time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from trace_dagster.errors import TraceError
from trace_dagster.follow.follower import ChainFollower, FollowerParts
from trace_dagster.follow.streams import TipStream, tip_streams
from trace_dagster.messages.logs import component_log
from trace_dagster.registry.streams import StreamRow
from trace_dagster.verify.fast_path import begin_loading

LOOK_SECONDS = 0.5
"""How often the service looks for jobs that were applied, paused or changed."""

TURN_SECONDS = 1.0
"""How long a follower works before its thread looks whether it should end."""

UNHELD_SECONDS = 0.5
"""How long a follower waits before it tries again to get a lease that another process has."""

_log = component_log("follow")
ReadStreams = Callable[[], Sequence[StreamRow]]
Beat = Callable[[Sequence[int]], None]
"""Is called with the chains whose thread is stuck in a call that does not return."""


def holder_name() -> str:
    """Return the name under which this process holds leases, as in ``host:1234``."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Followers:
    """The followers of all chains of one process."""

    def __init__(self, read_streams: ReadStreams, parts: FollowerParts) -> None:
        self._read_streams = read_streams
        self._parts = parts
        self._followers: dict[int, ChainFollower] = {}
        self._threads: dict[int, _Thread] = {}
        self._rows: Sequence[StreamRow] | None = None
        self._streams: Mapping[int, tuple[TipStream, ...]] = {}

    def run(self, stop: threading.Event, chains: Collection[int] = (), beat: Beat = lambda _: None) -> None:
        """Follow ``chains``, or all if there are none, until ``stop`` is set; call ``beat`` each time round. Jobs that
        are applied are taken up within a second.
        """
        begin_loading()
        try:
            while True:
                with suppress(TraceError):  # the registry does not answer: followers go on, and say so themselves
                    self._look(chains)
                    beat([chain_id for chain_id in self._threads if self._followers[chain_id].is_stuck])
                if stop.wait(LOOK_SECONDS):
                    return
        finally:
            self._end(list(self._threads))

    def tick(self, seconds: float) -> str:
        """Bring every chain up to its newest block, within about ``seconds``, then give the leases back. Return in
        words what was done. Each chain gets its share of the time; those that another process follows are left to it.
        """
        deadline = time.monotonic() + seconds
        chains = self._wanted()
        self._close([each for each in self._followers if each not in chains])
        wanted = list(chains.items())
        said = []
        for place, (chain_id, streams) in enumerate(wanted):
            share = (deadline - time.monotonic()) / (len(wanted) - place)
            said.append(self._visit(chain_id, streams, max(0.1, share)))
        return "; ".join(said) or "no job follows the head of a chain"

    def _visit(self, chain_id: int, streams: tuple[TipStream, ...], seconds: float) -> str:
        """Bring one chain up to its newest block, and give its lease back. An error does not stop the other chains."""
        follower = self._follower(chain_id)
        follower.follow(streams)
        try:
            return follower.advance(seconds, until_done=True)
        except Exception as error:  # a fault of this version must not keep other chains from being followed
            _log.warning("follower_crashed", chain_id=chain_id, reason=repr(error))
            return f"chain {chain_id}: failed with an unexpected {type(error).__name__}: see the log"
        finally:
            follower.release()

    def close(self) -> None:
        """End all followers and give their leases back."""
        self._end(list(self._threads))
        self._close(list(self._followers))

    def _look(self, chains: Collection[int]) -> None:
        wanted = {each: streams for each, streams in self._wanted().items() if not chains or each in chains}
        self._end([chain_id for chain_id in self._threads if chain_id not in wanted])
        for chain_id, streams in wanted.items():
            self._follower(chain_id).follow(streams)
            if chain_id not in self._threads:
                self._threads[chain_id] = _Thread(self._follower(chain_id))
                _log.event("follower_started", chain_id=chain_id, streams=len(streams))

    def _wanted(self) -> Mapping[int, tuple[TipStream, ...]]:
        """Return the streams of each chain; the same objects as long as nothing has changed."""
        rows = self._read_streams()
        if rows != self._rows:
            found = tip_streams(rows)
            self._streams = {
                chain_id: self._streams[chain_id] if self._streams.get(chain_id) == streams else streams
                for chain_id, streams in found.items()
            }
            self._rows = rows
        return self._streams

    def _follower(self, chain_id: int) -> ChainFollower:
        if chain_id not in self._followers:
            self._followers[chain_id] = ChainFollower(chain_id, self._parts)
        return self._followers[chain_id]

    def _end(self, chains: Sequence[int]) -> None:
        threads = [self._threads.pop(chain_id) for chain_id in chains]
        for thread in threads:
            thread.stop()
        for chain_id, thread in zip(chains, threads, strict=True):
            thread.join()
            self._close([chain_id])
            _log.event("follower_stopped", chain_id=chain_id)

    def _close(self, chains: Sequence[int]) -> None:
        for chain_id in chains:
            self._followers.pop(chain_id).close()


class _Thread:
    """The thread of one follower."""

    def __init__(self, follower: ChainFollower) -> None:
        self._follower = follower
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow-{follower.chain_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def join(self) -> None:
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follower.advance(TURN_SECONDS)
            except Exception as error:  # a fault of this version must not end the service, nor go unseen
                _log.warning("follower_crashed", chain_id=self._follower.chain_id, reason=repr(error))
                self._follower.release()
            if not self._follower.has_lease:
                self._stopped.wait(UNHELD_SECONDS)
