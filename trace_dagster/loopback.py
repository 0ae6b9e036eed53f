"""Which servers are on this machine: a proxy of the environment cannot reach those."""

from __future__ import annotations

from urllib.parse import urlsplit


def on_loopback(url: str | None) -> bool:
    """Whether a URL names this machine; None does not."""
    return url is not None and urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
