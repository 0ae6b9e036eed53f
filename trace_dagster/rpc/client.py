"""A small JSON-RPC client for the requests of this package itself: chain id, head, blocks.

Answers are untrusted until they are checked: an answer that does not match its request raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import msgspec

from trace_dagster.blocks import MAX_BLOCK
from trace_dagster.errors import EndpointLacks, InvalidInput, NoAnswer, TraceError, Unavailable
from trace_dagster.messages.provider_words import provider_words
from trace_dagster.rpc.endpoint_memory import memory
from trace_dagster.rpc.http import post
from trace_dagster.rpc.pools import BATCH_CALLS, Endpoint, RpcPool, variable_of
from trace_dagster.rpc.provider_errors import (
    TOO_LARGE,
    AnswerTooLarge,
    BatchRefused,
    MethodLacked,
    code_and_text,
    is_about_the_batch,
    is_about_the_plan,
    is_oversized,
    is_refusal,
    lacks_method,
    largest_batch,
    names_the_batch,
    quoted,
    text_in,
    without_mark,
)

TIMEOUT_SECONDS = 10.0
READ_SECONDS = 30.0
BATCHES_AT_ONCE = 16
_METHOD_NOT_FOUND = -32601
_NO_TAG_CODES = frozenset({-39001, -32602, _METHOD_NOT_FOUND})
"""Unknown block, invalid parameter, and a method that does not take the tag."""
_NO_TAG = re.compile(
    r"unknown block|block[\w \"']{0,40}not (found|available)|\b(finalized|safe)\b|block ?tag|invalid block|"
    r"without 0x prefix",
    re.IGNORECASE,
)
"""What nodes say of a block tag that they do not know, or that names no block yet, under other codes."""

Call = tuple[str, list[Any]]
"""A method and its parameters."""

CallOutcome = msgspec.Raw | MethodLacked | AnswerTooLarge
"""The outcome of one call: the JSON bytes of its result, or an error after which its parts can be asked for."""


class _MethodsRefused(Unavailable):
    """An endpoint does not serve the batch because of one of its methods. Send each method by itself."""


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


def tagged_number_of(endpoint: Endpoint, tag: str) -> int | None:
    """Return the number of the block that an endpoint calls ``finalized`` or ``safe``, or None if it does not know the
    tag.

    An answer without a block means that: null, an object without a number, or an error about the block or the tag. Any
    other failure raises.
    """
    each: Call = ("eth_getBlockByNumber", [tag, False])
    answer = _single_answer(endpoint, each, read_seconds=TIMEOUT_SECONDS)
    if answer.error is not None and _knows_no_tag(answer.error):
        return None
    block = _decoded(_result(answer, endpoint, each[0]), endpoint)
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
    """Send one request and return the answer's ``result``.

    Raises Unavailable if there is no valid answer, EndpointLacks if the endpoint does not offer the method,
    InvalidInput if it refuses its key.
    """
    return _decoded(_single(endpoint, (method, parameters), read_seconds=TIMEOUT_SECONDS), endpoint)


def call_all(endpoint: Endpoint, calls: Sequence[Call]) -> list[msgspec.Raw]:
    """Send requests in batches and return the ``result`` of each as JSON bytes, in order.

    A batch that the endpoint does not serve is sent again in smaller ones. A single call that fails raises Unavailable,
    or EndpointLacks if the endpoint does not have the method.
    """
    found = call_each(endpoint, calls)
    for each in found:
        if isinstance(each, TraceError):
            raise each
    return [each for each in found if not isinstance(each, TraceError)]


def call_each(endpoint: Endpoint, calls: Sequence[Call]) -> list[CallOutcome]:
    """Send requests as :func:`call_all` does, but return MethodLacked and AnswerTooLarge in the place of a result."""
    size = _batch_size(endpoint)
    batches = [calls[start : start + size] for start in range(0, len(calls), size)]
    if len(batches) == 1:
        return _batch(endpoint, batches[0])
    return list(chain.from_iterable(_threads().map(lambda batch: _batch(endpoint, batch), batches)))


def _batch_size(endpoint: Endpoint) -> int:
    """Return how many calls to send together. The gateway makes smaller batches of those at the tip if it has to."""
    if endpoint.gateway_url:
        return BATCH_CALLS if endpoint.is_at_tip else endpoint.batch
    return memory.batch(endpoint.fingerprint, endpoint.batch)


def _batch(endpoint: Endpoint, calls: Sequence[Call]) -> list[CallOutcome]:
    try:
        return [_single(endpoint, calls[0])] if len(calls) == 1 else _ask(endpoint, calls)
    except NoAnswer:
        raise  # a smaller batch would not help
    except BatchRefused as refusal:
        found = _in_parts(endpoint, calls, refusal.most)
        memory.note_batch(endpoint.fingerprint, refusal.most)  # only now it is sure that the size was the reason
        return found
    except _MethodsRefused:
        groups = [list(group) for _, group in groupby(calls, key=itemgetter(0))]
        return list(chain.from_iterable(_batch(endpoint, group) for group in groups))
    except (MethodLacked, AnswerTooLarge) as error:
        if len(calls) == 1 or (isinstance(error, MethodLacked) and not _are_mixed(calls)):
            return [error] * len(calls)
    except Unavailable:
        if len(calls) == 1:
            raise
    return _in_parts(endpoint, calls, len(calls) // 2)


def _in_parts(endpoint: Endpoint, calls: Sequence[Call], most: int) -> list[CallOutcome]:
    """Send the calls in batches of ``most``, or of fewer if the first of them were refused as well."""
    found: list[CallOutcome] = []
    while len(found) < len(calls):
        size = memory.batch(endpoint.fingerprint, most)
        found += _batch(endpoint, calls[len(found) : len(found) + size])
    return found


def _single(endpoint: Endpoint, each: Call, *, read_seconds: float = READ_SECONDS) -> msgspec.Raw:
    """Send one call as a single object: some endpoints refuse a list of one."""
    return _result(_single_answer(endpoint, each, read_seconds=read_seconds), endpoint, each[0])


def _single_answer(endpoint: Endpoint, each: Call, *, read_seconds: float) -> _Answer:
    status, data = post(endpoint, _encode(1, each), read_seconds=read_seconds)
    _require_served(endpoint, status, data, [each])
    answers = _answers(data)
    if answers is None or len(answers) != 1:
        raise _no_json_rpc(endpoint, status, data)
    (answer,) = answers
    if answer.id != 1 and not (answer.id is None and answer.error is not None):
        raise Unavailable(f"rpc endpoint {endpoint.name} answered another request than {each[0]}", http=status)
    return answer


def _decoded(result: msgspec.Raw, endpoint: Endpoint) -> Any:
    try:
        return msgspec.json.decode(result)
    except (msgspec.DecodeError, RecursionError):
        raise _no_json_rpc(endpoint, 200, bytes(result)) from None


def _ask(endpoint: Endpoint, calls: Sequence[Call]) -> list[CallOutcome]:
    """Send all of ``calls`` in one HTTP request. Raises Unavailable unless every call is answered, BatchRefused if
    there are too many of them.
    """
    body = b"[" + b",".join(_encode(n, each) for n, each in enumerate(calls)) + b"]"
    status, data = post(endpoint, body, calls=len(calls))
    _require_served(endpoint, status, data, calls)
    answers = _answers(data)
    if answers is None:
        raise _no_json_rpc(endpoint, status, data, len(calls))
    if without_mark(data).lstrip()[:1] != b"[":
        _require_served_batch(endpoint, answers[0], calls)
    by_id: dict[int | str | None, _Answer | None] = {}
    for answer in answers:
        by_id[answer.id] = None if answer.id in by_id else answer  # one of two is wrong, and nothing says which
    found: list[CallOutcome] = []
    for position, (method, _) in enumerate(calls):
        one = by_id.get(position)
        if one is None:
            raise Unavailable(f"rpc endpoint {endpoint.name} did not answer every call of a batch", http=status)
        _require_no_batch_error(endpoint, one, len(calls))
        try:
            found.append(_result(one, endpoint, method))
        except MethodLacked as error:
            found.append(error)
        except AnswerTooLarge as error:
            if not endpoint.gateway_url:
                raise
            found.append(error)  # the gateway has asked for it alone
    return found


def _are_mixed(calls: Sequence[Call]) -> bool:
    return len({method for method, _ in calls}) > 1


def _answers(data: bytes) -> list[_Answer] | None:
    """Return the answers in a response, None if it is no JSON-RPC."""
    data = without_mark(data)
    try:
        return _ANSWERS.decode(data) if data.lstrip()[:1] == b"[" else [_ANSWER.decode(data)]
    except (msgspec.DecodeError, RecursionError):
        return None


def _require_served(endpoint: Endpoint, status: int, data: bytes, calls: Sequence[Call]) -> None:
    """Raise the error that an HTTP status and what the body says mean, unless the body may hold answers."""
    if status not in {400, 401, 403, 413, 429}:
        return
    text = text_in(data)
    if len(calls) > 1 and (status in {400, 413} or is_about_the_batch(None, text)):
        raise _batch_refused(endpoint, text, len(calls))
    said = quoted(provider_words(text))
    if status == 429:
        raise Unavailable(
            f"rpc endpoint {endpoint.name} refuses what is beyond its limit:"
            f" set {variable_of(endpoint.pool, 'RPS')} to it{said}",
            http=status,
        )
    if status in {400, 413}:
        return
    if lacks_method(None, text) or is_about_the_plan(text):
        if _are_mixed(calls):
            raise _MethodsRefused(
                f"rpc endpoint {endpoint.name} does not serve every call of a batch{said}", http=status
            )
        raise _error_of(text, endpoint, calls[0][0])
    raise InvalidInput(
        f"rpc endpoint {endpoint.name} refuses its key: check {variable_of(endpoint.pool)}{said}", http=status
    )


def _require_served_batch(endpoint: Endpoint, answer: _Answer, calls: Sequence[Call]) -> None:
    """Raise the error of a batch that was answered with a single object."""
    code, text = code_and_text(answer.error)
    if lacks_method(code, text) and not is_about_the_batch(code, text) and not _are_mixed(calls):
        raise _lacked(endpoint, calls[0][0], code, text)
    if is_refusal(code, text):
        raise Unavailable(
            f"rpc endpoint {endpoint.name} refuses what is beyond its limit:"
            f" set {variable_of(endpoint.pool, 'RPS')} to it{quoted(provider_words(text))}",
            code=code,
        )
    raise _batch_refused(endpoint, text, len(calls))


def _require_no_batch_error(endpoint: Endpoint, answer: _Answer, calls: int) -> None:
    if answer.error is None:
        return
    code, text = code_and_text(answer.error)
    if names_the_batch(code, text):
        raise _batch_refused(endpoint, text, calls)


def _batch_refused(endpoint: Endpoint, text: str, calls: int) -> BatchRefused:
    return BatchRefused(
        f"rpc endpoint {endpoint.name} does not serve a batch of {calls}{quoted(provider_words(text))}",
        most=largest_batch(text, calls),
    )


def _no_json_rpc(endpoint: Endpoint, status: int, data: bytes, calls: int = 1) -> Unavailable:
    what = "something that is not JSON-RPC" if data.strip() else "nothing"
    to = "" if calls == 1 else f" to a batch of {calls}"
    words = quoted(provider_words(text_in(data)))
    return Unavailable(f"rpc endpoint {endpoint.name} answered with {what}{to}{words}", http=status)


def _result(answer: _Answer, endpoint: Endpoint, method: str) -> msgspec.Raw:
    if answer.error is not None:
        raise _error_of(answer.error, endpoint, method)
    if not bytes(answer.result):
        raise Unavailable(f"rpc endpoint {endpoint.name} answered {method} with neither result nor error")
    return answer.result


def _error_of(error: Any, endpoint: Endpoint, method: str) -> TraceError:
    code, text = code_and_text(error)
    if endpoint.gateway_url and text.startswith(f"rpc endpoint {endpoint.name}"):  # the gateway's own words
        data = error.get("data") if isinstance(error, dict) else None
        is_large = isinstance(data, dict) and data.get("reason") == TOO_LARGE
        return AnswerTooLarge(text) if is_large else Unavailable(text)
    if lacks_method(code, text):
        return _lacked(endpoint, method, code, text)
    said = quoted(provider_words(text))
    if is_about_the_plan(text):
        return EndpointLacks(f"rpc endpoint {endpoint.name} does not serve {method} of such blocks{said}")
    if is_oversized(code, text):
        return AnswerTooLarge(f"rpc endpoint {endpoint.name} does not send the whole answer to {method}{said}")
    return Unavailable(f"rpc endpoint {endpoint.name} answered {method} with an error{said}", code=code)


def _lacked(endpoint: Endpoint, method: str, code: int | None, text: str) -> MethodLacked:
    facts = {} if code is None else {"code": code}
    return MethodLacked(
        f"rpc endpoint {endpoint.name} does not support {method}: use a node that does, or verify:"
        f" structural{quoted(provider_words(text))}",
        method=method,
        **facts,
    )


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
