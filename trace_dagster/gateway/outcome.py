"""What an HTTP response means for each call of its request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import msgspec

from trace_dagster.gateway.connections import HttpReply, RequestFailed
from trace_dagster.gateway.jsonrpc import (
    FAILED,
    Answer,
    RpcAnswer,
    answers_in,
    code_and_message,
    is_about_the_batch,
    is_refusal,
    lacks_method,
    safe_error,
    said_by_node,
)
from trace_dagster.messages.provider_words import provider_words
from trace_dagster.rpc import provider_errors
from trace_dagster.rpc.provider_errors import largest_batch, quoted, text_in, words_in

_METHOD_NOT_FOUND = -32601


@dataclass(slots=True)
class Outcome:
    """Outcome of each call by id; a call that is not in ``answers`` failed because of :meth:`reason_of` it."""

    answers: dict[int, Answer] = field(default_factory=dict)
    """Results, and errors that a retry would not change."""
    refused: set[int] = field(default_factory=set)
    """Calls that the endpoint rejected because of its rate limit; they are sent again later."""
    reason: str = ""
    """Reason of every call that has none in ``reasons``."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Reasons of single calls, so that a call of a batch is not reported with the reason of its neighbour."""
    splits: bool = False
    """True if the endpoint does not accept a batch of this size, so that its calls must be sent in smaller ones."""
    largest_batch: int = 0
    """Calls that the next batch may have, if the endpoint does not accept this one."""
    is_final: bool = False
    """True if no retry helps, because the endpoint rejected the API key, or is at another address."""
    is_too_large: bool = False
    """True if the response has more bytes than are read of one."""
    is_silent: bool = False
    retry_after: float | None = None

    def reason_of(self, identity: int) -> str:
        """Return why a call was not answered."""
        return self.reasons.get(identity, self.reason)


def of_failure(failure: RequestFailed) -> Outcome:
    """Return the outcome of a request without an answer."""
    return Outcome(reason=str(failure), is_silent=failure.is_silent, is_too_large=failure.is_too_large)


def of_reply(reply: HttpReply, ids: Sequence[int], methods: Collection[str] = ()) -> Outcome:
    """Return the outcome of an HTTP response, which may contain anything; ``methods`` are those of the calls."""
    is_batch = len(ids) > 1
    if reply.status in {401, 403}:
        return _of_forbidden(reply, ids, methods)
    if reply.status in {400, 413, 429} and is_batch and (refused := _of_refused_batch(reply, len(ids))):
        return refused
    if reply.status == 429:
        reason = f"it keeps refusing calls (HTTP 429){quoted(words_in(reply.body))}"
        return Outcome(refused=set(ids), reason=reason, retry_after=reply.retry_after)
    if reply.status != 200 and (is_batch or not 400 <= reply.status < 500):
        return Outcome(reason=f"HTTP {reply.status}{quoted(words_in(reply.body))}")
    try:
        decoded = answers_in(reply.body)
    except (msgspec.DecodeError, RecursionError):
        reason = "the answer is not JSON-RPC" if reply.body.strip() else "the answer is empty"
        reason = reason if reply.status == 200 else f"HTTP {reply.status}"
        return Outcome(reason=f"{reason}{quoted(words_in(reply.body))}")
    if isinstance(decoded, list):
        return _of_list(decoded, ids)
    if is_batch:
        return _of_one_for_all(decoded, ids, methods)
    return _of_list([decoded], ids)


