"""Routes of the page: its HTML and its assets.

They need no token, because they tell nothing about the lake. The page's Content-Security-Policy lets it load and ask
this service only, and lets no text become HTML or code (Trusted Types).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from trace_dagster.query.gate import allowed_functions

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Cache-Control": "no-cache",  # a browser asks each time, and an unchanged asset is answered by 304
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    media_type: str
    body: bytes
    etag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> Asset:
        """Return the asset of a file by its name's ending."""
        return cls(_MEDIA_TYPES["." + name.rpartition(".")[2]], body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


@cache
def assets() -> Mapping[str, Asset]:
    """Return the files of the page by their paths, such as ``vendor/uplot.js``. Nothing else can be asked for."""
    found = {name: Asset.of(name, entry.read_bytes()) for name, entry in _walk(files(__package__) / "page", "")}
    names = sorted(name for name in allowed_functions() if name.isidentifier() and not name.startswith("_"))
    return MappingProxyType({**found, "functions.json": Asset.of("functions.json", json.dumps(names).encode())})


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            found += _walk(entry, name + "/")
        elif "." + name.rpartition(".")[2] in _MEDIA_TYPES:
            found.append((name, entry))
    return found


@router.get("/")
def page(request: Request) -> Response:
    """Return the page."""
    return _answer(request, "index.html")


@router.get("/login")
def login_page(request: Request) -> Response:
    """Return the page behind a login link."""
    return _answer(request, "login.html")


@router.get("/page/{name:path}")
def page_asset(request: Request, name: str) -> Response:
    """Return a file of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    asset = assets().get(name)
    if asset is None:
        raise HTTPException(404, "there is no such page")
    headers = {**_HEADERS, "ETag": asset.etag}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)
