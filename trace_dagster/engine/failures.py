"""Turns the text of an engine's failure into the error to raise, after asking the node for its head.

A gateway tells which call failed and why; its sentence is the reason, and no further request is made.
"""

from __future__ import annotations

import re

from trace_dagster.engine.base import ExtractRequest
from trace_dagster.errors import EndpointLacks, NoAnswer, TraceError, Unavailable, UnknownFormat
from trace_dagster.rpc.client import block_number_of
from trace_dagster.rpc.pools import variable_of

_UNSUPPORTED = re.compile(r"-32601|method not (found|supported)|not whitelisted|unsupported method", re.IGNORECASE)
_REFUSED_KEY = re.compile(
    r"(status|code|http)\W{0,4}40[13]\b|unauthorized|forbidden|invalid api key|must be authenticated", re.IGNORECASE
)
_MISSING_COLUMN = re.compile(r"(?:columns missing|do not support these columns): \W*(\w+)")
_GATEWAYS_WORDS = re.compile(r"(?:does not answer \w+|failed \w[\w, ]* too often)[^:\"\\]*: [^\"\\]+")
"""The sentence of a gateway about the call that failed: its method, and the reason."""

_NOISE = re.compile(r"RustPanic: rust future panicked: unknown error|note: run with.*|thread '[^']*' panicked at \S+")
_MAX_CAUSE = 200


def failure(text: str, request: ExtractRequest) -> TraceError:
    """Return the error to raise for a failed call. ``text`` must already be redacted.

    If the node does not tell its head either, the reason is still that of the failed call, not that of the head.
    """
    endpoint, block_range = request.endpoint, request.block_range
    if endpoint.gateway_url and (told := _GATEWAYS_WORDS.search(text)) and not _REFUSED_KEY.search(told[0]):
        return Unavailable(f"rpc endpoint {endpoint.name} {told[0].strip()}", range=block_range)
    cause = " ".join(_NOISE.sub(" ", text).split())[:_MAX_CAUSE]
    head: int | None = None
    try:
        head = block_number_of(endpoint)
    except NoAnswer as error:
        return NoAnswer(error.message, **error.facts, range=block_range)
    except Unavailable as error:
        cause = cause or error.message
    except TraceError as error:
        return error
    if head is not None and head < block_range.end - 1:
        return EndpointLacks(
            f"the range goes past the end of the chain: rpc endpoint {endpoint.name} is at block {head}",
            range=block_range,
        )
    if missing := _MISSING_COLUMN.search(text):
        return UnknownFormat(f"the engine gave no column {missing[1]}", dataset=request.dataset.name)
    if _UNSUPPORTED.search(text):
        return EndpointLacks(
            f"rpc endpoint {endpoint.name} does not support what dataset {request.dataset.name} needs: use a node with"
            " its methods",
            range=block_range,
        )
    if _REFUSED_KEY.search(text):
        return EndpointLacks(
            f"rpc endpoint {endpoint.name} refuses its key: check {variable_of(endpoint.pool)}", range=block_range
        )
    return Unavailable(
        f"the engine failed a request to rpc endpoint {endpoint.name}: {cause or 'no reason given'}", range=block_range
    )