def _of_forbidden(reply: HttpReply, ids: Sequence[int], methods: Collection[str]) -> Outcome:
    """Return the outcome of a 401 or 403: some are about the method and the customer's plan, not about the key."""
    text = text_in(reply.body)
    words = provider_words(text)
    is_lacked = provider_errors.lacks_method(None, text)
    if len(ids) > 1 and provider_errors.is_about_the_batch(None, text):
        return _split(f"HTTP {reply.status} for a batch{quoted(words)}", text, len(ids))
    if not is_lacked and not provider_errors.is_about_the_plan(text):
        return Outcome(reason=f"it refuses its key (HTTP {reply.status}){quoted(words)}", is_final=True)
    if len(set(methods)) > 1:
        return _split(f"HTTP {reply.status} for a batch{quoted(words)}", "", len(ids))
    answer = said_by_node(_METHOD_NOT_FOUND if is_lacked else FAILED, words)
    return Outcome(answers=dict.fromkeys(ids, answer))


def _of_refused_batch(reply: HttpReply, calls: int) -> Outcome | None:
    """Return the outcome of a batch that the endpoint does not serve; None if another reason is said."""
    text = text_in(reply.body)
    if reply.status == 429 and not provider_errors.names_the_batch(None, text):
        return None
    return _split(f"HTTP {reply.status} for a batch{quoted(provider_words(text))}", text, calls)


def _of_one_for_all(decoded: RpcAnswer, ids: Sequence[int], methods: Collection[str]) -> Outcome:
    """Return the outcome of a batch that was answered with a single object."""
    error = bytes(decoded.error)
    if lacks_method(error) and not is_about_the_batch(error) and len(set(methods)) == 1:
        return Outcome(answers=dict.fromkeys(ids, Answer(error=safe_error(error))))
    code, text = code_and_message(error)
    if provider_errors.is_refusal(code, text):
        return Outcome(refused=set(ids), reason=f"it keeps refusing calls{quoted(provider_words(text))}")
    return _split(f"it answers batches with one object{quoted(provider_words(text))}", text, len(ids))


def _split(reason: str, text: str, calls: int) -> Outcome:
    return Outcome(reason=reason, splits=True, largest_batch=largest_batch(text, calls))


def _of_list(decoded: Sequence[RpcAnswer], ids: Sequence[int]) -> Outcome:
    outcome = Outcome(reason="it answers another call than the one asked")
    seen = Counter(each.id for each in decoded)
    is_batch = len(ids) > 1
    wanted = set(ids)
    is_foreign = False
    for each in decoded:
        if not isinstance(each.id, int) or each.id not in wanted or seen[each.id] > 1:
            if not is_batch and is_refusal(bytes(each.error)):  # an error without an id is about the whole batch
                outcome.refused = wanted
                outcome.reason = f"it keeps refusing calls{_said(bytes(each.error))}"
            elif len(ids) == 1 and each.id is None and bytes(each.error) not in {b"", b"null"}:
                outcome.answers[ids[0]] = Answer(error=safe_error(bytes(each.error)))
                continue
            is_foreign = True
            continue
        _note(outcome, each.id, each, len(ids))
    unanswered = len(ids) > len(outcome.answers) + len(outcome.refused)
    if is_batch and unanswered and not is_foreign and not outcome.splits:
        outcome.reason = "it answers batches in part"
        outcome.splits = True
        outcome.largest_batch = max(1, len(ids) // 2)
    return outcome


def _note(outcome: Outcome, identity: int, decoded: RpcAnswer, calls: int) -> None:
    error = bytes(decoded.error)
    if error not in {b"", b"null"}:
        code, text = code_and_message(error)
        if calls > 1 and is_about_the_batch(error):
            outcome.reasons[identity] = f"it refuses such batches{quoted(provider_words(text))}"
            outcome.splits = True
            outcome.largest_batch = largest_batch(text, calls)
        elif provider_errors.is_refusal(code, text):
            outcome.refused.add(identity)
            outcome.reasons[identity] = f"it keeps refusing calls{quoted(provider_words(text))}"
        else:
            outcome.answers[identity] = Answer(error=safe_error(error))
    elif result := bytes(decoded.result):
        outcome.answers[identity] = Answer(result=result)


def _said(error: bytes) -> str:
    return quoted(provider_words(code_and_message(error)[1]))
