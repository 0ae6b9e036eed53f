"""Taking URLs and their parts out of text that others wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

_URL = re.compile(r"[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>)\]}]+", re.IGNORECASE)
_MIN_SECRET = 6
HIDDEN = "[redacted]"


def redact(text: str, urls: Iterable[str] = ()) -> str:
    """``text`` without any URL, and without the hosts, keys and passwords of ``urls``."""
    for secret in sorted({part for url in urls for part in _secrets(url)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _URL.sub(HIDDEN, text)


def _secrets(url: str) -> Iterable[str]:
    parts = urlsplit(url)
    yield url
    yield parts.netloc
    pieces = [parts.username, parts.password, *parts.path.split("/"), parts.query]
    pieces += [value for pair in parts.query.split("&") for value in pair.partition("=")[2:]]
    for piece in pieces:
        if piece and len(piece) >= _MIN_SECRET:
            yield piece
    if parts.hostname and not parts.hostname.startswith("127."):
        yield parts.hostname
