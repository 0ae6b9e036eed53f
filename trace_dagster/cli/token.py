"""The command `trace-lite token`: tokens of the query service, and login links of its page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import click

from trace_dagster.cli.commands import opened
from trace_dagster.cli.tables import Column, number_of, print_table
from trace_dagster.config.settings import Settings
from trace_dagster.errors import InvalidInput
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.grants import ALL, Grants
from trace_dagster.registry.tokens import LINK_LIFETIME, SESSION_LIFETIME, KnownToken, Tokens

Say = Callable[[str], None]

_SHOWN = 5
"""Patterns that a line shows."""

_LIFETIME = re.compile(r"(?P<count>[1-9][0-9]{0,6})(?P<unit>[smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_COLUMNS: list[Column] = [
    (heading, "left") for heading in ("name", "kind", "state", "datasets", "expires", "queries", "a minute")
]


def lifetime(text: str) -> timedelta | None:
    """Return the lifetime that a text such as ``30d``, ``12h`` or ``never`` names. Raises InvalidInput for another."""
    if text == "never":
        return None
    found = _LIFETIME.fullmatch(text)
    if found is None:
        raise InvalidInput(f"{text[:40]!r} is no lifetime: write 30d, 12h, 15m, or never")
    return timedelta(**{_UNITS[found["unit"]]: int(found["count"])})


def grants_of(patterns: Sequence[str]) -> Grants:
    """Return what these patterns allow; none allow everything. Raises InvalidInput for a wrong pattern."""
    return Grants.parse(patterns) if patterns else ALL


def make_token(
    settings: Settings,
    say: Say,
    name: str,
    patterns: Sequence[str],
    expires: str,
    max_queries: int | None,
    queries_per_minute: int | None,
    *,
    as_json: bool,
) -> None:
    """Make a token and print it on stdout. Raises InvalidInput if a valid token has the name."""
    expires_in, grants = lifetime(expires), grants_of(patterns)
    with opened(settings) as runtime:
        tokens = Tokens(runtime.database)
        secret = tokens.new(
            name, grants, expires_in=expires_in, max_queries=max_queries, queries_per_minute=queries_per_minute
        )
        _note_empty_patterns(runtime.catalog, grants, say)
        known = next(each for each in reversed(tokens.list()) if each.caller.name == name)
    say(f"{name} may read {_datasets(known)}, {_until(known)}. This token is not shown again:")
    click.echo(json.dumps({**known.to_json(), "token": secret}) if as_json else secret)


def make_link(settings: Settings, say: Say, name: str, patterns: Sequence[str]) -> None:
    """Make a login link of the page and print it on stdout."""
    grants = grants_of(patterns)
    with opened(settings) as runtime:
        code = Tokens(runtime.database).link(name, grants)
        _note_empty_patterns(runtime.catalog, grants, say)
    minutes, hours = LINK_LIFETIME.total_seconds() // 60, SESSION_LIFETIME.total_seconds() // 3600
    say(f"This link works once, within {minutes:.0f} minutes, and logs {name} in for {hours:.0f} hours:")
    url = settings.query.url
    if url is None:
        say("no query service is known here: put its address before the path, or set TRACE_QUERY_URL")
    click.echo(login_url(url or "", code))


def login_url(url: str, code: str) -> str:
    """Return the link that logs a browser in. Browsers do not send what follows #, so no log has the code."""
    return f"{url.rstrip('/')}/login#{code}"


def list_tokens(settings: Settings, say: Say, *, as_json: bool) -> None:
    """Print every token, link and session, without secrets."""
    with opened(settings) as runtime:
        found = Tokens(runtime.database).list()
    if as_json:
        click.echo(json.dumps([each.to_json() for each in found], indent=2))
    elif found:
        print_table(_COLUMNS, [_row(each) for each in found])
    else:
        say("no token is made yet: `trace-lite token new NAME`")


def revoke_token(settings: Settings, say: Say, name: str) -> None:
    """Revoke the token of a name, its links and their sessions; say so if all of them had ended.

    Raises InvalidInput if nothing has the name.
    """
    with opened(settings) as runtime:
        count = Tokens(runtime.database).revoke(name)
    say(f"{name} is revoked" if count else f"{name} had ended already")


def _note_empty_patterns(catalog: Catalog, grants: Grants, say: Say) -> None:
    names = [(each.chain_id, each.dataset_key) for each in catalog.datasets()]
    for pattern in grants.patterns or ():
        alone = Grants((pattern,))
        if not any(alone.allows(*each) for each in names):
            say(f"note: {pattern} matches no dataset yet")


def _row(token: KnownToken) -> tuple[str, ...]:
    caller = token.caller
    limits = (str(limit) if limit else "" for limit in (caller.max_queries, caller.queries_per_minute))
    return (caller.name, caller.kind, token.state, _datasets(token), _time(token.expires_at) or "never", *limits)


def _datasets(token: KnownToken) -> str:
    patterns = token.caller.grants.patterns
    if patterns is None:
        return "everything"
    shown, more = ", ".join(patterns[:_SHOWN]), len(patterns) - _SHOWN
    return f"{shown} and {number_of(more, 'more pattern')}" if more > 0 else shown


def _until(token: KnownToken) -> str:
    return "for ever" if token.expires_at is None else f"until {_time(token.expires_at)}"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
