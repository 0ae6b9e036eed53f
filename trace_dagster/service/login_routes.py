"""Routes by which a browser logs in and out.

A login link has its code in the fragment of its URL, which browsers do not send: the page behind it posts the code. So
the code is in no log of a proxy, and a program that fetches links beforehand does not use it up.
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from trace_dagster.errors import NoAccess, TooMany
from trace_dagster.registry.tokens import SESSION_LIFETIME, Tokens
from trace_dagster.service.callers import SESSION_COOKIE, session_token
from trace_dagster.service.failed_logins import FailedLogins
from trace_dagster.service.parts import parts_of

router = APIRouter()
_failed = FailedLogins()


class LoginCode(BaseModel):
    """The code of a login link."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(max_length=200, description="what follows # in the link of `trace-lite token link`")


@router.post("/v1/login", status_code=204)
def login(asked: LoginCode, request: Request) -> Response:
    """Begin a session of the page with the code of a login link, which works once. The answer sets the cookie."""
    address = request.client.host if request.client else ""
    if not _failed.may_try(address):
        raise TooMany("too many logins failed: wait a minute, then use the link of `trace-lite token link`")
    try:
        token = Tokens(parts_of(request).database).use_link(asked.code.strip())
    except NoAccess:
        _failed.note(address)
        raise
    answer = Response(status_code=204)
    _set_cookie(answer, request, token, int(SESSION_LIFETIME.total_seconds()))
    return answer


@router.post("/v1/logout", status_code=204)
def logout(request: Request) -> Response:
    """End the session of the page, if there is one, and delete its cookie."""
    try:
        token = session_token(request)
    except NoAccess:
        token = None
    if token is not None:
        Tokens(parts_of(request).database).end_session(token)
    answer = Response(status_code=204)
    _set_cookie(answer, request, "", 0)
    return answer


def _set_cookie(answer: Response, request: Request, token: str, lifetime_seconds: int) -> None:
    answer.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=lifetime_seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
