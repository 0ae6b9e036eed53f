"""Turns a failed call of an engine into the error to raise, after asking the node for its head and for one block.

The text of a call decides only if it is certainly this call's own: a gateway's sentence about the request that failed,
or a column that the engine does not have. What the endpoint lacks or refuses is known from its answer to another
request of the same kind (``probe.py``), because Cryo shows no HTTP status.
"""

from __future__ import annotations

import re

from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.cryo_text import reason_in
from trace_dagster.engine.probe import probed
from trace_dagster.errors import EndpointLacks, InvalidInput, NoAnswer, TraceError, Unavailable, UnknownFormat
from trace_dagster.rpc.client import block_number_of
from trace_dagster.rpc.pools import variable_of
from trace_dagster.rpc.provider_errors import quoted, words_of

_REFUSED_KEY = re.compile(r"refuses its key[^:;\"\\]*")
_MISSING_COLUMN = re.compile(r"(?:columns missing|do not support these columns): \W*(\w+)")
_GATEWAYS_WORDS = re.compile(r"(?:does not answer \w+|failed \w[\w, ]* too often)[^:\"\\]*: [^\"\\]+")
"""The sentence of a gateway about the call that failed: its method, and the reason."""


def failure(text: str, request: ExtractRequest) -> TraceError:
    """Return the error to raise for a failed call.

    ``text`` is what the engine said of this call, redacted; it is empty if that is not known.
    """
    endpoint, block_range = request.endpoint, request.block_range
    if endpoint.gateway_url and (told := _GATEWAYS_WORDS.search(text)):
        return _gateways(told[0].strip(), request)
    try:
        head = block_number_of(endpoint)
    except NoAnswer as error:
        return NoAnswer(error.message, **error.facts, range=block_range)
    except Unavailable as error:
        return _failed(request, reason_in(text) or error.message)
    except TraceError as error:
        return _refused(error, request)
    if head < block_range.end - 1:
        return EndpointLacks(
            f"the range goes past the end of the chain: rpc endpoint {endpoint.name} is at block {head}",
            range=block_range,
        )
    if missing := _MISSING_COLUMN.search(text):
        return UnknownFormat(f"the engine gave no column {missing[1]}", dataset=request.dataset.name)
    return _as_probed(probed(request), text, request)


def _as_probed(found: TraceError | None, text: str, request: ExtractRequest) -> TraceError:
    """Return the error of a call whose endpoint answers the same kind of request with ``found``; None is a result."""
    if found is None:
        return _failed(request, reason_in(text) or "no reason is known, and the same request is answered now")
    if isinstance(found, InvalidInput):
        return _refused(found, request)
    if isinstance(found, NoAnswer):  # it shows its head, so it is not silent
        return _failed(request, reason_in(text) or found.message)
    if isinstance(found, EndpointLacks):
        return EndpointLacks(
            f"rpc endpoint {request.endpoint.name} does not support what dataset {request.dataset.name} needs: use a"
            f" node with its methods{quoted(words_of(found.message))}",
            range=request.block_range,
        )
    return Unavailable(found.message, **found.facts, range=request.block_range)


def _gateways(told: str, request: ExtractRequest) -> TraceError:
    """Return the error that a gateway's sentence about a call means."""
    name = request.endpoint.name
    if _REFUSED_KEY.search(told):
        key = f"refuses its key: check {variable_of(request.endpoint.pool)}"
        return EndpointLacks(f"rpc endpoint {name} {key} ({told})", range=request.block_range)
    return Unavailable(f"rpc endpoint {name} {told}", range=request.block_range)


def _refused(error: TraceError, request: ExtractRequest) -> EndpointLacks:
    """Return the error of an endpoint that does not serve this caller: another endpoint may."""
    return EndpointLacks(error.message, **error.facts, range=request.block_range)


def _failed(request: ExtractRequest, reason: str) -> Unavailable:
    return Unavailable(
        f"the engine failed a request to rpc endpoint {request.endpoint.name}: {reason}", range=request.block_range
    )
