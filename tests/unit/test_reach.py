"""What `verify: full` means on a chain, before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.datasets.catalogue import catalogue, dataset
from trace_dagster.datasets.chain import Chain, Form, Forms, Open
from trace_dagster.datasets.chains import chain_of, listed_chains
from trace_dagster.datasets.reach import Below, Reach, lowered_level, parts_needed, reach
from trace_dagster.verify.check import evidence_needed

HEADER = Open(Form("header"), "the hash is not that of an RLP header")
EVERY_PART = (HEADER, Open(Form("transactions"), "no root comes out"), Open(Form("receipts"), "no root comes out"))


def levels(chain, first=0, end=None):
    return {
        name: reach(chain, dataset(name), first, end).level for name in ("blocks", "transactions", "logs", "traces")
    }


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_the_parts_are_those_of_the_evidence(name):
    needed, parts = evidence_needed(name), parts_needed(dataset(name))
    assert {"transactions", "receipts"} & parts == {
        part for part in ("transactions", "receipts") if getattr(needed, part)
    }
    assert ("header" in parts) == needed.headers


@pytest.mark.parametrize("chain_id", [1, 56, 143, 4_242])
def test_standard_forms_are_proven_in_full(chain_id):
    chain = chain_of(chain_id)
    assert levels(chain, 20_000_000) == {
        "blocks": "full",
        "transactions": "full",
        "logs": "full",
        "traces": "crosschecked",
    }
    assert str(reach(chain, dataset("blocks"), 20_000_000)) == "full"
    assert str(reach(chain, dataset("geth_calls"), 20_000_000)) == (
        "crosschecked (no commitment covers call frames; root frames are compared)"
    )
    assert reach(chain, dataset("four_byte_counts")).level == "structural"


def test_a_chain_without_a_commitment_reaches_structure_only():
    chain = Chain(324, "zk", header="other", open=EVERY_PART)
    assert set(levels(chain).values()) == {"structural"}
    found = reach(chain, dataset("logs"))
    assert found == Reach("structural", "the hash is not that of an RLP header; no root comes out", is_open=True)
    assert reach(chain, dataset("contracts")).level == "structural"


def test_an_open_header_leaves_rows_that_give_its_claimed_roots():
    chain = Chain(4_217, "mixed", header="other", open=(HEADER,))
    assert levels(chain) == {
        "blocks": "structural",
        "transactions": "crosschecked",
        "logs": "crosschecked",
        "traces": "structural",
    }


@pytest.mark.parametrize(
    ("name", "parts", "has_status", "level"),
    [
        ("blocks", {"header"}, True, "structural"),
        ("logs", {"header"}, True, "crosschecked"),
        ("logs", {"header", "receipts"}, True, "structural"),
        ("logs", {"receipts"}, True, "structural"),
        ("logs", {"receipts"}, False, "crosschecked"),
        ("transactions", {"transactions"}, True, "structural"),
        ("transactions", {"receipts"}, True, "crosschecked"),
        ("transactions", {"receipts"}, False, "crosschecked"),
        ("geth_calls", {"receipts"}, True, "structural"),
        ("erc20_transfers", {"header"}, True, "crosschecked"),
    ],
)
def test_the_lowered_level_follows_the_open_parts(name, parts, has_status, level):
    assert lowered_level(dataset(name), frozenset(parts), has_status=has_status) == level


def test_eras_are_cut_where_the_open_parts_change():
    before = Open(Form("header"), "the old chain", end=100)
    middle = Open(Form("receipts"), "no receipts", first=50, end=200)
    chain = Chain(10, "two eras", open=(before, middle))
    logs = dataset("logs")
    assert reach(chain, logs).below == (
        Below(0, 50, "crosschecked", "the old chain"),
        Below(50, 100, "structural", "the old chain; no receipts"),
        Below(100, 200, "structural", "no receipts"),
    )
    assert reach(chain, dataset("blocks")).below == (Below(0, 100, "structural", "the old chain"),)
    assert reach(chain, logs, 200) == Reach("full")
    assert reach(chain, logs, 120, 300).below == (Below(120, 200, "structural", "no receipts"),)
    assert reach(chain, logs, 120, 180) == Reach("structural", "no receipts", is_open=True)
    assert str(reach(chain, dataset("blocks"))) == "full; blocks 0 to 99: structural (the old chain)"


def test_a_form_of_one_type_or_after_all_endpoints_is_a_condition():
    chain = Chain(
        137,
        "conditions",
        open=(
            Open(Form("transactions", 0x7F), "raw bytes are missing", first=1_000),
            Open(Form("receipts"), "roots are left out", end=500, after_all=True),
        ),
    )
    found = reach(chain, dataset("transactions"))
    assert found.level == "full"
    assert str(found) == (
        "full; blocks from 1,000 on with transactions of type 0x7f: structural (raw bytes are missing);"
        " blocks 0 to 499 if every endpoint of the pool shows this form: crosschecked (roots are left out)"
    )
    assert str(reach(chain, dataset("logs"), 600)) == "full"
    assert str(reach(chain, dataset("blocks"))) == "full"


def test_a_condition_adds_to_what_is_open_anyway():
    """In a block with the type, its transactions and its receipts are open beside the header."""
    chain = Chain(
        988,
        "mixed",
        header="other",
        open=(
            HEADER,
            Open(Form("transactions", 0x3F), "type 0x3f is not public"),
            Open(Form("receipts", 0x3F), "type 0x3f is not public"),
            Open(Form("receipts"), "an old form", end=10),
        ),
    )
    assert reach(chain, dataset("blocks")).below == ()
    typed = "with transactions of type 0x3f"
    assert reach(chain, dataset("logs"), 10).below == (Below(10, None, "structural", "type 0x3f is not public", typed),)
    assert reach(chain, dataset("logs")).below == (
        Below(0, 10, "structural", f"{HEADER.reason}; an old form"),
        Below(10, None, "crosschecked", HEADER.reason),
        Below(10, None, "structural", "type 0x3f is not public", typed),
    )
    assert [each.level for each in reach(chain, dataset("transactions"), 10).below] == ["structural"]


def test_ethereum_from_block_0_says_that_success_is_null_before_byzantium():
    whole = reach(chain_of(1), dataset("transactions"))
    assert whole.notes == ("`success` is null before block 4,370,000: receipts had no status there",)
    assert reach(chain_of(1), dataset("transactions"), 4_370_000).notes == ()
    assert reach(chain_of(1), dataset("logs")).notes == ()
    (made_up,) = reach(chain_of(1), dataset("logs")).below
    assert (made_up.end_block, made_up.level) == (4_370_000, "crosschecked")
    assert made_up.condition == "if every endpoint of the pool shows this form"


eras = st.builds(
    lambda part, reason, first, length: Open(Form(part), reason, first, None if length is None else first + length),
    st.sampled_from(("header", "transactions", "receipts")),
    st.sampled_from("abc"),
    st.integers(0, 30),
    st.none() | st.integers(1, 20),
)


@given(st.lists(eras, max_size=4), st.sampled_from(("blocks", "logs", "transactions", "traces")), st.integers(0, 20))
def test_every_block_reaches_what_its_proof_will_be_allowed(rows, name, first):
    """The level said before a job runs is that of the rule by which parts are left open while it runs."""
    chain, known = Chain(7, "seven", open=tuple(rows)), dataset(name)
    end = first + 25
    found = reach(chain, known, first, end)
    for block in range(first, end):
        parts = {part for part in parts_needed(known) if Forms(chain).open_reason(Form(part), block) is not None}
        said = [each.level for each in found.below if each.first_block <= block < (each.end_block or end)]
        highest = "crosschecked" if name == "traces" else "full"
        expected = lowered_level(known, frozenset(parts)) if parts else highest
        assert (said or [found.level]) == [expected]


def test_json_carries_the_same():
    found = reach(chain_of(1), dataset("logs")).to_json()
    assert found["level"] == "full"
    assert set(found["below"][0]) == {"first_block", "end_block", "level", "reason", "condition"}


@pytest.mark.parametrize("chain", listed_chains(), ids=lambda chain: chain.name)
def test_every_row_of_the_table_reaches_what_its_header_allows(chain):
    """A header that is not the hash of an RLP list leaves the header open; any other header is proven."""
    opens_header = any(row.form.part == "header" and row.end is None and not row.after_all for row in chain.open)
    assert opens_header == (chain.header == "other")
    assert all(row.reason and row.reason[-1] != "." for row in chain.open)
