"""Asks the queries of docs/worked_queries.md through the service; the chain's own books have the expected rows."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.acceptance.conftest import BLOCKS, ROOT
from tests.support.following import eventually
from trace_dagster.devchain.constants import BASE_FEE_WEI, FINAL_BEHIND, TOKEN, TRANSFER, WRAPPED

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]
PAGE = (ROOT / "docs" / "worked_queries.md").read_text()
QUERIES = [
    sql
    for _, sql in sorted((int(n), sql) for n, sql in re.findall(r"\n## (\d+)\..*?```sql\n(.*?)```", PAGE, re.DOTALL))
]
HALF = 2**127


@pytest.fixture(scope="module")
def blocks(devchain):
    """Return the blocks that the job ``golden`` syncs."""
    return devchain.blocks[:1000]


@pytest.fixture(scope="module")
def ask(stack, synced):
    """Return the function that asks a query of the page by its number, and returns the rows.

    Its token sees one chain: other tests bring datasets of the same names for other chains.
    """
    variables = stack.state.environment()
    token = stack.json("token", "new", "worked", "--dataset", "chain_20143.*", "--json")["token"]

    def asked(number: int, **parameters: str) -> list[list]:
        request = Request(
            f"{variables['TRACE_QUERY_URL']}/v1/query",
            json.dumps({"sql": QUERIES[number - 1], "parameters": parameters, "limit": 10_000}).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert found["truncated"] is False
        return found["rows"]

    return asked


def hex_of(value: bytes) -> str:
    return "0x" + value.hex()


def transactions_of(blocks):
    return [(block, transaction) for block in blocks for transaction in block.transactions]


def logs_of(blocks):
    return [(block, transaction, log) for block, transaction in transactions_of(blocks) for log in transaction.logs]


def test_the_page_has_ten_queries():
    assert len(QUERIES) == 10


def test_blocks_and_gas_by_hour(ask, blocks):
    expected: dict[datetime, list[int]] = defaultdict(lambda: [0, 0, 0])
    for block in blocks:
        hour = datetime.fromtimestamp(block.timestamp // 3600 * 3600, UTC)
        counts = expected[hour]
        counts[0] += 1
        counts[1] += block.gas_used
        counts[2] += block.gas_used * BASE_FEE_WEI
    found = {datetime.fromisoformat(hour).replace(tzinfo=UTC): list(map(int, rest)) for hour, *rest in ask(1)}
    assert found == expected
    assert len(found) > 1


def test_contracts_with_the_most_logs(ask, blocks):
    logs, senders = Counter(), defaultdict(set)
    for _, transaction, log in logs_of(blocks[-500:]):
        logs[log.address] += 1
        senders[log.address].add(transaction.hash)
    ranked = sorted(logs, key=lambda address: (-logs[address], address))[:10]
    assert ask(2) == [[hex_of(address), logs[address], len(senders[address])] for address in ranked]


def test_the_largest_transfers(ask, blocks):
    transfers = [
        (log.data, block.number, place, transaction, log)
        for block in blocks
        for place, (_, transaction, log) in enumerate(logs_of([block]))
        if log.address == TOKEN and log.topics[0] == TRANSFER
    ]
    transfers.sort(key=lambda each: (-int.from_bytes(each[0], "big"), *each[1:3]))
    assert int.from_bytes(transfers[0][0], "big") > HALF
    assert ask(3, token=hex_of(TOKEN)) == [
        [number, *map(hex_of, (transaction.hash, log.topics[1][12:], log.topics[2][12:], data))]
        for data, number, _, transaction, log in transfers[:20]
    ]


def test_the_balance_of_a_holder_over_time(ask, devchain):
    balances = devchain.ledger.balances(WRAPPED, 999)
    holder = max(balances, key=lambda each: (balances[each], each))
    rows = ask(4, token=hex_of(WRAPPED), holder=hex_of(holder))
    assert len(rows) > 20
    assert int(rows[-1][2]) == balances[holder]
    for number, _, balance in (rows[0], rows[len(rows) // 2]):
        assert int(balance) == devchain.ledger.balances(WRAPPED, number).get(holder, 0)
        assert int(balance) >= 0


def test_failed_transactions_by_contract(ask, blocks):
    called, failed = Counter(), Counter()
    for _, transaction in transactions_of(blocks):
        called[transaction.call.to] += 1
        failed[transaction.call.to] += not transaction.call.success
    del called[None]
    expected = {hex_of(to): [count, failed[to]] for to, count in called.items() if count >= 10 and failed[to]}
    rows = ask(5)
    assert {contract: counts for contract, *counts, _ in rows} == expected
    assert rows
    for _, count, wrong, percent in rows:
        assert float(percent) == round(100 * wrong / count, 2)


def test_new_contracts(ask, blocks):
    made = [
        [block.number, hex_of(transaction.hash), hex_of(transaction.sender), len(transaction.call.output)]
        for block, transaction in reversed(transactions_of(blocks))
        if transaction.call.to is None
    ]
    assert ask(6) == made[:100]
    assert made


def test_what_an_account_did(ask, blocks):
    sent = Counter(transaction.sender for _, transaction in transactions_of(blocks))
    [(account, _)] = sent.most_common(1)
    expected: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for block, transaction in transactions_of(blocks):
        if account in (transaction.sender, transaction.call.to):
            counts = expected[block.number // 100 * 100]
            counts[0] += transaction.sender == account
            counts[1] += transaction.call.to == account
            counts[2] += (transaction.sender == account) * transaction.gas_used * transaction.gas_price
    assert {first: list(map(int, rest)) for first, *rest in ask(7, account=hex_of(account))} == expected


def test_the_history_is_whole(ask):
    assert ask(8) == [[0, 999, 0, 0]]


def test_the_supply_by_block(ask, devchain):
    supplies = devchain.ledger.supplies(WRAPPED, 1000)
    before = [0, *supplies]
    expected = [
        [number, supply - before[number], supply] for number, supply in enumerate(supplies) if supply != before[number]
    ]
    assert len(expected) > 100
    assert [list(map(int, row)) for row in ask(9, token=hex_of(WRAPPED))] == expected


def test_the_tip(stack, ask, devchain, tmp_path):
    job = (ROOT / "examples" / "devchain_tip.yaml").read_text().replace("latest-300", "latest-50")
    path = tmp_path / "tip.yaml"
    path.write_text(job)
    assert stack.cli("apply", "--file", str(path)).returncode == 0
    head, final = BLOCKS - 1, BLOCKS - 1 - FINAL_BEHIND
    rows = eventually(lambda: whole_tip(ask), 60)
    newest, last_final = devchain.blocks[head], devchain.blocks[final]
    assert rows[0] == ["latest", "proposed", head, hex_of(newest.hash), newest.gas_used, 0]
    assert rows[-1] == ["finalized", "finalized", final, hex_of(last_final.hash), last_final.gas_used, FINAL_BEHIND]


def whole_tip(ask) -> list[list]:
    """Return the rows of the tip; none before its relations, and the blocks down to the final one, are there."""
    try:
        rows = ask(10)
    except HTTPError:
        return []
    return rows if len(rows) == 3 and all(row[3] for row in rows) else []
