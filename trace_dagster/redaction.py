"""Removes secrets from text: URLs, and the hosts, keys and passwords that the process was configured with.

Every text that leaves the process and that others may have written (an engine's output, a node's error, a log line)
passes :func:`redact`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

HIDDEN = "[redacted]"
_URL = re.compile(r"[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>)\]}]+", re.IGNORECASE)
_MIN_SECRET = 6
"""Shorter parts of a URL are words like ``v1``: hiding them would make text unreadable."""

_known: set[str] = set()
"""Secrets of this process, see :func:`protect`."""


def protect(secrets: Iterable[str]) -> None:
    """Hide these values, and the parts of those that are URLs, in every text redacted from now on."""
    for secret in secrets:
        _known.update(_parts(secret) if "://" in secret else [secret] if len(secret) >= _MIN_SECRET else [])


def redact(text: str, urls: Iterable[str] = ()) -> str:
    """Return ``text`` with every URL, the secret parts of ``urls`` and the process's known secrets replaced."""
    secrets = _known.union(part for url in urls for part in _parts(url))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _URL.sub(HIDDEN, text)


def _parts(url: str) -> Iterable[str]:
    """Yield the URL and every part of it that may be a secret."""
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
