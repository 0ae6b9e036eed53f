"""The part of the demo that is about the query service: a link to its page, and a query by curl."""

from __future__ import annotations

import json
import shlex
from contextlib import closing, suppress
from datetime import timedelta

from trace_dagster.config.running_stack import StackState
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.errors import InvalidInput
from trace_dagster.lite.stack import login_link_of
from trace_dagster.registry.connection import Database
from trace_dagster.registry.grants import Grants
from trace_dagster.registry.tokens import Tokens

_TOKEN = "demo"  # noqa: S105  (its name)
_LIFETIME = timedelta(hours=12)
_SQL = "select number, label, hash from heads order by number desc"


def service_lines(state: StackState) -> list[str]:
    """Return lines that can be pasted: a link that opens the service's page once, and one curl.

    They hold a link and a token of their own, which see the devchain only and end with the stack's data.
    """
    variables = state.environment()
    with closing(Database(variables["TRACE_POSTGRES_URL"], max_connections=1)) as database:
        token = _new_token(database)
    return [
        f"SQL in a browser (once, within 10 minutes): {login_link_of(state)}",
        f"SQL by HTTP: {curl(variables['TRACE_QUERY_URL'], token, _SQL)}",
    ]


def curl(url: str, token: str, sql: str) -> str:
    """Return a command that asks a query service."""
    words = [
        "curl",
        "-s",
        f"{url}/v1/query",
        "-H",
        f"Authorization: Bearer {token}",
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps({"sql": sql}),
    ]
    return shlex.join(words)


def _new_token(database: Database) -> str:
    """Make the demo's token; that of an earlier demo ends."""
    tokens = Tokens(database)
    with suppress(InvalidInput):  # there was none
        tokens.revoke(_TOKEN)
    return tokens.new(_TOKEN, Grants.parse([f"chain_{CHAIN_ID}.*"]), expires_in=_LIFETIME)
