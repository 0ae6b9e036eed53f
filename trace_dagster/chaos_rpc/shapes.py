"""The shapes of requests and answers: methods that return rows, the places of logs, the requested blocks.

Answers are never changed in place: a change copies the containers on its path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

Request = dict[str, Any]
Answer = dict[str, Any]
Path = tuple[str | int, ...]

LISTS = frozenset(
    {
        "debug_traceBlockByHash",
        "debug_traceBlockByNumber",
        "eth_getBlockReceipts",
        "eth_getLogs",
        "trace_block",
        "trace_replayBlockTransactions",
    }
)
BLOCKS = frozenset({"eth_getBlockByHash", "eth_getBlockByNumber"})
SINGLES = frozenset({"eth_getTransactionByHash", "eth_getTransactionReceipt"})
WITH_ROWS = LISTS | BLOCKS
WITH_LOGS = frozenset({"eth_getBlockReceipts", "eth_getLogs", "eth_getTransactionReceipt"})
BY_NUMBER = WITH_ROWS - {"debug_traceBlockByHash", "eth_getBlockByHash"}
OBJECTS = WITH_ROWS | SINGLES

_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,16}")  # a hash is longer


@dataclass(frozen=True, slots=True)
class FaultContext:
    """What a fault can use in addition to the honest answer: a second request and the answer to it."""

    other: Request | None = None
    said: Answer | None = None

    @property
    def result(self) -> Any:
        """The second answer's result, or None."""
        return (self.said or {}).get("result")


FaultChange = Callable[[Request, Answer, Random, FaultContext], Answer]
"""(request, honest answer, rng, context) -> the incorrect answer, or the honest one if it cannot be changed."""


def with_result(answer: Answer, result: Any) -> Answer:
    """Return a copy of the answer with another result."""
    return {**answer, "result": result}


def rows_of(request: Request, answer: Answer) -> list[Any]:
    """Return the rows of an answer: its list, or a block's transactions; an empty list if it has neither."""
    result = answer.get("result")
    rows = result.get("transactions") if request["method"] in BLOCKS and isinstance(result, dict) else result
    return rows if isinstance(rows, list) else []


def with_rows(request: Request, answer: Answer, rows: list[Any]) -> Answer:
    """Return a copy of the answer with other rows."""
    if request["method"] in BLOCKS:
        return with_result(answer, {**answer["result"], "transactions": rows})
    return with_result(answer, rows)


def log_paths(answer: Answer) -> list[Path]:
    """Return the paths of an answer's logs below ``result``: of a list of logs or receipts, or of one receipt."""
    result = answer.get("result")
    if isinstance(result, dict):
        return [("logs", i) for i, _ in enumerate(result.get("logs") or [])]
    found: list[Path] = []
    for i, row in enumerate(result if isinstance(result, list) else []):
        if isinstance(row, dict):
            found += [(i, "logs", j) for j, _ in enumerate(row["logs"])] if "logs" in row else [(i,)]
    return found


def leaves(value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield every scalar with its path, in order. It is iterative because traces are nested deeper than
    Python's recursion limit.
    """
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, dict | list):
            waiting += [((*path, key), below) for key, below in reversed(list(_items(each)))]
        else:
            yield path, each


def objects(value: Any) -> Iterator[Path]:
    """Yield the path of every object that has keys."""
    waiting: list[tuple[Path, Any]] = [((), value)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, dict) and each:
            yield path
        if isinstance(each, dict | list):
            waiting += [((*path, key), below) for key, below in reversed(list(_items(each)))]


def at(value: Any, path: Path) -> Any:
    """Return the value at a path."""
    for key in path:
        value = value[key]
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """Return a copy of ``value`` with ``new`` at ``path``."""
    if not path:
        return new
    copy = value.copy()
    inner = copy
    for key in path[:-1]:
        inner[key] = inner[key].copy()
        inner = inner[key]
    inner[path[-1]] = new
    return copy


def moved(request: Request, by: int) -> Request | None:
    """Return the same request for blocks ``by`` further on, or None if it names no block by number."""
    parameters = request.get("params")
    if not isinstance(parameters, list) or not parameters:
        return None
    first = parameters[0]
    if isinstance(first, dict):
        ends = {key: _moved_number(first.get(key), by) for key in ("fromBlock", "toBlock")}
        there: Any = {**first, **ends} if None not in ends.values() else None
    else:
        there = _moved_number(first, by)
    return None if there is None else {**request, "params": [there, *parameters[1:]]}


def first_block(request: Request) -> int:
    """Return the number of the first requested block, for a request that ``moved`` can move."""
    first = request["params"][0]
    return int(first["fromBlock"] if isinstance(first, dict) else first, 16)


def _moved_number(text: Any, by: int) -> str | None:
    if not isinstance(text, str) or not _NUMBER.fullmatch(text) or int(text, 16) + by < 0:
        return None
    return hex(int(text, 16) + by)


def _items(each: dict[str, Any] | list[Any]) -> Iterator[tuple[str | int, Any]]:
    yield from each.items() if isinstance(each, dict) else enumerate(each)
