"""The whole path over a real EVM node: row counts and values are compared with the node's own JSON-RPC answers."""

import pytest

from tests.acceptance.jobs import FOUR, job_file
from tests.support.anvil_node import CHAIN_ID
from tests.support.left_out import EVM_NODE, leave_out
from tests.support.node_answers import node_rows

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
CHUNK = 10


@pytest.fixture(scope="module")
def synced_node(stack, node, tmp_path_factory):
    """Sync the node's chain up to its finalized block, all four datasets; return the end of the range."""
    if node is None:
        leave_out(EVM_NODE)
    end = node.finalized + 1
    path = job_file(tmp_path_factory.mktemp("node"), "node", chain=CHAIN_ID, end=end, pool="node", chunk=CHUNK)
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 0, done.stderr
    return end


def rows(stack, sql):
    answer = stack.json("query", "--json", "--limit", "10000", sql)
    assert answer["truncated"] is False
    return answer["rows"]


@pytest.mark.parametrize("dataset", FOUR)
def test_row_counts_of_every_block_are_the_nodes(stack, node, synced_node, dataset):
    found = dict(rows(stack, f"select block_number, count(*) from chain_{CHAIN_ID}.{dataset} group by 1"))
    expected = {block: node_rows(node.rpc, dataset, block, block + 1) for block in range(synced_node)}
    assert found == {block: count for block, count in expected.items() if count}
    assert 0 in expected.values() or dataset == "blocks", "the chain has empty blocks"


def test_block_hashes_are_the_nodes(stack, node, synced_node):
    found = rows(stack, f"select block_number, block_hash from chain_{CHAIN_ID}.blocks order by 1")
    assert found == [[n, node.rpc("eth_getBlockByNumber", hex(n), False)["hash"]] for n in range(synced_node)]


def test_transactions_are_the_nodes(stack, node, synced_node):
    columns = "transaction_hash, transaction_type, success, gas_used, value_binary"
    found = rows(stack, f"select {columns} from chain_{CHAIN_ID}.transactions order by block_number, transaction_index")
    blocks = [node.rpc("eth_getBlockByNumber", hex(n), True) for n in range(synced_node)]
    transactions = [transaction for block in blocks for transaction in block["transactions"]]
    receipts = [node.rpc("eth_getTransactionReceipt", transaction["hash"]) for transaction in transactions]
    expected = [
        [t["hash"], int(t["type"], 16), r["status"] == "0x1", int(r["gasUsed"], 16), int(t["value"], 16)]
        for t, r in zip(transactions, receipts, strict=True)
    ]
    assert [[*row[:4], int(row[4], 16)] for row in found] == expected
    assert {row[1] for row in found} == {0, 1, 2, 4}
    assert False in {row[2] for row in found}


def test_logs_are_the_nodes(stack, node, synced_node):
    found = rows(
        stack, f"select address, topic0, data, log_index from chain_{CHAIN_ID}.logs order by block_number, log_index"
    )
    logs = node.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(synced_node - 1)})
    assert found == [[log["address"], log["topics"][0], log["data"], int(log["logIndex"], 16)] for log in logs]
    assert max(int(log["data"], 16) for log in logs) > 2**128


def test_a_failed_inner_call_keeps_its_error(stack, node, synced_node):
    failed = rows(stack, f"select count(*) from chain_{CHAIN_ID}.geth_calls where error is not null")
    assert failed == [[5]]  # one ignored by the caller, one passed on (two frames), two at the root
