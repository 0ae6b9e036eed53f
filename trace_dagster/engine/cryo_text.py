"""Reads Cryo's texts, in which errors appear as Rust prints them for debugging."""

from __future__ import annotations

import re

_NOISE = re.compile(
    r"RustPanic: rust future panicked: unknown error|note: run with.*|thread '[^']*' panicked at \S+|error collecting"
)
_JSON_RPC = re.compile(r'JsonRpcError \{ code: (-?\d+), message: "((?:[^"\\]|\\.)*)')
_NOT_JSON_RPC = re.compile(r'SerdeJson \{ err: Error\("((?:[^"\\]|\\.)*)"[^)]*\), text: "((?:[^"\\]|\\.)*)')
_NOT_JSON = re.compile(r"expected (value|ident)|EOF while parsing|trailing characters")
_MOST_REASON = 200


def reason_in(text: str) -> str:
    """Return why Cryo failed a call: the node's error, or its answer if that is no JSON; cut at a word."""
    if found := _JSON_RPC.search(text):
        return shortened(f"code {found[1]}: {_unescaped(found[2])}")
    if found := _NOT_JSON_RPC.search(text):
        if _NOT_JSON.search(found[1]):
            return shortened(f"the answer is not JSON: {_unescaped(found[2])}")
        return shortened(f"the answer cannot be read: {_unescaped(found[1])}")
    return shortened(_NOISE.sub(" ", text))


def provider_text(text: str) -> str:
    """Return the message of the node's JSON-RPC error in Cryo's text, or an empty text if there is none."""
    found = _JSON_RPC.search(text)
    return shortened(_unescaped(found[2])) if found else ""


def shortened(text: str) -> str:
    """Return a text on one line. A long one loses whole words at its end."""
    line = " ".join(text.split())
    if len(line) <= _MOST_REASON:
        return line
    kept = line[: _MOST_REASON - 3]
    words = kept.rpartition(" ")[0]
    return f"{words if len(words) > _MOST_REASON // 2 else kept}..."


def _unescaped(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", re.sub(r"\\[nrt]", " ", text))
