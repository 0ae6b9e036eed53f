"""The words of an RPC provider, as one of our own errors can quote them."""

from __future__ import annotations

import re

from trace_dagster.messages.printable import printable
from trace_dagster.messages.redaction import redact

MOST_WORDS = 200
"""Characters of a quotation."""

_MOST_READ = 16_000
"""Characters that are read of a text. They are redacted before the quotation is cut, because a part of a secret may
not be recognized.
"""

_UNSEEN = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-z!][^<>]*(?:>|$)", re.IGNORECASE)


def provider_words(text: str) -> str:
    """Return what a provider says, safe to show: redacted, on one line, without HTML tags, at most MOST_WORDS
    characters, cut at a word. Return an empty text if it says nothing.
    """
    seen = text[:_MOST_READ]
    if "<" in seen:
        seen = _TAG.sub(" ", _UNSEEN.sub(" ", seen))
    return cut_at_word(printable(redact(" ".join(seen.split()))).rstrip(" .:;,"))


def cut_at_word(text: str, most: int = MOST_WORDS) -> str:
    """Return a text of at most ``most`` characters. A longer one loses whole words, and ends with three dots."""
    if len(text) <= most:
        return text
    kept = text[: most - 3]
    if not text[most - 3].isspace():
        words, space, _ = kept.rpartition(" ")
        kept = words if space and len(words) >= most // 2 else kept
    return kept.rstrip(" .:;,") + "..."
