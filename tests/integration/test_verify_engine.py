"""The real engine's tables verify: mainnet blocks in full, an EVM node's blocks for every dataset."""

import json

import pytest
from msgspec.structs import replace

from tests.support.anvil import find_anvil, running_chain
from tests.support.anvil_node import CHAIN_ID
from tests.support.cryo_tables import NAMES
from tests.support.left_out import EVM_NODE, REAL_BLOCKS, leave_out
from tests.support.proven import REAL, evidence_of, real, real_folder
from tests.support.replay import replaying
from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import chain_of
from trace_dagster.engine.base import ExtractRequest
from trace_dagster.engine.embedded import EmbeddedCryo
from trace_dagster.rpc.pools import Endpoint
from trace_dagster.verify.check import check
from trace_dagster.verify.model import Evidence
from trace_dagster.verify.rows.calls import check_calls
from trace_dagster.verify.rows.token_transfers import TRANSFER, is_transfer

pytestmark = pytest.mark.integration
ON_A_NODE = {
    **dict.fromkeys(NAMES, "full"),
    **dict.fromkeys(("geth_calls", "traces", "geth_balance_diffs", "native_transfers", "vm_traces"), "crosschecked"),
}


@pytest.fixture(scope="module")
def engine():
    opened = EmbeddedCryo()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def mainnet():
    folder = real_folder()
    if folder is None:
        leave_out(REAL_BLOCKS)
    with replaying(folder) as server:
        yield server


def extracted(engine, url, name, span, chain_id):
    known = dataset(name)
    schema = known.engine_schema(tuple(known.all_columns))
    return engine.extract(ExtractRequest(known, span, chain_id, schema, Endpoint("node", 1, url)))


@pytest.mark.parametrize("name", NAMES)
def test_real_blocks_verify_and_are_what_the_tests_take_for_cryos(engine, mainnet, name):
    for number in REAL:
        found = real(number)
        table = extracted(engine, mainnet.url, name, found.piece, 1)
        level = check(dataset(name), table, found.piece, 1, found.evidence, deep=True).level
        assert level == ("crosschecked" if name == "geth_calls" else "full")
        kept = [column for column in table.column_names if column != "n_rlp_bytes"]
        assert table.select(kept).equals(found.tables[name].select(kept))


@pytest.fixture(scope="module")
def node():
    if find_anvil() is None:
        leave_out(EVM_NODE)
    with running_chain() as chain:
        span = BlockRange(1, chain.head + 1)
        answers = [
            (chain.rpc("eth_getBlockByNumber", hex(n), True), chain.rpc("eth_getBlockReceipts", hex(n)))
            for n in range(span.start, span.end)
        ]
        yield chain, span, evidence_of(span, answers, chain_of(CHAIN_ID))


@pytest.mark.parametrize("name", ON_A_NODE)
def test_a_nodes_blocks_verify(engine, node, name):
    chain, span, evidence = node
    table = extracted(engine, chain.url, name, span, CHAIN_ID)
    assert check(dataset(name), table, span, CHAIN_ID, evidence, deep=True).level == ON_A_NODE[name]
    if name == "traces":
        assert check_calls(table, evidence.headers, evidence.transactions, evidence.receipts, name=name).checks


ODD = 4404763


@pytest.fixture
def odd_logs(mainnet):
    """Return the receipts of block 4404763, with one log for each number of topics and several sizes of data."""
    block = mainnet.chain.blocks[ODD]
    base = next(receipt["logs"][0] for receipt in block.receipts if receipt["logs"])
    logs = [
        {**base, "topics": [first, *[f"0x{n:064x}" for n in range(1, count)]][:count], "data": "0x" + "07" * size}
        for first in ("0x" + TRANSFER.hex(), "0x" + "11" * 32)
        for count in range(5)
        for size in (0, 1, 31, 32, 33, 64)
    ]
    logs = [{**log, "logIndex": hex(index)} for index, log in enumerate(logs)]
    old = [dict(receipt) for receipt in block.receipts]
    block.receipts[:] = [{**receipt, "logs": logs if index == 0 else []} for index, receipt in enumerate(old)]
    yield logs
    block.receipts[:] = old


@pytest.mark.parametrize("name", ["erc20_transfers", "erc721_transfers"])
def test_what_the_engine_calls_a_transfer(engine, mainnet, odd_logs, name):
    table = extracted(engine, mainnet.url, name, BlockRange(ODD, ODD + 1), 1)
    as_tuples = [
        (bytes(20), tuple(bytes.fromhex(t[2:]) for t in log["topics"]), bytes.fromhex(log["data"][2:]))
        for log in odd_logs
    ]
    expected = [index for index, log in enumerate(as_tuples) if is_transfer(name, log)]
    assert table["log_index"].to_pylist() == expected
    assert len(expected) == 1


def test_cryo_writes_zero_for_a_balance_geth_leaves_out(engine, mainnet, monkeypatch):
    """This is why the rules for geth_balance_diffs do not check a ``to_value`` of 0."""
    block = mainnet.chain.blocks[ODD]
    address = "0x" + "aa" * 20
    diff = {"pre": {address: {"balance": "0x5", "nonce": 1}}, "post": {address: {"nonce": 2}}}
    answer = [{"txHash": each["hash"], "result": diff} for each in block.block["transactions"]]
    monkeypatch.setitem(mainnet.chain._methods, "debug_traceBlockByNumber", lambda *_: json.loads(json.dumps(answer)))
    table = extracted(engine, mainnet.url, "geth_balance_diffs", BlockRange(ODD, ODD + 1), 1)
    [row] = table.slice(0, 1).to_pylist()
    assert (row["from_value_string"], row["to_value_string"]) == ("5", "0")


def test_evidence_without_transactions_still_proves_real_logs(engine, mainnet):
    found = real(ODD)
    evidence = replace(found.evidence, transactions=None)
    table = extracted(engine, mainnet.url, "logs", found.piece, 1)
    said = check(dataset("logs"), table, found.piece, 1, evidence)
    assert (said.level, said.unproven) == ("full", ("transaction_hash",))
    assert check(dataset("logs"), table, found.piece, 1, Evidence(found.evidence.headers)).level == "crosschecked"
