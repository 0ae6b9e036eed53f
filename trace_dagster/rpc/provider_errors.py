"""What a provider's error means: it lacks a method, a batch or an answer is too large, its rate limit is reached.

Providers use the same codes for different things, so the message decides where a code does not.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from trace_dagster.errors import EndpointLacks, Unavailable
from trace_dagster.messages.provider_words import provider_words

TOO_LARGE = "too_large"
"""``reason`` in the data of a gateway's error: the answer is larger than MAX_ANSWER_BYTES."""

_METHOD_NOT_FOUND = -32601
_METHOD_UNSUPPORTED = -32004
_REFUSALS = frozenset({429, -32005})
_MAY_REFUSE = frozenset({-32000, -32603, -32016})
_BATCH_CODES = frozenset({-32600, -32003, -32010, -32011, -32014})
_CERTAIN_BATCH_CODES = frozenset({-32010, -32011, -32014})
_ANSWER_CODES = frozenset({-32008})

_NOT_OFFERED = (
    r"(?:is |are |was |has been |does |do )*(?:currently )?"
    r"(?:not (?:found|supported|available|whitelisted|allowed|permitted|enabled|implemented|exist)|disabled|unsupported"
    r"|doesn't exist)"
)
_LACKS_METHOD = re.compile(
    rf"\bmethods?\b\W{{0,3}}(?:[a-z0-9]+_\w+\W{{1,3}})?{_NOT_OFFERED}"
    rf"|\b(?:eth|debug|trace|net|web3|arbtrace)_\w+\W{{1,3}}(?:rpc )?(?:method )?{_NOT_OFFERED.replace('found|', '')}"
    r"|\b(?:unsupported|unknown|unhandled|no such|disabled|forbidden) (?:rpc |json-?rpc )?method|\bnot whitelisted\b",
    re.IGNORECASE,
)
_PLAN = re.compile(r"\b(?:plans?|tiers?|subscriptions?|packages?)\b", re.IGNORECASE)
_NOT_IN_PLAN = re.compile(
    r"\b(?:not|isn't|only|upgrade|requires?|unavailable|unsupported|restricted|disabled)\b", re.IGNORECASE
)
_ABOUT_USE = re.compile(r"too many|rate.?limit|limit (?:is )?(?:exceeded|reached)|\bquota\b|\bcredits\b|throughput|"
                        r"per second|exceeded", re.IGNORECASE)  # fmt: skip
_ABOUT_DATA = re.compile(r"\b(?:ranges?|results|archive|archival|historical|history|older|blocks?)\b", re.IGNORECASE)
_REFUSED = re.compile(
    r"too many requests|rate.?limit|overloaded|try again later|compute units per second", re.IGNORECASE
)
_ABOUT_THE_QUESTION = re.compile(r"results|block range|size", re.IGNORECASE)
_BATCH = re.compile(r"\bbatch(?:es|ed|ing)?\b", re.IGNORECASE)
_OVERSIZED = re.compile(
    r"(?:response|batch|content|result|answer).{0,40}(?:too (?:large|big)|size limit|limit exceeded|exceeds)"
    r"|exceeds?.{0,20}(?:response|content).{0,20}size",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])\d{1,4}(?![\w.])")


class MethodLacked(EndpointLacks):
    """An endpoint does not offer a method. Another method may give the same data."""

    def __init__(self, message: str, *, method: str, **facts: object) -> None:
        super().__init__(message, **facts)
        self.method = method


class AnswerTooLarge(Unavailable):
    """The answer to a single call is larger than this package or the node accepts. Ask for its parts."""


class BatchRefused(Unavailable):
    """An endpoint does not serve a batch of this size. Send smaller ones."""

    def __init__(self, message: str, *, most: int, **facts: object) -> None:
        super().__init__(message, **facts)
        self.most = most
        """Calls that a batch may have, as far as it is known."""


def code_and_text(error: Any) -> tuple[int | None, str]:
    """Return the code and the message of a decoded JSON-RPC error, which may have any shape."""
    if isinstance(error, str):
        return None, error
    if not isinstance(error, dict):
        return None, ""
    code = error.get("code")
    text = next((error[name] for name in ("message", "error", "detail") if isinstance(error.get(name), str)), "")
    return code if type(code) is int else None, text


def words_in(body: bytes) -> str:
    """Return what an HTTP body says in words: the message of its error, or the text of a page; safe to show."""
    return provider_words(text_in(body))


def text_in(body: bytes) -> str:
    """Return the message of an HTTP body's error, or its text as it is."""
    try:
        found = msgspec.json.decode(without_mark(body))
    except (msgspec.DecodeError, RecursionError):
        return body[:20_000].decode(errors="replace")
    first = found[0] if isinstance(found, list) and found else found
    inner = first.get("error") if isinstance(first, dict) else None
    return code_and_text(inner)[1] or code_and_text(first)[1]


def without_mark(body: bytes) -> bytes:
    """Return a body without the byte order mark that some servers begin it with."""
    return body.removeprefix(b"\xef\xbb\xbf")


_SAYS = "; it says: "


def quoted(words: str) -> str:
    """Return the end of a message that quotes a provider, or an empty text if it said nothing."""
    return _SAYS + words if words else ""


def words_of(message: str) -> str:
    """Return the words of a provider that one of our messages quotes at its end, or an empty text."""
    return message.partition(_SAYS)[2]


def lacks_method(code: int | None, text: str) -> bool:
    """Return whether an error means that the endpoint does not offer the method that was called."""
    if code == _METHOD_NOT_FOUND:
        return True
    if _ABOUT_USE.search(text):
        return False
    if code == _METHOD_UNSUPPORTED and "support" in text.lower():
        return True
    return bool(_LACKS_METHOD.search(text)) or (is_about_the_plan(text) and not _ABOUT_DATA.search(text))


def is_about_the_plan(text: str) -> bool:
    """Return whether a text says that the customer's plan does not include the call. Its limits are another matter."""
    return bool(_PLAN.search(text) and _NOT_IN_PLAN.search(text)) and not _ABOUT_USE.search(text)


def is_refusal(code: int | None, text: str) -> bool:
    """Return whether an error means that the endpoint's rate limit is reached."""
    if code in _REFUSALS:
        return not (_ABOUT_THE_QUESTION.search(text) or _BATCH.search(text))
    return code in _MAY_REFUSE and bool(_REFUSED.search(text)) and not _BATCH.search(text)


def is_about_the_batch(code: int | None, text: str) -> bool:
    """Return whether a call in a batch failed because of the batch."""
    if lacks_method(code, text) and not _BATCH.search(text):
        return False
    return code in _BATCH_CODES or is_oversized(code, text) or bool(_BATCH.search(text))


def names_the_batch(code: int | None, text: str) -> bool:
    """Return whether an error is surely about the number of calls in a batch, or about batches at all."""
    return code in _CERTAIN_BATCH_CODES or bool(_BATCH.search(text))


def is_oversized(code: int | None, text: str) -> bool:
    """Return whether a node does not send an answer because it is too large."""
    return code in _ANSWER_CODES or bool(_OVERSIZED.search(text))


def largest_batch(text: str, calls: int) -> int:
    """Return the calls that the next batch may have after one of ``calls`` was refused: what ``text`` says, or half."""
    said = [number for number in map(int, _NUMBER.findall(text)) if 1 < number < calls] if _BATCH.search(text) else []
    return max(said, default=max(1, calls // 2))
