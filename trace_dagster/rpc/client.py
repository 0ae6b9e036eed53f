"""A small JSON-RPC client for the requests of this package itself: chain id, head, blocks.

Answers are untrusted until they are checked: an answer that does not match its request raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Any

import msgspec

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import EndpointLacks, InvalidInput, NoAnswer, TraceError, Unavailable
from trace_dagster.rpc.http import post
from trace_dagster.rpc.pools import Endpoint, RpcPool, variable_of

TIMEOUT_SECONDS = 10.0
BATCHES_AT_ONCE = 16
_METHOD_NOT_FOUND = -32601
_NO_TAG_CODES = frozenset({-39001, -32602, _METHOD_NOT_FOUND})
"""Unknown block, invalid parameter, and a method that does not take the tag."""
_NO_TAG = re.compile(
    r"unknown block|block[\w \"']{0,40}not (found|available)|\bfinalized\b|block ?tag|invalid block|without 0x prefix",
    re.IGNORECASE,
)
"""What nodes say of a block tag that they do not know, or that names no block yet, under other codes."""

Call = tuple[str, list[Any]]
"""A method and its parameters."""


class _Answer(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


_ANSWER = msgspec.json.Decoder(_Answer)
_ANSWERS = msgspec.json.Decoder(list[_Answer])


def chain_id(pool: RpcPool) -> int:
    """Return the chain id of the pool's endpoints. Raises Unavailable, or InvalidInput if the API key is refused."""
    return _first_answer(pool, chain_id_of)


def chain_id_of(endpoint: Endpoint) -> int:
    """Return the chain id of one endpoint."""
    return quantity(call(endpoint, "eth_chainId", []))


def block_number(pool: RpcPool) -> int:
    """Return the number of the latest block, from the first endpoint that answers.

    Raises the last endpoint's error if none does.
    """
    return _first_answer(pool, block_number_of)


def block_number_of(endpoint: Endpoint) -> int:
    """Return the number of the latest block at one endpoint."""
    return quantity(call(endpoint, "eth_blockNumber", []))


def finalized_number_of(endpoint: Endpoint) -> int | None:
    """Return the number of an endpoint's finalized block, or None if it does not know the block tag ``finalized``.

    An answer without a block means that: null, an object without a number, or an error about the block or the tag. Any
    other failure raises.
    """
    method, parameters = "eth_getBlockByNumber", ["finalized", False]
    status, data = post(endpoint, _encode(1, (method, parameters)), read_seconds=TIMEOUT_SECONDS)
    try:
        answer = _ANSWER.decode(data)
        if answer.error is not None and _knows_no_tag(answer.error):
            return None
        if answer.id != 1:
            raise Unavailable(f"rpc endpoint {endpoint.name} answered another request than {method}", http=status)
        block = msgspec.json.decode(_result(answer, endpoint, method))
    except (msgspec.DecodeError, RecursionError):
        raise Unavailable(
            f"rpc endpoint {endpoint.name} answered with something that is not JSON-RPC", http=status
        ) from None
    if block is None or (isinstance(block, dict) and block.get("number") is None):
        return None
    return quantity(block.get("number") if isinstance(block, dict) else block)


def _knows_no_tag(error: object) -> bool:
    """Return whether an error means that the node has no block for the tag, not that it failed."""
    if not isinstance(error, dict):
        return False
    said = error.get("message")
    return error.get("code") in _NO_TAG_CODES or (isinstance(said, str) and bool(_NO_TAG.search(said)))


def require_chain(pool: RpcPool, wanted: int) -> None:
    """Check the chain of every endpoint. Raises InvalidInput if one serves another chain, Unavailable if none
    answers.
    """
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
    """Send one request and return the answer's ``result``. Raises Unavailable if there is no valid answer."""
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
    """Send requests in batches and return the ``result`` of each as JSON bytes, in order.

    A batch that the endpoint does not serve is sent again in halves. A single call that fails raises Unavailable, or
    EndpointLacks if the endpoint does not have the method.
    """
    batches = [calls[start : start + endpoint.batch] for start in range(0, len(calls), endpoint.batch)]
    if len(batches) == 1:
        return _batch(endpoint, batches[0])
    return list(chain.from_iterable(_threads().map(lambda batch: _batch(endpoint, batch), batches)))


def _batch(endpoint: Endpoint, calls: Sequence[Call]) -> list[msgspec.Raw]:
    try:
        return _ask(endpoint, calls)
    except NoAnswer:
        raise  # a smaller batch would not help
    except Unavailable:
        if len(calls) == 1:
            raise
    half = len(calls) // 2
    return _batch(endpoint, calls[:half]) + _batch(endpoint, calls[half:])


def _ask(endpoint: Endpoint, calls: Sequence[Call]) -> list[msgspec.Raw]:
    """Send all of ``calls`` in one HTTP request. Raises Unavailable unless every call is answered."""
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
        said = error.get("message") if isinstance(error, dict) else None
        if endpoint.gateway_url and isinstance(said, str) and said.startswith(f"rpc endpoint {endpoint.name} "):
            raise Unavailable(said)  # the gateway's own words: the call was not answered
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
    """Return a block number or chain id from an answer. Raises Unavailable for any other value."""
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 18:
        raise Unavailable("an rpc node answered with something that is not a block number or chain id")
    try:
        number = int(value, 16)
    except ValueError:
        number = -1
    if not 0 <= number < MAX_BLOCK:
        raise Unavailable("an rpc node answered with something that is not a block number or chain id")
    return number
