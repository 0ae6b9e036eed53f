"""Answers over committed and hot rows that end at a cut, the relation ``heads``, and the command line."""

import json
from datetime import datetime
from itertools import pairwise

import pytest
from click.testing import CliRunner

from tests.support.followed import FOLLOWING, Tip, opened_services, settled_tip, time_of
from tests.support.following import eventually, follow_job, following, stored_chain
from tests.support.growing import dev_node
from tests.support.nodes import environment
from trace_dagster.blocks import BlockRange
from trace_dagster.cli.main import main
from trace_dagster.devchain.chain import DevChain
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.errors import InvalidInput
from trace_dagster.evidence.committed_objects import CommittedObjects
from trace_dagster.query.heads_relation import HEADS_COLUMNS
from trace_dagster.query.opening import Opening
from trace_dagster.registry.as_of import AsOf
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.snapshot_header import Cut

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def services(postgres, template_database, s3_server):
    with opened_services(postgres, template_database, s3_server) as opened:
        yield opened


@pytest.fixture(scope="module")
def tip(services):
    """Return a chain that tests only read."""
    return settled_tip(*services)


@pytest.fixture
def own(database, store):
    """Return a chain like ``tip`` in a registry of its own."""
    return settled_tip(database, store)


def asking(tip, runner):
    opening = Opening(Catalog(tip.database), tip.store.access, CommittedObjects(tip.database, tip.store))
    return lambda sql, **as_of: opening.query(runner, sql, 1000, None, AsOf(**as_of))


@pytest.fixture
def ask(tip, runner):
    return asking(tip, runner)


@pytest.fixture
def ask_own(own, runner):
    return asking(own, runner)


@pytest.mark.parametrize(
    ("as_of", "last"),
    [
        ({}, 299),
        ({"block": 250}, 250),
        ({"block": 199}, 199),
        ({"block": 150}, 150),
        ({"time": time_of(240)}, 241),
        ({"finalized_only": True}, 279),
        ({"finalized_only": True, "block": 285}, 279),
    ],
)
def test_an_answer_ends_at_its_cut(ask, as_of, last):
    """Blocks 0 to 199 are files, 200 to 299 hot rows: a cut may lie in either. It holds for each relation."""
    span = "select min(block_number), max(block_number), count(*) from"
    assert ask(f"{span} blocks", **as_of).rows == [(0, last, last + 1)]
    uncut = ask(f"{span} logs where block_number <= {last}").rows
    assert ask(f"{span} chain_143.logs", **as_of).rows == uncut


def test_a_cut_by_time_before_the_stored_hashes_compares_the_rows(tip, ask):
    times = [row[0] for row in ask("select block_timestamp::text from blocks where block_number < 200 order by 1").rows]
    moment = datetime.fromisoformat(times[120])
    found = ask("select count(*) from blocks", time=moment)
    assert found.rows == [(121,)]
    assert found.snapshot.cuts == {143: Cut(None, moment)}


def test_the_cut_of_one_relation_holds_for_all_of_its_chain(own, ask_own):
    own.hot(300, 310, "blocks")
    query = "select (select max(block_number) from blocks), (select max(block_number) from logs)"
    assert ask_own(query).rows == [(309, 299)]
    found = ask_own(query, common=True)
    assert found.rows == [(299, 299)]
    assert found.snapshot.cuts == {143: Cut(299)}
    assert ask_own("select max(block_number) from blocks", common=True).rows == [(309,)]  # logs are not in this query


def test_heads_can_be_joined_with_hot_and_committed_rows(ask):
    found = ask(
        "select b.block_number, h.label, b.block_hash = h.hash, b.block_timestamp = h.block_timestamp"
        " from blocks b join heads h on b.block_number = h.number order by 1"
    )
    assert found.rows == [(279, "finalized", True, True), (290, "voted", True, True), (299, "proposed", True, True)]
    final = (
        "select count(*) from chain_143.logs l, chain_143.heads h where h.tag = 'finalized' and block_number <= number"
    )
    (count,) = ask(final).rows
    assert count == ask("select count(*) from logs", finalized_only=True).rows[0]
    assert ask("select count(*) from heads", block=5).rows == [(3,)]  # heads are not cut
    assert ("heads",) in ask("show tables").rows
    assert [(row[0], row[1]) for row in ask("describe heads").rows] == list(HEADS_COLUMNS)


