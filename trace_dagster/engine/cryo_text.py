"""Reads Cryo's texts, in which errors appear as Rust prints them for debugging."""

from __future__ import annotations

import re

from trace_dagster.messages.provider_words import provider_words

_NOISE = re.compile(
    r"RustPanic: rust future panicked: unknown error|note: run with.*|thread '[^']*' panicked at \S+|error collecting"
)
_JSON_RPC = re.compile(r'JsonRpcError \{ code: (-?\d+), message: "((?:[^"\\]|\\.)*)')
_NOT_JSON_RPC = re.compile(r'SerdeJson \{ err: Error\("((?:[^"\\]|\\.)*)"[^)]*\), text: "((?:[^"\\]|\\.)*)')
_NOT_JSON = re.compile(r"expected (value|ident)|EOF while parsing|trailing characters")


def reason_in(text: str) -> str:
    """Return why Cryo failed a call: the node's error, or its answer if that is no JSON; cut at a word."""
    if found := _JSON_RPC.search(text):
        return provider_words(f"code {found[1]}: {_unescaped(found[2])}")
    if found := _NOT_JSON_RPC.search(text):
        if _NOT_JSON.search(found[1]):
            return provider_words(f"the answer is not JSON: {_unescaped(found[2])}")
        return provider_words(f"the answer cannot be read: {_unescaped(found[1])}")
    return provider_words(_NOISE.sub(" ", text))


def _unescaped(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", re.sub(r"\\[nrt]", " ", text))
