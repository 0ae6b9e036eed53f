"""Rows of blocks, transactions and logs from evidence: equal to Cryo's on every column, or one clear error."""

import pytest
from msgspec.structs import replace

from tests.support.proven import CASES, case, devchain, in_columns
from trace_dagster.datasets.catalogue import NATIVE_LACKS, dataset
from trace_dagster.decoder.tables import SIZES, TABLES, has_rows, table
from trace_dagster.errors import ExtractionFailed, VerificationFailed
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.token_transfers import TRANSFERS

TOO_MUCH = {"gas_price": 10**38, "nonce": 1 << 63, "max_fee_per_gas": 1 << 200, "gas_limit": 1 << 64}
MOST = {
    "gas_price": 10**38 - 1,
    "nonce": (1 << 63) - 1,
    "max_fee_per_gas": 1 << 64,
    "max_priority_fee_per_gas": 1 << 100,
}


def columns_of(name):
    return [each for each in dataset(name).all_columns if each not in NATIVE_LACKS.get(name, ())]


def as_cryo(name, rows):
    """Return rows of the decoder with Cryo's types. Raises if a value does not fit into them."""
    return rows.cast(dataset(name).engine_schema(rows.column_names))


def with_sizes(evidence, answers):
    """Return the evidence with the sizes that the answers claim."""
    headers = []
    for header, (block, _) in zip(evidence.headers, answers, strict=True):
        difficulty = block.get("totalDifficulty")
        headers.append(
            replace(
                header,
                size=int(block["size"], 16),
                total_difficulty=None if difficulty is None else int(difficulty, 16),
            )
        )
    return replace(evidence, headers=headers)


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("name", [*TABLES, *TRANSFERS])
def test_rows_are_cryos(which, name):
    found = case(which)
    wanted = columns_of(name)
    expected = found.tables[name].select(wanted)
    evidence = with_sizes(found.evidence, found.answers)
    if name != "transactions" or found.evidence.receipts[0] == [] or found.evidence.receipts[0][0].post_state is None:
        assert as_cryo(name, table(dataset(name), wanted, found.chain_id, evidence)).equals(expected)
    compiled = in_columns(found.piece, found.answers)
    if compiled is not None:
        rows = table(dataset(name), wanted, found.chain_id, with_sizes(compiled, found.answers))
        assert as_cryo(name, rows).equals(expected)


def test_the_compiled_rows_are_compared_as_well():
    found = devchain()
    assert in_columns(found.piece, found.answers).rows is not None


def test_only_the_wanted_columns_are_built():
    found = devchain()
    rows = table(dataset("transactions"), ["block_number", "transaction_index"], 1, found.evidence)
    assert rows.column_names == ["block_number", "transaction_index"]


def test_success_is_null_before_byzantium():
    found = devchain()
    receipts = [[replace(each, succeeded=None, post_state=bytes(32)) for each in inside] for inside in
                found.evidence.receipts]  # fmt: skip
    rows = table(dataset("transactions"), ["success"], 1, replace(found.evidence, receipts=receipts))
    assert set(rows["success"].to_pylist()) == {None}


def with_value(column, value):
    """Return the devchain's evidence with a value of the first transaction changed, and its block."""
    found = devchain()
    block = next(at for at, inside in enumerate(found.evidence.transactions) if inside)
    transactions = [list(inside) for inside in found.evidence.transactions]
    transactions[block][0] = replace(transactions[block][0], **{column: value})
    return replace(found.evidence, transactions=transactions), found.piece.start + block


@pytest.mark.parametrize(("column", "value"), TOO_MUCH.items())
def test_a_value_that_the_schema_cannot_hold_is_one_error(column, value):
    evidence, block = with_value(column, value)
    with pytest.raises(ExtractionFailed) as failed:
        table(dataset("transactions"), ["block_number", column], 1, evidence)
    assert failed.value.facts == {"block": block, "column": column, "value": str(value)}


@pytest.mark.parametrize(("column", "value"), MOST.items())
def test_numbers_beyond_cryos_types_come_out(column, value):
    evidence, block = with_value(column, value)
    rows = table(dataset("transactions"), ["block_number", column], 1, evidence)
    assert {"block_number": block, column: value} in rows.to_pylist()