def test_heads_of_two_chains_are_named_by_chain(own, ask_own):
    Tip(own.database, own.store, chain_id=1).hot(500, 502)
    assert ask_own("select chain_id, tag, label, number from chain_1.heads").rows == [(1, "latest", "latest", 501)]
    assert ask_own("select count(*) from chain_143.heads").rows == [(3,)]
    with pytest.raises(InvalidInput, match="no table is called 'heads'"):
        ask_own("select * from heads")


def test_a_stream_called_heads_keeps_its_name(own, ask_own):
    text = FOLLOWING.replace("logs: {", "heads: {")
    other = Tip(own.database, own.store, chain_id=1, text=text)
    other.hot(500, 502, "heads")
    assert ask_own("select block_number from heads order by 1").rows == [(500,), (501,)]
    assert ask_own("select block_number from chain_1.heads order by 1").rows == [(500,), (501,)]
    assert ask_own("select count(*) from chain_143.heads").rows == [(3,)]


def test_a_derived_dataset_in_a_query_with_a_cut(own, ask_own):
    own.derived("supply", {"block_number": [100, 250]})
    own.derived("balances", {"account": [7]})
    assert ask_own("select count(*) from supply", block=150).rows == [(1,)]
    assert ask_own("select account from balances, heads where tag = 'latest'", finalized_only=True).rows == [(7,)]
    with pytest.raises(InvalidInput, match=r"chain_143\.balances has no column block_number"):
        ask_own("select account from balances", block=150)


def test_an_answer_has_the_header_of_its_snapshot(tip, ask):
    found = ask("select count(*) from logs", finalized_only=True).snapshot
    assert [each.name for each in found.relations] == ["chain_143.logs"]
    assert [head.number for head in found.heads[143]] == [299, 290, 279]
    assert found.cuts == {143: Cut(279)}
    nothing = ask("select 1").snapshot
    assert (nothing.heads, nothing.cuts, nothing.relations) == ({}, {}, ())
    assert list(ask("select * from heads").snapshot.heads) == [143]


def test_the_command_line_cuts_and_describes_an_answer(tip):
    def run(*arguments):
        shell = environment(tip.database._dsn, tip.store.access)
        return CliRunner().invoke(main, ["query", "select max(block_number) as last from logs", *arguments], env=shell)

    with tip.database.connection() as connection:
        connection.execute("update hot.heads set observed_at = clock_timestamp()")
    plain = run()
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.split() == ["last", "299"]
    assert plain.stderr.startswith("chain 143: proposed 299, voted 290, finalized 279")
    assert plain.stderr.count("\n") == 1
    cut = run("--finalized-only", "--as-of", "common", "--json")
    assert cut.exit_code == 0, cut.output
    found = json.loads(cut.stdout)
    assert found["rows"] == [[279]]
    assert found["snapshot"]["cuts"] == [{"chain_id": 143, "block": 279}]
    for arguments, reason in (
        (["--as-of", "300"], "chain 143 is at block 299"),
        (["--as-of", "yesterday"], "as_of must be a block, a time such as"),
        (["--as-of", "1", "--as-of", "2"], "two values of one kind"),
    ):
        refused = run(*arguments)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert reason in refused.stderr


def test_an_answer_is_of_one_chain_while_that_chain_forks(postgres_url, database, store, runner):
    """Rows link up to the head that the same answer names, and rows up to the final block never change."""
    chain = DevChain(7, 80)
    opening = Opening(Catalog(database), store.access, CommittedObjects(database, store))
    rows = "select block_number, block_hash, parent_hash, hash from blocks, heads where tag = 'latest' order by 1"
    settled = {}
    with dev_node(chain) as node, following(postgres_url, node=node.url):
        follow_job(database, datasets=("blocks",))
        eventually(lambda: len(stored_chain(database)) == 80, 60)
        for turn in range(8):
            if turn % 2:
                chain.reorg(1, 2)
            else:
                chain.mine()
            found = opening.query(runner, rows)
            assert found.rows[-1][1] == found.rows[-1][3]
            for left, right in pairwise(found.rows):
                is_next = left[0] + 1 == right[0]
                assert left[1] == right[2] if is_next else BlockRange(left[0] + 1, right[0]) in gaps(found)
            final = opening.query(
                runner, "select block_number, block_hash from blocks", as_of=AsOf(finalized_only=True)
            )
            assert [settled.setdefault(*row) for row in final.rows] == [row[1] for row in final.rows]
            assert max(row[0] for row in final.rows) == final.snapshot.cuts[CHAIN_ID].block
        eventually(lambda: stored_chain(database) == {block.number: block.hash for block in chain.blocks}, 60)
    assert len(settled) > 70


def gaps(found):
    (relation,) = found.snapshot.relations
    return relation.gaps
