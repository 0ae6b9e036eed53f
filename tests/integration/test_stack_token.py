"""The token and the login links that the laptop stack makes for its query service."""

from __future__ import annotations

from pathlib import Path

import pytest

from trace_dagster.errors import NoAccess
from trace_dagster.lite.query_service import end_token, login_link, make_token
from trace_dagster.registry.tokens import Tokens

pytestmark = pytest.mark.integration
HOME = Path("/somewhere/.trace")


def test_each_start_ends_the_token_of_the_one_before(database):
    tokens = Tokens(database)
    first = make_token(database, HOME)
    assert tokens.caller(first).grants.patterns is None
    second = make_token(database, HOME)
    with pytest.raises(NoAccess):
        tokens.caller(first)
    assert tokens.caller(second).name.startswith("local-")


def test_another_homes_token_and_those_of_people_stay(database):
    tokens = Tokens(database)
    other, own = make_token(database, Path("/elsewhere/.trace")), tokens.new("anna", expires_in=None)
    end_token(database, HOME)
    make_token(database, HOME)
    end_token(database, HOME)
    assert tokens.caller(other).name != tokens.caller(own).name == "anna"


def test_a_login_link_works_once_and_its_session_ends_with_the_stack(database, postgres_url):
    make_token(database, HOME)
    link = login_link(postgres_url, "http://127.0.0.1:8480", HOME)
    page, _, code = link.partition("#")
    assert page == "http://127.0.0.1:8480/login"
    tokens = Tokens(database)
    session = tokens.use_link(code)
    assert tokens.caller(session).kind == "session"
    with pytest.raises(NoAccess):
        tokens.use_link(code)
    end_token(database, HOME)
    with pytest.raises(NoAccess):
        tokens.caller(session)
