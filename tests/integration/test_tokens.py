"""Tokens, login links and sessions in the registry: who is let in, until when, and who is not."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from tests.support.clock import advance
from trace_dagster.errors import InvalidInput, NoAccess
from trace_dagster.registry.grants import ALL, Grants
from trace_dagster.registry.tokens import LINK_LIFETIME, SESSION_LIFETIME, Tokens

pytestmark = pytest.mark.integration

HOUR = timedelta(hours=1)


@pytest.fixture
def tokens(database):
    return Tokens(database)


def test_a_token_says_who_asks_and_what_it_may(tokens):
    grants = Grants.parse(["chain_1.logs", "chain_143.*"])
    secret = tokens.new("reports", grants, expires_in=HOUR, max_queries=3, queries_per_minute=60)
    caller = tokens.caller(secret)
    assert (caller.kind, caller.name, caller.grants) == ("token", "reports", grants)
    assert (caller.max_queries, caller.queries_per_minute) == (3, 60)
    everything = tokens.caller(tokens.new("all", expires_in=None))
    assert (everything.grants, everything.max_queries, everything.queries_per_minute) == (ALL, None, None)


def test_no_column_holds_a_secret(tokens, database):
    secrets = [tokens.new("one", expires_in=None), tokens.link("two")]
    secrets.append(tokens.use_link(secrets[1]))
    with database.connection() as connection:
        (row,) = connection.execute("select string_agg(t::text, ' ') as text from trace.query_tokens t").fetchall()
    for secret in secrets:
        assert len(secret) == len("trace_") + 43
        assert secret not in row["text"]
        assert secret.removeprefix("trace_").encode().hex() not in row["text"]


WRONG = [
    "",
    "trace_",
    "trace_" + "A" * 43,
    "trace_" + "A" * 42,
    "trace_" + "A" * 44,
    "trace_" + "é" * 43,
    "trace_" + "A" * 42 + "\n",
    "trace_" + "A" * 43 + "\n",
    "trace_" + "A" * 42 + "\x00",
    "' or true --",
    "A" * 1_000_000,
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_wrong_secret_finds_nobody(tokens, text):
    secret = tokens.new("one", expires_in=None)
    tokens.link("two")
    for wrong in (text, secret + text if text else secret[:-1]):
        with pytest.raises(NoAccess, match="trace-lite token new"):
            tokens.caller(wrong)
        with pytest.raises(NoAccess, match="trace-lite token link"):
            tokens.use_link(wrong)


def test_a_secret_is_of_one_kind(tokens):
    """A link's code is no token, and a token begins no session."""
    token, code = tokens.new("one", expires_in=None), tokens.link("two")
    with pytest.raises(NoAccess):
        tokens.caller(code)
    with pytest.raises(NoAccess):
        tokens.use_link(token)
    session = tokens.use_link(code)
    assert tokens.caller(session).kind == "session"
    with pytest.raises(NoAccess):
        tokens.use_link(session)


def test_expiry_acts_on_the_next_request(tokens, database):
    secret = tokens.new("short", expires_in=HOUR)
    advance(database, 3590)
    tokens.caller(secret)
    advance(database, 20)
    with pytest.raises(NoAccess):
        tokens.caller(secret)


def test_revocation_acts_on_the_next_request(tokens):
    secret, other = tokens.new("one", expires_in=None), tokens.new("two", expires_in=None)
    assert tokens.revoke("one") == 1
    with pytest.raises(NoAccess):
        tokens.caller(secret)
    tokens.caller(other)
    assert tokens.revoke("one") == 0
    with pytest.raises(InvalidInput, match="no token is called 'three'"):
        tokens.revoke("three")


def test_a_link_begins_one_session_with_its_grants(tokens, database):
    grants = Grants.parse(["chain_1.*"])
    code = tokens.link("ann", grants, max_queries=2, queries_per_minute=5)
    session = tokens.use_link(code)
    caller = tokens.caller(session)
    assert (caller.name, caller.grants, caller.max_queries, caller.queries_per_minute) == ("ann", grants, 2, 5)
    with pytest.raises(NoAccess):
        tokens.use_link(code)
    advance(database, SESSION_LIFETIME.total_seconds() - 10)
    tokens.caller(session)
    advance(database, 20)
    with pytest.raises(NoAccess):
        tokens.caller(session)


def test_a_link_expires(tokens, database):
    code = tokens.link("ann")
    advance(database, LINK_LIFETIME.total_seconds() + 1)
    with pytest.raises(NoAccess):
        tokens.use_link(code)


def test_of_many_uses_at_a_time_one_wins(tokens):
    code = tokens.link("ann")
    begin, found = threading.Barrier(8), []

    def use():
        begin.wait()
        try:
            found.append(tokens.use_link(code))
        except NoAccess:
            found.append(None)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (session,) = [each for each in found if each]
    assert len(found) == 8
    assert tokens.caller(session).kind == "session"


