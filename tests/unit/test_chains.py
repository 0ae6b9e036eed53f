"""The table of chains: rows contradict neither each other nor the forms that the proofs know."""

from typing import get_args

import pytest

from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chain import (
    CLAIMED_COLUMNS,
    ROOT_FRAMES,
    STANDARD_TYPES,
    Chain,
    Form,
    TransactionForm,
)
from trace_dagster.datasets.chains import COMPILED, chain_of, listed_chains
from trace_dagster.verify.commitments import headers, transactions
from trace_dagster.verify.commitments.prove import unproven_columns

CHAINS = listed_chains()
FORKS = {"byzantium", "bedrock", "nitro", "delhi", "madhugiri", "gingerbread", "l2"}


def test_ids_and_names_are_used_once():
    assert len({chain.chain_id for chain in CHAINS}) == len({chain.name for chain in CHAINS}) == len(CHAINS)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_a_row_is_whole(chain):
    assert chain_of(chain.chain_id) is chain
    assert chain.is_listed
    assert not set(chain.types) & set(STANDARD_TYPES)
    assert all(0 < kind < 256 for kind in chain.types)
    assert set(chain.forks) <= FORKS
    assert chain.finality_blocks > 0
    for each in chain.open:
        assert each.end is None or each.first < each.end
        assert each.end in (None, *chain.forks.values())
        assert each.reason[0].islower() or each.reason.startswith("Celo")
        assert not each.reason.endswith(".")
        if each.form.kind is not None and each.form.part == "transactions":
            assert (each.form.kind in chain.types) or chain.header == "other"
    assert chain.notes == "" or chain.notes.endswith(".")


def test_every_form_of_the_table_has_an_encoder():
    special = {"arbitrum_classic", "polygon_state_sync"}
    known = set(transactions._UNSIGNED) | set(transactions._SIGNED) | special
    assert known == set(get_args(TransactionForm))
    assert {form for chain in CHAINS for form in chain.types.values()} <= known
    assert set(ROOT_FRAMES) | set(CLAIMED_COLUMNS) <= known


def test_claimed_columns_are_columns():
    every = set(dataset("transactions").all_columns)
    assert {name for names in CLAIMED_COLUMNS.values() for name in names} <= every


def test_an_unlisted_chain_has_standard_forms_and_may_leave_open_what_all_endpoints_show():
    chain = chain_of(987654321)
    assert (chain.is_listed, chain.header, dict(chain.types), chain.open) == (False, "ethereum", {}, ())


def test_the_compiled_forms_belong_to_the_same_types_on_every_chain_that_has_them():
    for kind, form in COMPILED.types.items():
        assert all(chain.types.get(kind) != form or COMPILED.types[kind] == form for chain in CHAINS)
    assert set(COMPILED.types.values()) <= {form for chain in CHAINS for form in chain.types.values()}


def test_what_no_commitment_covers_is_said_by_column_and_type():
    assert unproven_columns(chain_of(1), [0, 2, 4], 20_000_000) == []
    assert unproven_columns(chain_of(10), [2, 0x7E], 110_000_000) == [
        "nonce of type 0x7e transactions",
        "gas_price of type 0x7e transactions",
        "max_fee_per_gas of type 0x7e transactions",
        "max_priority_fee_per_gas of type 0x7e transactions",
    ]
    assert "state-sync transactions and their logs" in unproven_columns(chain_of(137), [0], 80_084_799)
    assert unproven_columns(chain_of(137), [0], 80_084_800) == []
    assert unproven_columns(chain_of(1), [0x7E], 5) == []
    assert unproven_columns(chain_of(10), [0], 5) == ["from_address of transactions without a signature"]
    assert headers.unproven_columns(chain_of(534352), 5) == ["extra_data since EuclidV2"]
    assert headers.unproven_columns(chain_of(42220), 21_615_999) == ["base_fee_per_gas"]
    assert headers.unproven_columns(chain_of(42220), 21_616_000) == headers.unproven_columns(chain_of(1), 5) == []


def test_a_whole_part_is_open_without_every_endpoint_only_where_the_row_says_so():
    assert chain_of(324).leaves_open("transactions", 5)
    assert chain_of(42220).leaves_open("receipts", 5)
    assert not chain_of(42220).leaves_open("receipts", 31_056_500)
    assert not chain_of(1).leaves_open("receipts", 5)  # only after every endpoint was tried
    assert not Chain(5, "x").leaves_open("header", 5)
    assert chain_of(1).open_form(Form("receipts"), 5) is not None
