"""What a caller's grants leave out does not exist for it: in rows, names, errors, lists and headers."""

from __future__ import annotations

import re
from random import Random

import pytest

from tests.support.committed import FULL, commit_rows
from tests.support.registry import apply, job_text
from trace_dagster.blocks import BlockRange
from trace_dagster.errors import InvalidInput, TraceError
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.identity import DEFAULT_ORG
from trace_dagster.query.opening import Opening
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.grants import ALL, Grants

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

KEYS = {99: ("blocks", "logs", "transactions"), 143: ("blocks", "logs")}
NAMES = [f"chain_{chain}.{key}" for chain, keys in KEYS.items() for key in keys]
FOLLOWED = (7, 99, 143)
"""Chains with heads; of chain 7 no dataset is stored."""

PATTERNS = [
    *NAMES,
    "chain_99.*",
    "chain_143.*",
    "chain_99.b*",
    "chain_9.*",
    "chain_1.logs",
    "chain_143.log",
    "chain_7.*",
]
LISTS = {
    "schema": "select table_schema || '.' || table_name || '.' || column_name as name from information_schema.columns"
    " union all select table_schema || '.' || table_name from information_schema.tables",
    "tables": "show tables",
}


@pytest.fixture
def opening(database, store):
    for chain, keys in KEYS.items():
        streams = "\n  ".join(f"{key}: {{cryo_dataset_name: {key}}}" for key in keys)
        text = job_text(name=f"job_{chain}", to_block=20, chunk=20, streams=streams)
        for stream in apply(database, text.replace("chain_id: 99", f"chain_id: {chain}")).values():
            commit_rows(database, store, stream, BlockRange(0, 20), FULL)
    with database.connection() as connection:
        for chain in FOLLOWED:
            connection.execute(
                "insert into hot.heads (org_id, chain_id, tag, block_number) values (%s, %s, 'latest', 19)",
                (DEFAULT_ORG, chain),
            )
    return Opening(Catalog(database), store.access, CommittedObjects(database, store))


@pytest.fixture
def ask(opening, runner):
    return lambda sql, grants=ALL: opening.query(runner, sql, grants=grants)


def is_allowed(name, patterns):
    """Return whether a name matches a pattern; written apart from the code that it tests."""
    return any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) for pattern in patterns)


def hidden_words(allowed, asked=""):
    """Return the words that show that something hidden exists: full names, chains and keys, but those asked for."""
    chains = {name.partition(".")[0] for name in allowed}
    keys = {name.partition(".")[2] for name in allowed}
    words = {name for name in NAMES if name not in allowed}
    words |= {f"chain_{chain}" for chain in FOLLOWED} - chains
    words |= {key for each in KEYS.values() for key in each} - keys
    return {word for word in words if word not in asked and not asked.startswith(word)}


def assert_hidden(text, words):
    for word in words:
        assert not re.search(rf"\b{re.escape(word)}\b", text), (word, text)


def error_of(ask, sql, grants):
    with pytest.raises(TraceError) as found:
        ask(sql, grants)
    assert type(found.value) is InvalidInput
    return str(found.value)


def test_nothing_names_what_is_not_granted(ask):
    for seed in range(5):
        require_hidden(ask, Random(seed))


def require_hidden(ask, random):
    patterns = random.sample(PATTERNS, random.randint(1, 3))
    grants = Grants.parse(patterns)
    allowed = [name for name in NAMES if is_allowed(name, patterns)]

    listed = {row[0] for row in ask(LISTS["schema"], grants).rows}
    assert set(allowed) <= listed
    assert_hidden(str(sorted(listed)), hidden_words(allowed))
    assert_hidden(str(ask(LISTS["tables"], grants)), hidden_words(allowed))

    sql = " union all ".join(f"select '{name}', count(*) from {name}" for name in allowed) or "select 1"
    answer = ask(sql, grants)
    assert sorted(each.name for each in answer.snapshot.relations) == sorted(allowed)
    assert_hidden(str(answer.snapshot.to_json()), hidden_words(allowed))
    assert_hidden(str([f"chain_{chain}" for chain in answer.snapshot.heads]), hidden_words(allowed))

    for name in random.sample([name for name in NAMES if name not in allowed], min(2, len(NAMES) - len(allowed))):
        statement = random.choice(["select count(*) from {}", "describe {}", "select block_number from {} limit 1"])
        missing = name.replace(".", ".never_")  # no lake has it
        found = error_of(ask, statement.format(name), grants)
        assert found.replace(name, missing) == error_of(ask, statement.format(missing), grants)
        assert_hidden(found, hidden_words(allowed, asked=name))


SHORT = [
    (["chain_99.*"], "blocks", 99),
    (["chain_143.*"], "blocks", 143),
    (["chain_99.logs", "chain_143.blocks"], "blocks", 143),
    (["chain_143.*"], "heads", 143),
]


def test_a_name_is_short_if_one_granted_dataset_has_it(ask):
    for patterns, key, chain in SHORT:
        require_short(ask, patterns, key, chain)


def require_short(ask, patterns, key, chain):
    with pytest.raises(InvalidInput):
        ask(f"select count(*) from {key}")  # for those who see both chains it is ambiguous
    answer = ask(f"select count(*) as n from {key}", Grants.parse(patterns))
    assert answer.rows == [(20,)] if key == "blocks" else answer.rows == [(1,)]
    assert set(answer.snapshot.heads) <= {chain}
    assert {each.chain_id for each in answer.snapshot.relations} <= {chain}


def test_without_grants_everything_is_listed(ask):
    """Otherwise the other tests would show nothing."""
    listed = {row[0] for row in ask(LISTS["schema"]).rows}
    assert {*NAMES, "chain_7.heads"} <= listed
    for text in (str(sorted(listed)), str(ask(LISTS["tables"]))):
        with pytest.raises(AssertionError):
            assert_hidden(text, hidden_words(["chain_99.blocks"]))


def test_an_ambiguous_name_names_granted_chains_only(ask):
    found = error_of(ask, "select count(*) from logs", Grants.parse(["chain_99.blocks", "chain_143.blocks"]))
    assert_hidden(found, hidden_words(["chain_99.blocks", "chain_143.blocks"], asked="logs"))
    both = error_of(ask, "select count(*) from blocks", Grants.parse(["chain_99.blocks", "chain_143.blocks"]))
    assert "chain_99" in both or "chain_143" in both
