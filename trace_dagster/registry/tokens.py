"""Tokens of the query service, one-time links to its page, and the sessions that these begin."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal
from uuid import UUID

from trace_dagster.errors import InvalidInput, NoAccess
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.registry.connection import Database, Row
from trace_dagster.registry.grants import ALL, Grants

TokenKind = Literal["token", "link", "session"]
TokenState = Literal["valid", "used", "expired", "revoked"]

LINK_LIFETIME = timedelta(minutes=10)
SESSION_LIFETIME = timedelta(hours=12)
MOST_PATTERNS = 1000
_MOST_QUERIES = 2**31 - 1
_LONGEST = timedelta(days=36_500)

_SECRET = re.compile(r"trace_[A-Za-z0-9_-]{43}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what a valid token says."""

    token_id: UUID
    kind: TokenKind
    name: str
    grants: Grants = ALL
    max_queries: int | None = None
    """Queries that run or wait at a time; None: as many as the service allows anyone."""
    queries_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token, link or session as the list shows it, without its secret."""

    caller: Caller
    state: TokenState
    created_at: datetime
    expires_at: datetime | None

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        patterns = self.caller.grants.patterns
        return {
            "name": self.caller.name,
            "kind": self.caller.kind,
            "state": self.state,
            "datasets": None if patterns is None else list(patterns),
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at and self.expires_at.isoformat(),
            "max_queries": self.caller.max_queries,
            "queries_per_minute": self.caller.queries_per_minute,
        }


class Tokens:
    """Makes, checks and revokes tokens. The registry has only the SHA-256 of each one.

    A secret has 256 random bits, so its hash cannot be reversed by guessing: a slow, salted hash, as passwords need it,
    would only make each request slower.
    """

    def __init__(self, database: Database, org_id: UUID = DEFAULT_ORG) -> None:
        self._database = database
        self._org_id = org_id

    def new(
        self,
        name: str,
        grants: Grants = ALL,
        *,
        expires_in: timedelta | None,
        max_queries: int | None = None,
        queries_per_minute: int | None = None,
    ) -> str:
        """Make a token and return it. It cannot be read again.

        Raises InvalidInput if a valid token has this name, or for a wrong name, lifetime or limit.
        """
        return self._insert("token", name, grants, expires_in, max_queries, queries_per_minute)

    def link(
        self,
        name: str,
        grants: Grants = ALL,
        *,
        expires_in: timedelta = LINK_LIFETIME,
        max_queries: int | None = None,
        queries_per_minute: int | None = None,
    ) -> str:
        """Make the code of a login link and return it. It begins a session a single time. Raises as :meth:`new`."""
        return self._insert("link", name, grants, expires_in, max_queries, queries_per_minute)

    def use_link(self, code: str) -> str:
        """Use up a link, begin a session with its grants and limits, and return the session's token.

        Raises NoAccess if the link is not valid, or was used.
        """
        session_token = _new_secret()
        with self._database.transaction() as session:
            row = session.one("use_link", org_id=self._org_id, token_hash=_hash(code, _no_link))
            if row is None:
                raise _no_link()
            session.run(
                "insert_session",
                link_id=row["token_id"],
                token_hash=_hash(session_token),
                expires_in_seconds=SESSION_LIFETIME.total_seconds(),
            )
        return session_token

    def caller(self, token: str) -> Caller:
        """Return whose token this is. Raises NoAccess if no token or session has it, or it expired or was revoked."""
        with self._database.transaction() as session:
            row = session.one("caller_of_token", org_id=self._org_id, token_hash=_hash(token))
        if row is None:
            raise _no_token()
        return _caller(row)

    def revoked(self, token_ids: Collection[UUID]) -> set[UUID]:
        """Return those of some tokens and sessions that are revoked now. A session is when its link is.

        A token that expired and whose name was given again is none of them.
        """
        with self._database.transaction() as session:
            rows = session.all("revoked_of_tokens", token_ids=list(token_ids))
        return {row["token_id"] for row in rows}

    def end_session(self, token: str) -> None:
        """End a session. A token that is none is ignored."""
        if _SECRET.fullmatch(token):
            with self._database.transaction() as session:
                session.run("end_session", org_id=self._org_id, token_hash=_hash(token))

    def list(self) -> list[KnownToken]:
        """Return every token, link and session that is not deleted yet, the newest last."""
        with self._database.transaction() as session:
            rows = session.all("all_tokens", org_id=self._org_id)
        return [KnownToken(_caller(row), row["state"], row["created_at"], row["expires_at"]) for row in rows]

    def revoke(self, name: str) -> int:
        """Revoke the token of a name, its links and the sessions that these began; return how many were valid.

        Raises InvalidInput if nothing has the name, not even a token that has ended.
        """
        of_name = {"org_id": self._org_id, "name": _checked_name(name)}
        with self._database.transaction() as session:
            rows = session.all("revoke_tokens", **of_name)
            is_known = bool(rows) or session.one("name_was_given", **of_name) is not None
        if not is_known:
            raise InvalidInput(f"no token is called {name!r}: `trace-lite token list` shows them")
        return sum(row["was_valid"] for row in rows)

    def _insert(
        self,
        kind: TokenKind,
        name: str,
        grants: Grants,
        expires_in: timedelta | None,
        max_queries: int | None,
        queries_per_minute: int | None,
    ) -> str:
        secret = _new_secret()
        values = {
            "org_id": self._org_id,
            "kind": kind,
            "name": _checked_name(name),
            "token_hash": _hash(secret),
            "grants": _checked_patterns(grants),
            "max_queries": _checked_limit(max_queries),
            "queries_per_minute": _checked_limit(queries_per_minute),
            "expires_in_seconds": _checked_seconds(expires_in),
        }
        with self._database.transaction() as session:
            if kind == "token":
                session.run("retire_expired_name", org_id=self._org_id, name=name)
            if not session.run("insert_token", **values):
                raise InvalidInput(
                    f"a valid token is called {name!r}: choose another name, or end it by"
                    f" `trace-lite token revoke {name}`"
                )
        return secret


def _new_secret() -> str:
    return f"trace_{secrets.token_urlsafe(32)}"


def _no_token() -> NoAccess:
    return NoAccess("this token is not valid: it is unknown, expired or revoked; make one by `trace-lite token new`")


def _no_link() -> NoAccess:
    return NoAccess(
        "this login link is not valid any more: it was used, expired or revoked; make one by `trace-lite token link`"
    )


def _hash(secret: str, error: Callable[[], NoAccess] = _no_token) -> bytes:
    """Return the stored form of a token. Raises ``error()`` for a text that is none, without a look at the registry."""
    if not _SECRET.fullmatch(secret):
        raise error()
    return sha256(secret.encode()).digest()


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:100]!r} cannot name a token: use up to 100 letters, digits and . _ @ -, a letter or digit first"
        )
    return name


def _checked_patterns(grants: Grants) -> list[str] | None:
    if grants.patterns is None:
        return None
    if not 1 <= len(grants.patterns) <= MOST_PATTERNS:
        raise InvalidInput(f"a token has 1 to {MOST_PATTERNS} patterns of datasets", given=len(grants.patterns))
    return list(grants.patterns)


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and not 1 <= limit <= _MOST_QUERIES:
        raise InvalidInput("a token's limit of queries must be a positive whole number", given=limit)
    return limit


def _checked_seconds(expires_in: timedelta | None) -> float | None:
    if expires_in is not None and not timedelta(0) < expires_in <= _LONGEST:
        raise InvalidInput("a token must expire within 1 second to 36500 days, or never")
    return None if expires_in is None else expires_in.total_seconds()


def _caller(row: Row) -> Caller:
    return Caller(
        token_id=row["token_id"],
        kind=row["kind"],
        name=row["name"],
        grants=ALL if row["grants"] is None else Grants(tuple(row["grants"])),
        max_queries=row["max_queries"],
        queries_per_minute=row["queries_per_minute"],
    )
