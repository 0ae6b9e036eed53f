"""The web server's password as HTTP Basic authentication carries it. The user name does not matter."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode

_USER = "trace"
_SCHEME = "basic"


def authorization(password: str | None) -> dict[str, str]:
    """Return the headers with which a client shows the password; none if there is no password."""
    if password is None:
        return {}
    return {"Authorization": f"Basic {b64encode(f'{_USER}:{password}'.encode()).decode()}"}


def shows(header: str | None, password: str) -> bool:
    """Return whether an Authorization header shows the password; takes the same time for every wrong one."""
    scheme, _, given = (header or "").partition(" ")
    if scheme.lower() != _SCHEME:
        return False
    try:
        _, _, shown = b64decode(given.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(shown, password.encode())
