"""The pages about chains and forks are those of the code."""

import re
from pathlib import Path

import pytest

from tests.support.chain_levels import EXPECTED, FOUR, markdown
from tests.support.imitated.chains import IMITATED
from trace_dagster.config.chain_sync import read
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chain import HEAD_TAGS, Chain, Form, Open
from trace_dagster.datasets.chains import chain_of, listed_chains
from trace_dagster.datasets.chains_table import DATASETS, head_labels, open_forms, short_table, whole_table, with_tables
from trace_dagster.datasets.reach import reach

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "part"), [("docs/chains.md", "chains"), ("docs/finality.md", "head-labels"), ("README.md", "chains-short")]
)
def test_the_tables_of_chains_are_those_of_the_code(page, part):
    text = (ROOT / page).read_text()
    assert f"<!-- {part}: begin" in text
    assert with_tables(text) == text, "run `make docs-tables`"


def test_every_chain_is_a_row_of_the_page():
    rows = [line.split(" | ")[1] for line in whole_table().splitlines()[2:]]
    assert rows == [str(chain.chain_id) for chain in listed_chains()]


def test_the_short_table_groups_chains_by_their_levels():
    chains = [Chain(1, "One"), Chain(2, "Two", open=(Open(Form("header"), "closed"),)), Chain(3, "Three")]
    assert short_table(chains).splitlines()[2:] == [
        "| One, Three | full | full | full | crosschecked |",
        "| Two | structural | crosschecked | crosschecked | structural |",
    ]
    assert "Base, OP Mainnet" in short_table()


def test_chains_with_words_of_their_own_for_heads_share_a_row():
    words = ("proposed", "voted", "finalized")
    chains = [Chain(1, "One"), Chain(2, "Two", head_labels=words), Chain(3, "Three", head_labels=words)]
    assert head_labels(chains).splitlines()[2:] == [
        "| Two (2), Three (3) | proposed | voted | finalized |",
        "| all others | latest | safe | finalized |",
    ]
    assert [chain_of(143).head_label(tag) for tag in HEAD_TAGS] == list(words)
    assert [chain_of(1).head_label(tag) for tag in HEAD_TAGS] == list(HEAD_TAGS)


def test_an_open_chain_shows_its_levels_its_stars_and_its_reasons():
    chain = Chain(
        7,
        "Seven",
        header="other",
        types={0x7E: "op_deposit"},
        has_finalized_tag=False,
        finality_blocks=2_000,
        forks={"late": 9_000, "early": 1_000},
        open=(Open(Form("header"), "not an RLP list"), Open(Form("transactions", 0x76), "no specification", end=50)),
        timestamp_unit="milliseconds",
        notes="a note",
    )
    levels = ("structural", "crosschecked *", "crosschecked", "structural")
    cells = ("Seven", "7", "not an RLP header", "`0x7e`", "2,000 blocks", *levels)
    assert whole_table([chain]).splitlines()[2] == f"| {' | '.join(cells)} |"
    assert open_forms([chain]).splitlines() == [
        "### Seven (7)",
        "",
        "- a note",
        "- headers count time in milliseconds",
        "- types: `0x7e` op deposit",
        "- forks that change a form: early at 1,000, late at 9,000",
        "- `blocks`, `geth_calls`: structural (not an RLP list)",
        "- `transactions`, `logs`: crosschecked (not an RLP list)",
        "- `transactions`: blocks 0 to 49 with transactions of type 0x76: structural (no specification)",
    ]
    assert open_forms([Chain(8, "Eight")]) == ""


def test_the_page_holds_the_levels_that_tests_reach():
    """tests/integration/test_chain_levels.py syncs these chains; with ``-s`` it prints the table."""
    assert markdown(EXPECTED) in (ROOT / "docs" / "chains.md").read_text()


@pytest.mark.parametrize("key", IMITATED)
def test_the_level_that_a_test_reaches_is_one_that_the_table_says(key):
    recipe = IMITATED[key].recipe
    chain = chain_of(recipe.chain_id)
    for name, level in zip(FOUR, EXPECTED[key], strict=True):
        said = reach(chain, dataset(name), recipe.first, recipe.end)
        may_be = {said.level, *(each.level for each in said.below)}
        if not chain.is_listed:
            may_be |= {"structural", "crosschecked"}
        assert set(re.findall("full|crosschecked|structural", level)) <= may_be
        if not said.below and chain.is_listed:
            assert level == said.level


def test_the_page_of_forks_names_files_that_exist():
    named = re.findall(r"`(trace_dagster/[\w/]+(?:\.py)?)`", (ROOT / "docs" / "forks.md").read_text())
    assert len(named) >= 8
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_valid_file_of_a_chain_of_the_table(path):
    job = read(path)
    assert chain_of(job.chain_id).is_listed or path.stem == "anvil"
    assert {stream.dataset.name for stream in job.streams.values()} <= set(DATASETS)
