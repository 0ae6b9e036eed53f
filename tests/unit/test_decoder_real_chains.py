"""Rows from evidence of real blocks of every chain family, compared with what their nodes answered."""

import json

import pytest

from tests.support.cryo_tables import cryo_table
from tests.support.left_out import leave_out
from tests.support.real_chains import REAL_CHAINS, folder, names, real_block
from trace_dagster.datasets.catalogue import NATIVE_LACKS, dataset
from trace_dagster.decoder.tables import TABLES, table
from trace_dagster.evidence.claimed_sizes import with_sizes
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts
from trace_dagster.verify.model import Evidence


@pytest.fixture(params=names())
def real(request):
    if folder() is None:
        leave_out(REAL_CHAINS)
    return real_block(request.param)


def is_whole(real):
    """Return whether the file holds a whole block: some hold a part of one, and say so."""
    return all(real.checked.get(root) for root in ("hash", "transactionsRoot", "receiptsRoot"))


def evidence_of(real):
    text = json.dumps(real.block).encode()
    raw = decode_block(text, full=True)
    header = prove.prove_header(raw, real.number, real.chain)
    transactions = prove.prove_transactions(raw, header, real.chain)
    claimed = decode_receipts(json.dumps(real.receipts).encode())
    receipts = prove.receipts_of(claimed, header, real.chain, transactions=transactions)
    return Evidence(with_sizes([header], [text]), [transactions], [receipts])


def answered(name, real):
    """Return what the node answered as Cryo's table, and the columns that the file's source left out."""
    block = {"size": "0x0", **real.block}
    block["transactions"] = [{"type": "0x0", **each} for each in real.block["transactions"]]
    left_out = {"size"} - real.block.keys()
    if any(each.get("gasPrice") is None for each in block["transactions"]):
        left_out.add("gas_price")
    return cryo_table(name, block, real.receipts, [], real.chain.chain_id), left_out


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_what_the_node_answered(real, name):
    if not is_whole(real):
        return
    wanted = [each for each in dataset(name).all_columns if each not in NATIVE_LACKS.get(name, ())]
    rows = table(dataset(name), wanted, real.chain.chain_id, evidence_of(real))
    rows = rows.cast(dataset(name).engine_schema(wanted))
    expected, left_out = answered(name, real)
    assert {each for each in wanted if rows[each] != expected[each]} <= left_out
    if name == "transactions" and real.number < real.chain.fork("byzantium"):
        assert set(rows["success"].to_pylist()) <= {None}, "receipts had no status"
