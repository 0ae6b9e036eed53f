"""Analytics compared with the devchain's own ledger and with an oracle in plain Python integers."""

from collections import defaultdict

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_dagster.analytics.templates import macros, parse, templates
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.devchain import constants
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import InvalidInput

BLOCKS = 400
COLUMNS = ["address", "topic0", "topic1", "topic2", "topic3", "data"]
SCHEMA = dataset("logs").schema(["block_number", *COLUMNS])
OTHER = bytes(19) + b"\x07"


def word(value):
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\x00")


def log(block, address, topics, data):
    padded = [*topics, None, None, None, None][:4]
    return dict(zip(["block_number", *COLUMNS], [block, address, *padded, data], strict=True))


def run(name, rows, **parameters):
    template = templates()[name]
    with duckdb.connect() as connection:
        connection.execute(macros())
        connection.register("logs", pa.Table.from_pylist(rows, schema=SCHEMA))
        return connection.execute(template.sql, template.bind(parameters)).fetchall()


@pytest.fixture(scope="module")
def chain():
    return DevChain(11, BLOCKS)


@pytest.fixture(scope="module")
def chain_logs(chain):
    return [
        log(block.number, entry.address, entry.topics, entry.data)
        for block in chain.blocks
        for transaction in block.transactions
        for entry in transaction.logs
    ]


@pytest.mark.parametrize("token", [constants.TOKEN, constants.WRAPPED])
def test_supply_equals_the_books(chain, chain_logs, token):
    rows = run("erc20_total_supply_by_block", chain_logs, token="0x" + token.hex())
    expected = chain.ledger.supplies(token, BLOCKS)
    assert {block: int(total) for block, _, _, total in rows} == {block: expected[block] for block, *_ in rows}
    changed = [n for n in range(1, BLOCKS) if expected[n] != expected[n - 1]]
    assert set(changed) <= {row[0] for row in rows}


@pytest.mark.parametrize("token", [constants.TOKEN, constants.WRAPPED])
def test_holders_equal_the_books_at_every_sample(chain, chain_logs, token):
    last = BLOCKS - 1
    rows = run("erc20_top_holders", chain_logs, token="0x" + token.hex(), top_n=5, from_block=0, to_block=last, step=37)
    for _, holder, block, balance in rows:
        assert int(balance) == chain.ledger.balances(token, block).get(bytes.fromhex(holder[2:]), 0)
    ranked = sorted(chain.ledger.balances(token, last).items(), key=lambda item: (-item[1], item[0]))[:5]
    assert [row[1] for row in rows if row[2] == last] == ["0x" + holder.hex() for holder, _ in ranked]


def test_stakes_equal_the_books(chain, chain_logs):
    rows = run("staking_by_validator", chain_logs, staking="0x" + constants.STAKING.hex(), to_block=BLOCKS - 1)
    assert {validator: int(stake) for _, validator, stake, *_ in rows} == chain.ledger.stakes(BLOCKS - 1)


def delegated(stakes):
    topics = (constants.DELEGATE,)
    return [
        log(1, constants.STAKING, (*topics, word(n), word(b"\x01")), word(stake) + word(1))
        for n, stake in enumerate(stakes, 1)
    ]


@pytest.mark.parametrize(
    ("stakes", "gini", "top5"),
    [
        ([5, 4, 3, 2, 1], 4 / 15, 1.0),
        ([368, 156, 20, 7, 10, 49, 22, 1], 0.67792, 615 / 633),
        ([1, 1, 3], 0.26667, 1.0),
        (list(range(1, 201)), 199 / 600, 990 / 20100),
        ([10**27], 0.0, 1.0),
    ],
)
def test_concentration_vectors(stakes, gini, top5):
    rows = run("staking_by_validator", delegated(stakes), staking="0x" + constants.STAKING.hex(), to_block=1)
    assert rows[0][4] == pytest.approx(gini, abs=1e-5)
    assert rows[0][5] == pytest.approx(top5)
    assert sum(row[3] for row in rows) == pytest.approx(1)


def test_a_stake_beyond_128_bits_is_an_error_not_a_wrong_number():
    with pytest.raises(duckdb.Error, match="beyond 128 bits"):
        run("staking_by_validator", delegated([2**130]), staking="0x" + constants.STAKING.hex(), to_block=1)


people = st.integers(1, 5).map(lambda n: bytes(19) + bytes([n]))
amounts = st.one_of(st.integers(0, 2**256 - 1), st.integers(0, 1000))
kinds = st.sampled_from(["transfer", "mint", "burn", "in", "out", "nft", "other"])
events = st.lists(st.tuples(st.integers(0, 30), kinds, people, people, amounts), max_size=25)
ZERO = bytes(20)


def as_log(block, kind, first, second, amount):
    token = OTHER if kind == "other" else constants.TOKEN
    match kind:
        case "in" | "out":
            topic = constants.DEPOSIT if kind == "in" else constants.WITHDRAWAL
            return log(block, token, (topic, word(first)), word(amount))
        case "nft":
            return log(block, token, (constants.TRANSFER, word(first), word(second), word(amount)), b"")
    source, target = {"mint": (ZERO, second), "burn": (first, ZERO)}.get(kind, (first, second))
    return log(block, token, (constants.TRANSFER, word(source), word(target)), word(amount))


@settings(max_examples=60, deadline=None)
@given(events)
def test_supply_and_balances_equal_plain_integers(found):
    rows = [as_log(*event) for event in found]
    supply, balances = defaultdict(int), defaultdict(int)
    for block, kind, first, second, amount in found:
        sign = {"mint": 1, "in": 1, "burn": -1, "out": -1}.get(kind, 0)
        supply[block] += sign * amount
        gains = {"transfer": (second,), "mint": (second,), "in": (first,)}.get(kind, ())
        loses = {"transfer": (first,), "burn": (first,), "out": (first,)}.get(kind, ())
        for holder in gains:
            balances[holder] += amount
        for holder in loses:
            balances[holder] -= amount
    token = "0x" + constants.TOKEN.hex()
    for block, minted, burned, total in run("erc20_total_supply_by_block", rows, token=token):
        assert int(minted) - int(burned) == supply[block]
        assert int(total) == sum(change for number, change in supply.items() if number <= block)
    holders = run("erc20_top_holders", rows, token=token, top_n=9, from_block=0, to_block=30, step=7)
    final = {row[1]: int(row[3]) for row in holders if row[2] == 30}
    assert final == {"0x" + holder.hex(): amount for holder, amount in balances.items() if amount > 0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs token"),
        ({"token": "0x12"}, "must be an address"),
        ({"token": "0x" + "0" * 40, "x": 1}, "has no parameter 'x'"),
    ],
)
def test_parameters_are_checked(values, said):
    with pytest.raises(InvalidInput, match=said):
        templates()["erc20_total_supply_by_block"].bind(values)


def test_a_template_whose_header_and_sql_disagree_is_refused():
    head = "-- title: t\n-- grain: g\n-- inputs: logs\n"
    with pytest.raises(InvalidInput, match="disagree about parameters: n"):
        parse("t", head + "select $n")
    with pytest.raises(InvalidInput, match="no `-- grain:` line"):
        parse("t", "-- title: t\nselect 1")
