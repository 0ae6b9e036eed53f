"""The command `trace-lite token`: it shows a secret once, on stdout, and nothing of it anywhere else."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from click.testing import CliRunner

from tests.support.clock import advance
from tests.support.registry import apply, ingesting, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.main import main
from trace_dagster.cli.token import lifetime
from trace_dagster.errors import InvalidInput, NoAccess
from trace_dagster.registry.grants import Grants
from trace_dagster.registry.tokens import SESSION_LIFETIME, Tokens

pytestmark = pytest.mark.integration


@pytest.fixture
def run(postgres_url, tmp_path):
    """Return a function that runs the command with the registry alone: no object store is set."""
    variables = {
        "TRACE_HOME": str(tmp_path),
        "TRACE_POSTGRES_URL": postgres_url,
        "TRACE_QUERY_URL": "http://127.0.0.1:8480",
    }

    def asked(*arguments):
        return CliRunner(env=variables).invoke(main, ["token", *arguments])

    return asked


@pytest.fixture
def tokens(database):
    return Tokens(database)


def test_a_new_token_is_alone_on_stdout(run, tokens):
    done = run("new", "reports", "--dataset", "chain_1.logs", "--dataset", "chain_143.*", "--queries", "2",
               "--per-minute", "30", "--expires", "12h")  # fmt: skip
    assert done.exit_code == 0, done.output
    secret = done.stdout.removesuffix("\n")
    caller = tokens.caller(secret)
    assert (caller.name, caller.grants) == ("reports", Grants(("chain_1.logs", "chain_143.*")))
    assert (caller.max_queries, caller.queries_per_minute) == (2, 30)
    assert secret not in done.stderr
    assert "reports may read chain_1.logs, chain_143.*, until 2" in done.stderr
    (known,) = tokens.list()
    assert known.expires_at - known.created_at == timedelta(hours=12)


def test_json_has_the_token_and_its_end(run, tokens):
    found = json.loads(run("new", "one", "--json").stdout)
    assert tokens.caller(found["token"]).name == "one"
    assert found["datasets"] is None
    lives = datetime.fromisoformat(found["expires_at"]) - datetime.fromisoformat(found["created_at"])
    assert lives == timedelta(days=90)
    assert json.loads(run("new", "two", "--expires", "never", "--json").stdout)["expires_at"] is None


def test_a_pattern_that_matches_nothing_yet_is_noted(run, database, store):
    stream = apply(database, job_text(streams="blocks: {cryo_dataset_name: blocks}"))["blocks"]
    with ingesting(database, store) as ingest:
        ingest.commit(ingest.start(ingest.claim(stream, BlockRange(0, 100), "run", wait_seconds=0)))
    done = run("new", "one", "--dataset", "chain_99.blo*", "--dataset", "chain_99.logs")
    assert "note: chain_99.logs matches no dataset yet" in done.stderr
    assert "blo*" not in done.stderr.replace("chain_99.blo*, chain_99.logs", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["one", "--dataset", "blocks"], "'blocks' names no datasets: write chain_143.*"),
        (["one", "--dataset", ""], "names no datasets"),
        (["one", "--expires", "soon"], "'soon' is no lifetime: write 30d"),
        (["one", "--expires", "9999999d"], "must expire within"),
        (["a b"], "cannot name a token"),
        (["taken"], "a valid token is called 'taken'"),
    ],
)
def test_wrong_words_are_errors_and_make_nothing(run, tokens, arguments, said):
    run("new", "taken")
    done = run("new", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert [each.caller.name for each in tokens.list()] == ["taken"]


@pytest.mark.parametrize("text", ["", "0d", "1", "d", "-1d", "1 d", "1d\n", "1w", "٣d", "12345678d", "Never"])
def test_a_lifetime_is_a_number_and_a_unit(text):
    with pytest.raises(InvalidInput):
        lifetime(text)


def test_a_link_has_its_code_behind_the_hash(run, tokens):
    done = run("link", "ann", "--dataset", "chain_1.*")
    url, _, code = done.stdout.strip().partition("#")
    assert url == "http://127.0.0.1:8480/login"
    caller = tokens.caller(tokens.use_link(code))
    assert (caller.name, caller.grants.patterns) == ("ann", ("chain_1.*",))
    assert "works once" in done.stderr
    assert run("link").stdout.startswith(f"{url}#trace_")


def test_the_list_names_tokens_and_shows_no_secret(run):
    assert "no token is made yet" in run("list").stderr
    secrets = [run("new", "one").stdout.strip(), run("link").stdout.strip().partition("#")[2]]
    for done in (run("list"), run("list", "--json")):
        assert all(secret not in done.output for secret in secrets)
        assert "page" in done.stdout
    assert [each["state"] for each in json.loads(run("list", "--json").stdout)] == ["valid", "valid"]
    assert run("list").stdout.splitlines()[0].split() == [
        "name", "kind", "state", "datasets", "expires", "queries", "a", "minute"]  # fmt: skip


def test_a_revoked_token_is_refused(run, tokens):
    secret = run("new", "one").stdout.strip()
    assert "one is revoked" in run("revoke", "one").stderr
    with pytest.raises(NoAccess):
        tokens.caller(secret)
    again = run("revoke", "one")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "one had ended already\n")
    unknown = run("revoke", "two")
    assert (unknown.exit_code, "no token is called 'two'" in unknown.stderr) == (2, True)


def test_what_expired_or_was_used_had_ended_already(run, tokens, database):
    run("new", "short", "--expires", "1h")
    tokens.use_link(run("link", "ann").stdout.strip().partition("#")[2])
    advance(database, SESSION_LIFETIME.total_seconds() + 1)
    for name in ("short", "ann"):
        for _ in range(2):
            done = run("revoke", name)
            assert (done.exit_code, done.stderr) == (0, f"{name} had ended already\n")
    states = [(each["name"], each["state"]) for each in json.loads(run("list", "--json").stdout)]
    assert states == [("short", "expired"), ("ann", "used"), ("ann", "expired")]


def test_an_old_schema_is_named(run, database):
    with database.connection() as connection:
        connection.execute("delete from trace.migrations where name like '0013%'")
    done = run("list")
    assert done.exit_code == 2
    assert "trace-lite migrate" in done.stderr