def test_revoking_a_link_ends_its_sessions_and_logging_out_ends_one(tokens):
    kept, ended, left = (tokens.use_link(tokens.link(name)) for name in ("ann", "bob", "cid"))
    unused = tokens.link("bob")
    assert tokens.revoke("bob") == 2  # the session and the unused link
    tokens.end_session(left)
    tokens.end_session("nonsense")
    for session in (ended, left):
        with pytest.raises(NoAccess):
            tokens.caller(session)
    with pytest.raises(NoAccess):
        tokens.use_link(unused)
    assert tokens.caller(kept).name == "ann"


def test_a_session_that_begins_while_its_link_is_revoked_does_not_survive(tokens, database):
    """Revoking finds no row of a session whose transaction is still open."""
    code = tokens.link("ann")
    with database.connection() as connection:
        connection.execute("select from trace.query_tokens for update")  # both wait for the link's row
        revoked = threading.Thread(target=tokens.revoke, args=("ann",))
        sessions = []
        used = threading.Thread(target=lambda: sessions.append(tokens.use_link(code)))
        used.start()
        _wait_for_locks(connection, 1)
        revoked.start()
        _wait_for_locks(connection, 2)
    used.join()
    revoked.join()
    with pytest.raises(NoAccess):
        tokens.caller(sessions[0])


def _wait_for_locks(connection, count):
    waiting = 0
    while waiting < count:
        row = connection.execute(
            "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        ).fetchone()
        waiting = row["n"]
        connection.execute("select pg_stat_clear_snapshot()")


def test_a_name_is_free_again_when_its_token_ended(tokens, database):
    tokens.new("one", expires_in=HOUR)
    with pytest.raises(InvalidInput, match=r"a valid token is called 'one': .*`trace-lite token revoke one`"):
        tokens.new("one", expires_in=HOUR)
    tokens.link("one")  # links share names: the same person logs in again
    tokens.link("one")
    advance(database, 3601)
    second = tokens.new("one", expires_in=HOUR)
    tokens.revoke("one")
    third = tokens.new("one", expires_in=None)
    with pytest.raises(NoAccess):
        tokens.caller(second)
    tokens.caller(third)


def test_an_expired_token_is_not_revoked_when_its_name_is_given_again(tokens, database):
    """Its queries go on; those of a token that someone revokes end, also if it has expired."""
    first = tokens.caller(tokens.new("one", expires_in=HOUR)).token_id
    advance(database, 3601)
    second = tokens.caller(tokens.new("one", expires_in=HOUR)).token_id
    assert [each.state for each in tokens.list()] == ["expired", "valid"]
    assert tokens.revoked([first, second]) == set()
    advance(database, 3601)
    assert tokens.revoke("one") == 0
    assert [each.state for each in tokens.list()] == ["expired", "expired"]
    assert tokens.revoked([first, second]) == {second}
    third = tokens.caller(tokens.new("one", expires_in=None)).token_id
    assert tokens.revoke("one") == 1
    assert [each.state for each in tokens.list()] == ["expired", "expired", "revoked"]
    assert tokens.revoked([first, second, third]) == {second, third}


@pytest.mark.parametrize("name", ["", "a b", "a\n", "-a", "é", "a" * 101, "a\x1b[2J"])
def test_a_name_is_plain(tokens, name):
    with pytest.raises(InvalidInput, match="cannot name a token"):
        tokens.new(name, expires_in=None)
    with pytest.raises(InvalidInput, match="cannot name a token"):
        tokens.revoke(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queries": 0},
        {"max_queries": 2**31},
        {"queries_per_minute": -1},
        {"expires_in": timedelta(0)},
        {"expires_in": timedelta(days=100_000)},
        {"grants": Grants(())},
        {"grants": Grants(tuple(f"chain_{n}.*" for n in range(1001)))},
    ],
)
def test_wrong_values_are_refused(tokens, wrong):
    with pytest.raises(InvalidInput):
        tokens.new("one", **{"expires_in": HOUR, **wrong})
    assert tokens.list() == []


def test_the_list_shows_states_and_no_secret(tokens, database):
    tokens.new("ended", expires_in=HOUR)
    advance(database, 3601)
    shown = [tokens.new("one", Grants.parse(["chain_1.*"]), expires_in=HOUR), tokens.link("ann"), tokens.link("bob")]
    shown += [tokens.use_link(shown[1]), tokens.use_link(shown[2])]
    tokens.revoke("bob")
    found = [each.to_json() for each in tokens.list()]
    assert [(each["name"], each["kind"], each["state"]) for each in found] == [
        ("ended", "token", "expired"),
        ("one", "token", "valid"),
        ("ann", "link", "used"),
        ("bob", "link", "revoked"),
        ("ann", "session", "valid"),
        ("bob", "session", "revoked"),
    ]
    assert found[1]["datasets"] == ["chain_1.*"]
    assert not any(secret in str(found) for secret in shown)
