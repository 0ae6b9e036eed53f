"""Routes by which a browser logs in and out.

A login link has its code in the fragment of its URL, which browsers do not send: the page behind it posts the code. So
the code is in no log of a proxy, and a program that fetches links beforehand does not use it up.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from trace_dagster.errors import NoAccess, TooMany
from trace_dagster.registry.tokens import SESSION_LIFETIME, Tokens
from trace_dagster.service.bodies import read_json
from trace_dagster.service.callers import SESSION_COOKIE, require_known_parameters, session_token
from trace_dagster.service.errors import documented
from trace_dagster.service.failed_logins import FailedLogins
from trace_dagster.service.parts import parts_of

router = APIRouter(tags=["page"], dependencies=[Depends(require_known_parameters)])

_MOST_BYTES = 4096
_failed = FailedLogins()


class LoginCode(BaseModel):
    """The code of a login link."""

    model_config = ConfigDict(extra="forbid", strict=True)

    code: str = Field(max_length=200, description="What follows # in the link of `trace-lite token link`.")


@router.post(
    "/v1/login",
    status_code=204,
    responses={
        204: {"description": "The cookie of a session is set."},
        **documented(400, 401, 403, 408, 413, 422, 429, 503),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": LoginCode.model_json_schema()}}}
    },
)
async def login(request: Request) -> Response:
    """Begin a session of the page with the code of a login link, which works once. The answer sets the cookie."""
    asked = await read_json(request, LoginCode, _MOST_BYTES)
    token = await run_in_threadpool(_begin_session, request, asked.code.strip())
    return _with_cookie(request, token, int(SESSION_LIFETIME.total_seconds()))


@router.post(
    "/v1/logout",
    status_code=204,
    responses={204: {"description": "The session ended, if there was one."}, **documented(403, 422, 503)},
)
def logout(request: Request) -> Response:
    """End the session of the page, if there is one, and delete its cookie."""
    try:
        token = session_token(request)
    except NoAccess:
        token = None
    if token is not None:
        Tokens(parts_of(request).database).end_session(token)
    return _with_cookie(request, "", 0)


def _begin_session(request: Request, code: str) -> str:
    address = request.client.host if request.client else ""
    if not _failed.may_try(address):
        raise TooMany(
            "too many logins from this address failed: open the link again in a moment", retry_after_seconds=1
        )
    try:
        return Tokens(parts_of(request).database).use_link(code)
    except NoAccess:
        _failed.note(address)
        parts_of(request).metrics.denied("token")
        raise


def _with_cookie(request: Request, token: str, lifetime_seconds: int) -> Response:
    answer = Response(status_code=204)
    answer.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=lifetime_seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer
