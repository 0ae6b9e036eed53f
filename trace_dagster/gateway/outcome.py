"""What an HTTP response means for each call of its request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from trace_dagster.gateway.connections import HttpReply, RequestFailed
from trace_dagster.gateway.jsonrpc import Answer, RpcAnswer, answers_in, is_about_the_batch, is_refusal, safe_error


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
    is_final: bool = False
    """True if no retry helps, because the endpoint rejected the API key."""
    is_silent: bool = False
    retry_after: float | None = None

    def reason_of(self, identity: int) -> str:
        """Return why a call was not answered."""
        return self.reasons.get(identity, self.reason)


def of_failure(failure: RequestFailed) -> Outcome:
    """Return the outcome of a request without an answer."""
    return Outcome(reason=str(failure), is_silent=failure.is_silent)


def of_reply(reply: HttpReply, ids: Sequence[int]) -> Outcome:
    """Return the outcome of an HTTP response, which may contain anything."""
    is_batch = len(ids) > 1
    if reply.status in {401, 403}:
        return Outcome(reason=f"it refuses its key (HTTP {reply.status})", is_final=True)
    if reply.status == 429:
        return Outcome(refused=set(ids), reason="it keeps refusing calls (HTTP 429)", retry_after=reply.retry_after)
    if reply.status in {400, 413} and is_batch:
        return Outcome(reason=f"HTTP {reply.status} for a batch", splits=True)
    if reply.status != 200 and (is_batch or not 400 <= reply.status < 500):
        return Outcome(reason=f"HTTP {reply.status}")
    try:
        decoded = answers_in(reply.body)
    except (msgspec.DecodeError, RecursionError):
        reason = "the answer is not JSON-RPC" if reply.status == 200 else f"HTTP {reply.status}"
        return Outcome(reason=reason)
    if isinstance(decoded, list):
        return _of_list(decoded, ids)
    if is_batch:
        if is_refusal(bytes(decoded.error)):
            return Outcome(refused=set(ids), reason="it keeps refusing calls")
        return Outcome(reason="it answers batches with one object", splits=True)
    return _of_list([decoded], ids)


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
                outcome.reason = "it keeps refusing calls"
            is_foreign = True
            continue
        _note(outcome, each.id, each, is_batch=is_batch)
    unanswered = len(ids) > len(outcome.answers) + len(outcome.refused)
    if is_batch and unanswered and not is_foreign and not outcome.splits:
        outcome.reason = "it answers batches in part"
        outcome.splits = True
    return outcome


def _note(outcome: Outcome, identity: int, decoded: RpcAnswer, *, is_batch: bool) -> None:
    error = bytes(decoded.error)
    if error not in {b"", b"null"}:
        if is_refusal(error):
            outcome.refused.add(identity)
            outcome.reasons[identity] = "it keeps refusing calls"
        elif is_batch and is_about_the_batch(error):
            outcome.reasons[identity] = "it refuses such batches"
            outcome.splits = True
        else:
            outcome.answers[identity] = Answer(error=safe_error(error))
    elif result := bytes(decoded.result):
        outcome.answers[identity] = Answer(result=result)