@pytest.mark.parametrize(
    ("member", "column", "value"),
    [("timestamp", "timestamp", 1 << 63), ("number", "block_number", 1 << 63),
     ("base_fee_per_gas", "base_fee_per_gas", 10**38)],
)  # fmt: skip
def test_a_member_that_the_schema_cannot_hold_is_one_error(member, column, value):
    header = devchain().evidence.headers[0]
    wanted = ["block_number", "timestamp", "base_fee_per_gas"]
    rows = table(dataset("blocks"), wanted, 1, Evidence([replace(header, **{member: value - 1})]))
    assert rows[column].to_pylist() == [value - 1]
    with pytest.raises(ExtractionFailed, match=column) as failed:
        table(dataset("blocks"), wanted, 1, Evidence([replace(header, **{member: value})]))
    assert failed.value.facts["value"] == str(value)


def test_a_claimed_size_that_is_too_large_does_not_end_the_stream():
    header = replace(devchain().evidence.headers[0], size=1 << 63)
    with pytest.raises(VerificationFailed, match="claims a size"):
        table(dataset("blocks"), ["block_number", "size"], 1, Evidence([header]))


@pytest.mark.parametrize(
    ("form", "column", "value"),
    [
        ("op_deposit", "gas_price", 10**38),
        ("op_deposit", "gas_price", -1),
        ("op_deposit", "nonce", 1 << 64),
        ("arbitrum_internal", "gas_limit", 1 << 200),
        ("arbitrum_classic", "gas_used", 1 << 64),
        ("arbitrum_classic", "gas_used", -1),
        (None, "gas_used", -1),
    ],
)
def test_a_claimed_value_that_the_schema_cannot_hold_does_not_end_the_stream(form, column, value):
    found = devchain()
    block = next(at for at, inside in enumerate(found.evidence.transactions) if inside)
    transactions, receipts = (
        [list(each) for each in part] for part in (found.evidence.transactions, found.evidence.receipts)
    )
    transactions[block][0] = replace(transactions[block][0], form=form)
    part = receipts if column == "gas_used" else transactions
    part[block][0] = replace(part[block][0], **{column: value})
    evidence = replace(found.evidence, transactions=transactions, receipts=receipts)
    with pytest.raises(VerificationFailed, match=f"claims a {column}"):
        table(dataset("transactions"), ["block_number", column], 1, evidence)


def test_a_column_that_evidence_lacks_is_named_with_the_way_out():
    with pytest.raises(ExtractionFailed, match=r"n_rlp_bytes .*set `engine: cryo`"):
        table(dataset("transactions"), ["n_rlp_bytes"], 1, devchain().evidence)


def test_a_missing_sender_is_not_a_null():
    found = devchain()
    transactions = [[replace(each, sender=None) for each in inside] for inside in found.evidence.transactions]
    with pytest.raises(VerificationFailed, match="sender"):
        table(dataset("transactions"), ["from_address"], 1, replace(found.evidence, transactions=transactions))


def test_logs_without_transactions_take_the_hashes_of_receipts():
    found = devchain()
    alone = replace(found.evidence, transactions=None)
    wanted = list(dataset("logs").all_columns)
    rows = as_cryo("logs", table(dataset("logs"), wanted, found.chain_id, alone))
    assert rows.equals(found.tables["logs"].select(wanted))
    nameless = [[replace(each, transaction_hash=None) for each in inside] for inside in found.evidence.receipts]
    with pytest.raises(VerificationFailed, match="transactionHash"):
        table(dataset("logs"), wanted, found.chain_id, replace(alone, receipts=nameless))


@pytest.mark.parametrize("name", TABLES)
def test_evidence_with_an_open_block_has_no_rows_of_what_is_open(name):
    evidence = devchain().evidence
    assert has_rows(name, evidence)
    assert has_rows(name, replace(evidence, receipts=None, transactions=None)) is (name == "blocks")


def test_sizes_are_columns_of_blocks():
    assert set(SIZES) < set(dataset("blocks").all_columns)
