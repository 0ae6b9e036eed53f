"""Rules for the value of one environment variable.

Each rule takes the text and returns the value, or raises ValueError with the rest of a line that starts with the
variable's name. No message shows a value, except one that is close to a known choice: others might be secrets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_QUERY_TOKEN = re.compile(r"[!-~]{16,512}")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.(?!-)[a-z0-9-]{1,63})*(:[1-9][0-9]{0,4})?", re.ASCII | re.IGNORECASE)
_LONGEST_HOST = 253
_MOST_DIGITS = 19
_LEAST_PASSWORD = 6


def whole(least: int, most: int, reason: str) -> Callable[[Any], int]:
    """Return a rule for whole numbers from ``least`` to ``most`` in ASCII digits."""

    def rule(value: Any) -> int:
        text = str(value)
        if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and least <= int(text) <= most):
            raise ValueError(reason)
        return int(text)

    return rule


def choice(known: Sequence[str], reason: str = "") -> Callable[[Any], str]:
    """Return a rule for one of the words of ``known``."""

    def rule(value: Any) -> str:
        text = str(value)
        if text in known:
            return text
        close = difflib.get_close_matches(text.lower(), known, n=1)
        hint = f", not {text!r}; did you mean {close[0]!r}?" if close else " (value not shown)"
        raise ValueError(f"{reason or 'must be one of ' + ', '.join(known)}{hint}")

    return rule


def http_url(example: str, *, with_user: bool = False) -> Callable[[Any], str]:
    """Return a rule for an http or https URL; ``with_user`` allows a user and password in it."""

    def rule(value: Any) -> str:
        if not is_http_url(str(value)) or (urlsplit(str(value)).username and not with_user):
            raise ValueError(f"must look like {example} (value not shown)")
        return str(value)

    return rule


def is_http_url(text: str) -> bool:
    """Return whether a text is an http or https URL with a host."""
    return _is_url(text, {"http", "https"})


def is_websocket_url(text: str) -> bool:
    """Return whether a text is a ws or wss URL with a host, and without a fragment, which no server gets."""
    return _is_url(text, {"ws", "wss"}) and "#" not in text


def _is_url(text: str, schemes: Collection[str]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def database_url(value: Any) -> str:
    """Accept a URL of a Postgres database."""
    try:
        sound = urlsplit(str(value)).scheme in {"postgres", "postgresql"}
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must look like postgresql://user:password@host:5432/database (value not shown)")
    return str(value)


def hours(value: Any) -> float:
    """Accept a number of hours from 0 to a million."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise ValueError("must be a number of hours")
    return number


def gateway_token(value: Any) -> str:
    """Accept a token of the gateway."""
    if not _TOKEN.fullmatch(str(value)):
        raise ValueError("must be 16 to 128 letters, digits, - or _ (value not shown)")
    return str(value)


def query_token(value: Any) -> str:
    """Accept a token of the query service: what can be sent in a header."""
    if not _QUERY_TOKEN.fullmatch(str(value)):
        raise ValueError("must be a token of `trace-lite token new` (value not shown)")
    return str(value)


def host_names(value: Any) -> str:
    """Accept host names separated by commas, each with or without a port. Returns them in lower case."""
    names = [name.strip().lower() for name in str(value).split(",")]
    if not all(len(name) <= _LONGEST_HOST and _HOST_NAME.fullmatch(name) for name in names):
        raise ValueError("must be host names separated by commas, such as lake.example (value not shown)")
    return ",".join(names)


def password(value: Any) -> str:
    """Accept a password that is long enough to be recognised, and so hidden, in logs."""
    if len(str(value)) < _LEAST_PASSWORD or not str(value).isprintable():
        raise ValueError(
            f"must be {_LEAST_PASSWORD} or more characters, none of them a control character (value not shown)"
        )
    return str(value)
