"""Incorrect answers with all rows, of which one value or more is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from trace_dagster.chaos_rpc.shapes import (
    Answer,
    FaultContext,
    Path,
    Request,
    at,
    leaves,
    log_paths,
    objects,
    replaced,
    with_result,
)

QUANTITIES = frozenset(
    {
        "baseFeePerGas",
        "blobGasUsed",
        "blockNumber",
        "cumulativeGasUsed",
        "difficulty",
        "effectiveGasPrice",
        "excessBlobGas",
        "gas",
        "gasLimit",
        "gasPrice",
        "gasUsed",
        "logIndex",
        "maxFeePerGas",
        "maxPriorityFeePerGas",
        "nonce",
        "number",
        "size",
        "status",
        "subtraces",
        "timestamp",
        "transactionIndex",
        "transactionPosition",
        "value",
    }
)
MOST_LOGS = 100
"""Most logs that are changed in one answer, because each change copies the list."""
CHAIN_IDS = (1, 10, 137, 143, 8453, 10143, 42161)

_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2}){4,}")
_QUANTITY = re.compile(r"0x(?:0|[1-9a-fA-F][0-9a-fA-F]*)")


def null_result(_request: Request, answer: Answer, _rng: Random, _context: FaultContext) -> Answer:
    return with_result(answer, None) if "result" in answer else answer


def wrong_id(_request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    identity = answer.get("id")
    return {**answer, "id": (identity if isinstance(identity, int) else 0) + rng.randint(1, 1000)}


def wrong_chain_id(request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    if not isinstance(answer.get("result"), str):
        return answer
    write: Callable[[int], str] = hex if request["method"] == "eth_chainId" else str
    others = [write(chain_id) for chain_id in CHAIN_IDS]
    return with_result(answer, rng.choice([other for other in others if other != answer["result"]]))


def flip_byte(_request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    """Change one byte of one field of four or more bytes: a hash, an address, a topic, data, a bloom."""

    def another(text: str) -> str:
        at_digit = 2 * rng.randint(1, len(text) // 2 - 1)
        byte = int(text[at_digit : at_digit + 2], 16) ^ rng.randint(1, 255)
        return f"{text[:at_digit]}{byte:02x}{text[at_digit + 2 :]}"

    return _with_one_leaf(answer, rng, _is_data, another)


def flip_digit(_request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    """Change one quantity by one, never below zero; a status becomes the other one."""

    def another(value: Any) -> Any:
        number = value if isinstance(value, int) else int(value, 16)
        number += rng.choice((-1, 1)) if number > 1 else 1 - 2 * number
        return number if isinstance(value, int) else hex(number)

    return _with_one_leaf(answer, rng, _is_quantity, another)


def drop_field(_request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    """Remove one randomly chosen key from one object of the answer, at any depth."""
    result = answer.get("result")
    found = [(path, key) for path in objects(result) for key in at(result, path)]
    if not found:
        return answer
    path, gone = rng.choice(found)
    return with_result(
        answer, replaced(result, path, {key: value for key, value in at(result, path).items() if key != gone})
    )


def removed_logs(_request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    return _with_some_logs(answer, rng, lambda log: {**log, "removed": True})


def null_hashes(_request: Request, answer: Answer, rng: Random, _context: FaultContext) -> Answer:
    return _with_some_logs(answer, rng, lambda log: {**log, "blockHash": None, "transactionHash": None})


def _with_one_leaf(
    answer: Answer, rng: Random, wanted: Callable[[Path, Any], bool], another: Callable[[Any], Any]
) -> Answer:
    result = answer.get("result")
    found = [(path, leaf) for path, leaf in leaves(result) if wanted(path, leaf)]
    if not found:
        return answer
    path, leaf = rng.choice(found)
    return with_result(answer, replaced(result, path, another(leaf)))


def _with_some_logs(answer: Answer, rng: Random, another: Callable[[dict[str, Any]], dict[str, Any]]) -> Answer:
    paths = log_paths(answer)
    if not paths:
        return answer
    result = answer["result"]
    for path in rng.sample(paths, rng.randint(1, min(len(paths), MOST_LOGS))):
        result = replaced(result, path, another(at(result, path)))
    return with_result(answer, result)


def _is_data(path: Path, leaf: Any) -> bool:
    """Return whether a value is data. A timestamp of four bytes is a quantity; a result that is one string is data."""
    return isinstance(leaf, str) and bool(_DATA.fullmatch(leaf)) and not (path and _is_quantity(path, leaf))


def _is_quantity(path: Path, leaf: Any) -> bool:
    if path and path[-1] not in QUANTITIES:
        return False
    if isinstance(leaf, str):
        return bool(_QUANTITY.fullmatch(leaf))
    return isinstance(leaf, int) and not isinstance(leaf, bool)
