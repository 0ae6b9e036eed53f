"""The options of a proxy, its random draws, and its counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from trace_dagster.chaos_rpc.faults import USUAL, ChaosFault, chosen
from trace_dagster.chaos_rpc.heads import NodeHeads, head_scenario
from trace_dagster.chaos_rpc.proxied_node import NodeAddress
from trace_dagster.chaos_rpc.seeded_random import RequestRandom
from trace_dagster.chaos_rpc.shapes import Request
from trace_dagster.errors import InvalidInput
from trace_dagster.loopback import HOST

STALL_SECONDS = 3600.0
DELAY_SECONDS = 2.0
HEAD_BLOCKS = 3


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A request's fault and its random generator."""

    fault: ChaosFault
    rng: Random


class ChaosRpc:
    """The proxy's state: the node that it forwards to, the faults and their rate, and the counters.

    ``upstream_url``, ``fork_url``, ``faults``, ``rate`` and ``head`` may be set while it runs.

    Raises InvalidInput for invalid values.
    """

    def __init__(
        self,
        upstream_url: str | None,
        faults: Sequence[str] = USUAL,
        rate: float = 0.01,
        seed: int = 1,
        fork_url: str | None = None,
        methods: Sequence[str] | None = None,
        stall_seconds: float = STALL_SECONDS,
        delay_seconds: float = DELAY_SECONDS,
        head: str | None = None,
        head_blocks: int = HEAD_BLOCKS,
    ) -> None:
        self.upstream_url = upstream_url
        self.faults = faults
        self.rate = rate
        self.head = head
        self.head_blocks = head_blocks
        """How many blocks the head of the scenario is away from the node's."""
        self.fork_url = fork_url
        self.held_seconds = {"stall": stall_seconds, "delay": delay_seconds}
        self.port = 0
        self.requests = 0
        """Number of request objects; a batch has several."""
        self.injected: Counter[str] = Counter()
        """Number of incorrect answers by the fault's name."""
        self._methods = frozenset(methods) if methods else None
        self._random = RequestRandom(seed)
        self._turn = -1

    @property
    def url(self) -> str:
        """URL of the proxy, for an RPC pool's variable."""
        return f"http://{HOST}:{self.port}"

    @property
    def upstream_url(self) -> str | None:
        """The node's URL. It may contain a key: never print it."""
        return self._upstream_url

    @upstream_url.setter
    def upstream_url(self, url: str | None) -> None:
        self.upstream = None if url is None else NodeAddress.of(url)
        self._upstream_url = url

    @property
    def fork_url(self) -> str | None:
        """The URL of the node on a fork. It may contain a key: never print it."""
        return self._fork_url

    @fork_url.setter
    def fork_url(self, url: str | None) -> None:
        self.fork = None if url is None else NodeAddress.of(url)
        self._fork_url = url

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of the faults that are drawn."""
        return tuple(fault.name for fault in self._faults)

    @faults.setter
    def faults(self, names: Sequence[str]) -> None:
        self._faults = chosen(names)

    @property
    def rate(self) -> float:
        """The share of requests that get a fault if one applies to them: 0 to 1."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise InvalidInput("a rate lies between 0 and 1", rate=rate)
        self._rate = rate

    @property
    def head(self) -> str | None:
        """The name of the head scenario, or None for the node's own head."""
        return None if self.head_scenario is None else self.head_scenario.name

    @head.setter
    def head(self, name: str | None) -> None:
        self.head_scenario = head_scenario(name)
        self.frozen: NodeHeads | None = None

    def next_turn(self) -> int:
        """Return 0, 1, 2, ...: which of two nodes is next."""
        self._turn += 1
        return self._turn

    def fault_for(self, request: Request) -> InjectedFault | None:
        """Return the fault of the next request, or None for an honest answer."""
        self.requests += 1
        method = request.get("method")
        if self._methods is not None and method not in self._methods:
            return None
        rng = self._random.of_request(request)
        if rng.random() >= self._rate:
            return None
        applicable = [fault for fault in self._faults if fault.applies_to(method)]
        return InjectedFault(rng.choice(applicable), rng) if applicable else None

    def summary(self) -> str:
        """Return one line: the number of requests, and the injected faults."""
        parts = [f"{count} {name}" for name, count in self.injected.most_common()]
        return f"{self.requests} requests, {self.injected.total()} faults" + (f": {', '.join(parts)}" if parts else "")
