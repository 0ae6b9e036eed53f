"""The table of head scenarios: a node whose head is not the chain's, and the answers that it then gives.

A scenario is a state of the proxy: it lasts until another one is set, and does not depend on the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trace_dagster.chaos_rpc.shapes import BLOCKS, Answer, Request, first_block, with_result
from trace_dagster.errors import InvalidInput

TAGS = ("latest", "safe", "finalized")
_NEWEST = {"latest": "latest", "pending": "latest", "safe": "safe", "finalized": "finalized"}

View = Literal["older", "frozen", "turns", "mixed", "early"]
"""Which node answers: one with an older head, one whose head stands still, two nodes in turn (for each HTTP request or
for each call), or one that does not find its newest blocks yet.
"""

Announced = Callable[[Sequence[Any], int], list[Any]]
"""(notifications of new heads so far, newest last; number of blocks) -> the notifications to send now."""


def _at_once(seen: Sequence[Any], _blocks: int) -> list[Any]:
    return [seen[-1]]


def _late(seen: Sequence[Any], blocks: int) -> list[Any]:
    return [seen[-1 - blocks]] if len(seen) > blocks else []


def _never(_seen: Sequence[Any], _blocks: int) -> list[Any]:
    return []


def _twice(seen: Sequence[Any], _blocks: int) -> list[Any]:
    return [seen[-1], seen[-1]]


def _rewound(seen: Sequence[Any], blocks: int) -> list[Any]:
    return [seen[-1], seen[max(0, len(seen) - 1 - blocks)]]


@dataclass(frozen=True, slots=True)
class HeadScenario:
    """One way in which a node's head is wrong. Without a view, only subscriptions are affected."""

    name: str
    description: str
    view: View | None = None
    announced: Announced = _at_once


_SCENARIOS = (
    HeadScenario("behind", "The node is some blocks behind: it has an older head and nothing above.", "older", _late),
    HeadScenario("syncing", "The node says that it syncs, and its head stands still.", "frozen", _never),
    HeadScenario(
        "two_backends", "Requests go in turn to the node and to --fork-upstream, or to a node that is behind.", "turns"
    ),
    HeadScenario("two_backends_mixed", "The same, in turn for each call of a batch.", "mixed"),
    HeadScenario("null_new_block", "The newest blocks are announced but not found yet.", "early"),
    HeadScenario("repeated_heads", "A subscription announces each head twice.", announced=_twice),
    HeadScenario("rewound_heads", "A subscription announces an older head after each head.", announced=_rewound),
    HeadScenario("silent_heads", "A subscription stays open and announces nothing.", announced=_never),
)
HEADS: Mapping[str, HeadScenario] = {scenario.name: scenario for scenario in _SCENARIOS}


def head_scenario(name: str | None) -> HeadScenario | None:
    """Return a scenario by its name. Raises InvalidInput if there is none of this name."""
    if name is not None and name not in HEADS:
        raise InvalidInput("there is no such head scenario: `trace-lite chaos-rpc --list` shows them", unknown=name)
    return None if name is None else HEADS[name]


@dataclass(frozen=True, slots=True)
class NodeHeads:
    """The block numbers of a node's tags."""

    latest: int
    safe: int
    finalized: int

    def behind(self, blocks: int) -> NodeHeads:
        """Return the heads of a node that is ``blocks`` behind."""
        return NodeHeads(*(max(0, number - blocks) for number in (self.latest, self.safe, self.finalized)))


def as_of(request: Request, heads: NodeHeads) -> Request:
    """Return the request with numbers instead of tags, as a node with these heads understands it."""
    parameters = request.get("params")
    if not isinstance(parameters, list) or not parameters:
        return request
    first = parameters[0]
    if isinstance(first, dict):
        ends = {"fromBlock": first.get("fromBlock", "latest"), "toBlock": first.get("toBlock", "latest")}
        named: Any = first if "blockHash" in first else first | {key: _number(end, heads) for key, end in ends.items()}
    else:
        named = _number(first, heads)
    return {**request, "params": [named, *parameters[1:]]}


def hidden(request: Request, answer: Answer, last: int) -> Answer:
    """Return the answer of a node that has no block above ``last``."""
    method, result = request["method"], answer.get("result")
    if method == "eth_blockNumber":
        return with_result(answer, hex(last))
    if method == "eth_getLogs" and isinstance(result, list):
        return with_result(answer, [log for log in result if int(log["blockNumber"], 16) <= last])
    block = _block_of(request, result)
    return answer if block is None or block <= last else with_result(answer, None)


def syncing(answer: Answer, head: int, highest: int) -> Answer:
    """Return the answer to ``eth_syncing`` of a node that is at ``head``."""
    return with_result(answer, {"startingBlock": "0x0", "currentBlock": hex(head), "highestBlock": hex(highest)})


def _number(tag: Any, heads: NodeHeads) -> Any:
    return hex(getattr(heads, _NEWEST[tag])) if isinstance(tag, str) and tag in _NEWEST else tag


def _block_of(request: Request, result: Any) -> int | None:
    """Return the block that an answer is about; None if it says none."""
    row = result[0] if isinstance(result, list) and result else result
    if isinstance(row, dict):
        number = row.get("number") if request["method"] in BLOCKS else row.get("blockNumber")
        return None if number is None else int(str(number), 0)
    try:
        return first_block(request)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
