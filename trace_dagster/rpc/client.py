"""A small JSON-RPC client for the questions we ask ourselves: which chain, how far, what stands in a block.

Answers are hostile until checked: one that is no answer to the question raises, it is never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Any, Literal

import msgspec

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import EndpointLacks, InvalidInput, NoAnswer, TraceError, Unavailable
from trace_dagster.rpc.http import post
from trace_dagster.rpc.pools import Endpoint, RpcPool, variable_of

TIMEOUT_SECONDS = 10.0
BATCHES_AT_ONCE = 16
_METHOD_NOT_FOUND = -32601

Tag = Literal["latest", "safe", "finalized"]
Call = tuple[str, list[Any]]
"""A method and its parameters."""


class _Answer(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


_ANSWER = msgspec.json.Decoder(_Answer)
_ANSWERS = msgspec.json.Decoder(list[_Answer])


def chain_id(pool: RpcPool) -> int:
    """The chain the pool's endpoints serve. Raises Unavailable, or InvalidInput for a refused key."""
    return _first_answer(pool, chain_id_of)


def chain_id_of(endpoint: Endpoint) -> int:
    """The chain one endpoint serves."""
    return quantity(call(endpoint, "eth_chainId", []))


def block_number(pool: RpcPool, tag: Tag = "latest") -> int:
    """The number of the block a tag names; ``latest`` where the node does not know ``finalized``."""
    return _first_answer(pool, lambda endpoint: block_number_of(endpoint, tag))


def block_number_of(endpoint: Endpoint, tag: Tag = "latest") -> int:
    """The same, as one endpoint sees it."""
    if tag == "latest":
        return quantity(call(endpoint, "eth_blockNumber", []))
    block = call(endpoint, "eth_getBlockByNumber", [tag, False])
    if not isinstance(block, dict):
        raise Unavailable(f"rpc endpoint {endpoint.name} knows no {tag} block yet")
    return quantity(block.get("number"))


def require_chain(pool: RpcPool, wanted: int) -> None:
    """Raises InvalidInput when an endpoint serves another chain than ``wanted``, Unavailable when none answers."""
    last: TraceError | None = None
    answered = 0
    for endpoint in pool.endpoints:
        try:
            found = chain_id_of(endpoint)
        except TraceError as error:
            last = error
            continue
        answered += 1
        if found != wanted:
            raise InvalidInput(
                f"rpc endpoint {endpoint.name} serves chain {found}, the job wants chain {wanted}: correct chain_id"
                f" in the file, or {variable_of(pool.name)}"
            )
    if not answered:
        raise last or Unavailable(f"rpc pool {pool.name} has no endpoint")


def call(endpoint: Endpoint, method: str, parameters: list[Any]) -> Any:
    """One request; the ``result`` of the answer. Raises Unavailable for anything that is no answer to it."""
    status, data = post(endpoint, _encode(1, (method, parameters)), read_seconds=TIMEOUT_SECONDS)
    try:
        answer = _ANSWER.decode(data)
        if answer.id != 1:
            raise Unavailable(f"rpc endpoint {endpoint.name} answered another request than {method}", http=status)
        return msgspec.json.decode(_result(answer, endpoint, method))
    except (msgspec.DecodeError, RecursionError):
        raise Unavailable(
            f"rpc endpoint {endpoint.name} answered with something that is not JSON-RPC", http=status
        ) from None


def call_all(endpoint: Endpoint, calls: Sequence[Call]) -> list[msgspec.Raw]:
    """Many requests, batched; the ``result`` of each as JSON bytes, in order.

    A batch the endpoint does not serve is tried again in halves, a single call that fails raises Unavailable, or
    EndpointLacks for a method the endpoint does not have.
    """
    batches = [calls[start : start + endpoint.batch] for start in range(0, len(calls), endpoint.batch)]
    if len(batches) == 1:
        return _batch(endpoint, batches[0])
    return list(chain.from_iterable(_threads().map(lambda batch: _batch(endpoint, batch), batches)))


def _batch(endpoint: Endpoint, calls: Sequence[Call]) -> list[msgspec.Raw]:
    try:
        return _ask(endpoint, calls)
    except NoAnswer:
        raise  # less would not help
    except Unavailable:
        if len(calls) == 1:
            raise
    half = len(calls) // 2
    return _batch(endpoint, calls[:half]) + _batch(endpoint, calls[half:])


def _ask(endpoint: Endpoint, calls: Sequence[Call]) -> list[msgspec.Raw]:
    """One HTTP request for all of ``calls``. Raises Unavailable unless every one is answered."""
    body = b"[" + b",".join(_encode(position, each) for position, each in enumerate(calls)) + b"]"
    status, data = post(endpoint, body)
    try:
        answers = {answer.id: answer for answer in _ANSWERS.decode(data)}
    except (msgspec.DecodeError, RecursionError):
        raise Unavailable(f"rpc endpoint {endpoint.name} did not answer a batch of {len(calls)}", http=status) from None
    if len(answers) != len(calls):
        raise Unavailable(f"rpc endpoint {endpoint.name} did not answer every call of a batch", http=status)
    found = []
    for position, (method, _) in enumerate(calls):
        answer = answers.get(position)
        if answer is None:
            raise Unavailable(f"rpc endpoint {endpoint.name} answered another request than {method}", http=status)
        found.append(_result(answer, endpoint, method))
    return found


def _result(answer: _Answer, endpoint: Endpoint, method: str) -> msgspec.Raw:
    if answer.error is not None:
        error = answer.error
        code = error.get("code") if isinstance(error, dict) and type(error.get("code")) is int else None
        if code == _METHOD_NOT_FOUND:
            raise EndpointLacks(
                f"rpc endpoint {endpoint.name} does not support {method}: use a node that does, or verify: structural"
            )
        raise Unavailable(f"rpc endpoint {endpoint.name} answered {method} with an error", code=code)
    if not bytes(answer.result):
        raise Unavailable(f"rpc endpoint {endpoint.name} answered {method} with neither result nor error")
    return answer.result


def _encode(identity: int, each: Call) -> bytes:
    method, parameters = each
    return msgspec.json.encode({"jsonrpc": "2.0", "id": identity, "method": method, "params": parameters})


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="rpc")


def _first_answer(pool: RpcPool, ask: Callable[[Endpoint], int]) -> int:
    last: TraceError = Unavailable(f"rpc pool {pool.name} has no endpoint")
    for endpoint in pool.endpoints:
        try:
            return ask(endpoint)
        except TraceError as error:
            last = error
    raise last


def quantity(value: object) -> int:
    """A block number or chain id out of an answer. Raises Unavailable for anything else."""
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 18:
        raise Unavailable("an rpc node answered with something that is not a block number or chain id")
    try:
        number = int(value, 16)
    except ValueError:
        number = -1
    if not 0 <= number < MAX_BLOCK:
        raise Unavailable("an rpc node answered with something that is not a block number or chain id")
    return number
