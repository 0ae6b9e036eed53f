"""SQL templates: their headers match their results, and their answers equal those of plain Python."""

from collections import defaultdict
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trace_dagster.analytics.templates import macros, parse, templates
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.datasets.chains import contracts_of
from trace_dagster.devchain import constants
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import InvalidInput

TOKEN, OTHER, ZERO = b"\x11" * 20, b"\x22" * 20, bytes(20)
TRANSFER, DEPOSIT, WITHDRAWAL = constants.TRANSFER, constants.DEPOSIT, constants.WITHDRAWAL
DELEGATE, UNDELEGATE = constants.DELEGATE, constants.UNDELEGATE
HOLDERS = [ZERO, *(bytes([n]) * 20 for n in range(1, 6)), b"\x00" * 19 + b"\x01", b"\xff" * 20]
SCHEMA = dataset("logs").schema(
    ["block_number", "log_index", "address", "topic0", "topic1", "topic2", "topic3", "data"]
)
LAST = 40


@dataclass(frozen=True)
class Event:
    """One log as the chain stores it."""

    block: int
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


def word(value):
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\x00")


def transfer(block, source, target, amount, token=TOKEN):
    return Event(block, token, (TRANSFER, word(source), word(target)), word(amount))


def deposit(block, holder, amount, token=TOKEN):
    return Event(block, token, (DEPOSIT, word(holder)), word(amount))


def withdrawal(block, holder, amount, token=TOKEN):
    return Event(block, token, (WITHDRAWAL, word(holder)), word(amount))


def delegate(block, validator, amount):
    return Event(block, constants.STAKING, (DELEGATE, word(validator), word(TOKEN)), word(amount) + word(1))


def undelegate(block, validator, amount):
    data = word(3) + word(amount) + word(1)
    return Event(block, constants.STAKING, (UNDELEGATE, word(validator), word(TOKEN)), data)


def run(name, events, **parameters):
    """Return a template's rows as dicts, over events stored as Cryo stores them."""
    template = templates()[name]
    rows = [
        {
            "block_number": event.block,
            "log_index": index,
            "address": event.address,
            **{f"topic{n}": event.topics[n] if n < len(event.topics) else None for n in range(4)},
            "data": event.data,
        }
        for index, event in enumerate(events)
    ]
    with duckdb.connect() as connection:
        connection.execute(macros())
        connection.register("logs", pa.Table.from_pylist(rows, schema=SCHEMA))
        known = {parameter.name for parameter in template.parameters}
        window = {"from_block": 0, "to_block": LAST}
        given_values = {**{key: window[key] for key in known & set(window)}, **parameters}
        return connection.execute(template.sql, template.bind(given_values)).to_arrow_table().to_pylist()


def hex_of(address):
    return "0x" + address.hex()


def changes(events, token):
    """Return (block, holder or zero, change) for each side of each event that moves tokens."""
    for event in events:
        if event.address != token or len(event.data) != 32:
            continue
        amount = int.from_bytes(event.data, "big")
        match event.topics:
            case (kind, source, target) if kind == TRANSFER:
                yield event.block, source[12:], -amount
                yield event.block, target[12:], amount
            case (kind, holder) if kind == DEPOSIT:
                yield event.block, holder[12:], amount
                yield event.block, ZERO, -amount
            case (kind, holder) if kind == WITHDRAWAL:
                yield event.block, holder[12:], -amount
                yield event.block, ZERO, amount


def balances_at(events, token, block):
    found = defaultdict(int)
    for number, holder, change in changes(events, token):
        if number <= block and holder != ZERO:
            found[holder] += change
    return found


def supply_rows(events, token):
    minted, burned = defaultdict(int), defaultdict(int)
    for block, holder, change in changes(events, token):
        if holder == ZERO:
            minted[block] += max(-change, 0)
            burned[block] += max(change, 0)
            minted[block], burned[block] = minted[block], burned[block]
    rows, supply = [], 0
    for block in sorted(minted.keys() | burned.keys()):
        supply += minted[block] - burned[block]
        rows.append(
            {
                "block_number": block,
                "minted": str(minted[block]),
                "burned": str(burned[block]),
                "total_supply": str(supply),
            }
        )
    return rows


AMOUNT = st.one_of(
    st.integers(0, 2**256 - 1),
    st.sampled_from([0, 1, 2**64 - 1, 2**64, 2**127, 2**128 - 1, 2**128, 2**192, 2**255, 2**256 - 1]),
)
BLOCK, HOLDER = st.integers(0, LAST), st.sampled_from(HOLDERS)
MOVE = st.builds(transfer, BLOCK, HOLDER, HOLDER, AMOUNT)
WRAP = st.one_of(
    st.builds(deposit, BLOCK, HOLDER.filter(any), AMOUNT), st.builds(withdrawal, BLOCK, HOLDER.filter(any), AMOUNT)
)
DECOY = st.one_of(
    st.builds(transfer, BLOCK, HOLDER, HOLDER, AMOUNT, st.just(OTHER)),
    st.builds(deposit, BLOCK, HOLDER, AMOUNT, st.just(OTHER)),
    st.builds(
        lambda b, s, t, n: Event(b, TOKEN, (TRANSFER, word(s), word(t), word(n)), b""), BLOCK, HOLDER, HOLDER, AMOUNT
    ),
    st.builds(
        lambda b, s, t, n: Event(b, TOKEN, (TRANSFER, word(s), word(t), word(n)), word(n)),
        BLOCK,
        HOLDER,
        HOLDER,
        AMOUNT,
    ),
    st.builds(lambda b, s, n: Event(b, TOKEN, (TRANSFER, word(s)), word(n)), BLOCK, HOLDER, AMOUNT),
    st.builds(lambda b: Event(b, TOKEN, (), b"\x01" * 7), BLOCK),
    st.builds(lambda b, s, t: Event(b, TOKEN, (TRANSFER, word(s), word(t)), b""), BLOCK, HOLDER, HOLDER),
    st.builds(lambda b, s, n: Event(b, TOKEN, (DEPOSIT, word(s), word(s)), word(n)), BLOCK, HOLDER, AMOUNT),
    st.builds(lambda b, s, n: Event(b, TOKEN, (b"\xab" * 32, word(s), word(s)), word(n)), BLOCK, HOLDER, AMOUNT),
)
EVENTS = st.lists(st.one_of(MOVE, WRAP, DECOY), max_size=25)
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@PROPERTY
@given(EVENTS)
def test_total_supply_equals_plain_arithmetic(events):
    assert run("erc20_total_supply_by_block", events, token=hex_of(TOKEN)) == supply_rows(events, TOKEN)


@PROPERTY
@given(EVENTS, st.integers(1, 9), st.integers(0, LAST), st.integers(1, LAST + 5))
def test_top_holders_equal_plain_arithmetic(events, top_n, from_block, step):
    found = run("erc20_top_holders", events, token=hex_of(TOKEN), top_n=top_n, step=step, from_block=from_block)
    last = {holder: amount for holder, amount in balances_at(events, TOKEN, LAST).items() if amount > 0}
    ranked = sorted(last, key=lambda holder: (-last[holder], holder))[:top_n]
    samples = sorted({*range(from_block, LAST, step), LAST})
    at = {block: balances_at(events, TOKEN, block) for block in samples}
    assert found == [
        {"rank": rank, "holder": hex_of(holder), "block_number": block, "balance": str(at[block][holder])}
        for rank, holder in enumerate(ranked, 1)
        for block in samples
    ]


def test_supply_sums_values_no_narrower_type_could_hold():
    top = 2**256 - 1
    events = [transfer(1, ZERO, HOLDERS[1], top), transfer(1, ZERO, HOLDERS[2], top), deposit(2, HOLDERS[1], top)]
    rows = run("erc20_total_supply_by_block", events, token=hex_of(TOKEN))
    assert [row["total_supply"] for row in rows] == [str(2 * top), str(3 * top)]


def test_no_events_give_no_rows_with_the_right_columns():
    assert run("erc20_total_supply_by_block", [], token=hex_of(TOKEN)) == []
    assert run("erc20_top_holders", [], token=hex_of(TOKEN), top_n=10, step=5) == []
    assert run("staking_by_validator", [], staking=hex_of(constants.STAKING)) == []


def stakes_of(values):
    return run(
        "staking_by_validator",
        [delegate(1, validator, value) for validator, value in enumerate(values, 1)],
        staking=hex_of(constants.STAKING),
    )


@pytest.mark.parametrize(
    ("values", "gini"),
    [
        ([5, 4, 3, 2, 1], 4 / 15),
        ([368, 156, 20, 7, 10, 49, 22, 1], 0.67792),
        ([1, 1, 3, 0, 0], 0.26667),
        (list(range(1, 201)), 199 / 600),
        ([7], 0.0),
        ([5, 5, 5, 5], 0.0),
        ([10**28] * 3 + [10**28 + 1], 0.0),
    ],
)
def test_gini_of_known_distributions(values, gini):
    rows = stakes_of(values)
    assert len(rows) == sum(1 for value in values if value)
    assert {round(row["gini"], 5) for row in rows} == {round(gini, 5)}


def test_shares_and_the_five_largest():
    rows = stakes_of([30, 30, 20, 20, 10, 5, 5])
    assert [row["validator"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["share"] for row in rows] == pytest.approx([n / 120 for n in (30, 30, 20, 20, 10, 5, 5)])
    assert {row["top5_share"] for row in rows} == {110 / 120}


STAKE_EVENT = st.one_of(
    st.builds(delegate, BLOCK, st.sampled_from([0, 1, 2, 2**63, 2**64 - 1]), st.integers(1, 10**28)),
    st.builds(undelegate, BLOCK, st.sampled_from([0, 1, 2, 2**63]), st.integers(1, 10**27)),
    st.builds(
        lambda b, kind, data: Event(b, constants.STAKING, (kind, word(1), word(TOKEN)), data),
        BLOCK,
        st.sampled_from([constants.WITHDRAW, constants.CLAIM_REWARDS, constants.VALIDATOR_REWARDED]),
        st.sampled_from([word(5) * 2, word(5) * 3]),
    ),
    st.builds(
        lambda e: Event(e.block, OTHER, e.topics, e.data), st.builds(delegate, BLOCK, st.just(1), st.just(10**20))
    ),
)


@PROPERTY
@given(st.lists(STAKE_EVENT, max_size=25), BLOCK)
def test_stakes_equal_plain_arithmetic(events, to_block):
    stakes = defaultdict(int)
    for event in events:
        if event.address == constants.STAKING and event.block <= to_block:
            validator = int.from_bytes(event.topics[1], "big")
            if event.topics[0] == DELEGATE:
                stakes[validator] += int.from_bytes(event.data[:32], "big")
            elif event.topics[0] == UNDELEGATE:
                stakes[validator] -= int.from_bytes(event.data[32:64], "big")
    held = sorted(((v, s) for v, s in stakes.items() if s > 0), key=lambda pair: (-pair[1], pair[0]))
    rows = run("staking_by_validator", events, staking=hex_of(constants.STAKING), to_block=to_block)
    assert [(row["validator"], row["stake"]) for row in rows] == [(v, str(s)) for v, s in held]
    total, count = sum(s for _, s in held), len(held)
    if held:
        weighted = sum((2 * i - count - 1) * s for i, (_, s) in enumerate(reversed(held), 1))
        assert rows[0]["gini"] == pytest.approx(weighted / (count * total), abs=1e-12)
        assert rows[0]["top5_share"] == pytest.approx(sum(s for _, s in held[:5]) / total)


@pytest.fixture(scope="module")
def chain():
    return DevChain(seed=7, blocks=600)


@pytest.fixture(scope="module")
def chain_events(chain):
    return [
        Event(block.number, log.address, tuple(log.topics), log.data)
        for block in chain.blocks
        for transaction in block.transactions
        if transaction.call.success
        for log in transaction.call.logs
    ]


@pytest.mark.parametrize("token", [constants.TOKEN, constants.WRAPPED])
def test_supply_equals_the_devchains_books(chain, chain_events, token):
    rows = run("erc20_total_supply_by_block", chain_events, token=hex_of(token), **upto(chain))
    assert rows
    for row in rows:
        assert int(row["total_supply"]) == chain.ledger.total_supply(token, row["block_number"])


@pytest.mark.parametrize("token", [constants.TOKEN, constants.WRAPPED])
def test_holders_equal_the_devchains_books(chain, chain_events, token):
    rows = run(
        "erc20_top_holders", chain_events, token=hex_of(token), top_n=10, step=70, from_block=0, to_block=chain.head
    )
    assert len(rows) == 10 * len({*range(0, chain.head, 70), chain.head})
    for row in rows:
        books = chain.ledger.balances(token, row["block_number"])
        assert int(row["balance"]) == books.get(bytes.fromhex(row["holder"][2:]), 0)
    largest = sorted(chain.ledger.balances(token, chain.head).values(), reverse=True)[:10]
    assert [int(row["balance"]) for row in rows if row["block_number"] == chain.head] == largest


def test_stakes_equal_the_devchains_books(chain, chain_events):
    rows = run("staking_by_validator", chain_events, staking=hex_of(constants.STAKING), to_block=chain.head)
    assert {row["validator"]: int(row["stake"]) for row in rows} == chain.ledger.stakes(chain.head)


def upto(chain):
    known = {parameter.name for parameter in templates()["erc20_total_supply_by_block"].parameters}
    return {"to_block": chain.head} if "to_block" in known else {}


MINIMAL = (
    "-- title: T\n-- grain: one row\n-- inputs: logs\n-- parameters:\n--   token (address): the token\nselect $token"
)


def test_every_template_in_the_repository_is_well_formed():
    assert set(templates()) == {"erc20_total_supply_by_block", "erc20_top_holders", "staking_by_validator"}
    for template in templates().values():
        assert template.title
        assert template.grain
        assert template.inputs == ("logs",)
        statements = duckdb.connect().extract_statements(template.sql)
        assert [statement.type for statement in statements] == [duckdb.StatementType.SELECT]


def test_a_header_is_read():
    template = parse("t", MINIMAL)
    assert (template.title, template.grain, template.inputs) == ("T", "one row", ("logs",))
    assert [(p.name, p.kind, p.meaning) for p in template.parameters] == [("token", "address", "the token")]
    assert template.sql == "select $token"


@pytest.mark.parametrize("line", ["title", "grain", "inputs"])
def test_a_header_without_a_needed_line_is_refused(line):
    text = "\n".join(row for row in MINIMAL.splitlines() if not row.startswith(f"-- {line}:"))
    with pytest.raises(InvalidInput, match=f"no `-- {line}:` line"):
        parse("t", text)


@pytest.mark.parametrize("sql", ["select 1", "select $token, $other"])
def test_a_header_that_disagrees_with_its_sql_is_refused(sql):
    with pytest.raises(InvalidInput, match="disagree about parameters"):
        parse("t", MINIMAL.replace("select $token", sql))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "needs token"),
        ({"token": hex_of(TOKEN), "tokne": 1}, "no parameter 'tokne'"),
        ({"token": "0x12"}, "must be an address"),
        ({"token": "0x" + "g" * 40}, "must be an address"),
        ({"token": hex_of(TOKEN) + "\n"}, "must be an address"),
        ({"token": TOKEN}, "must be an address"),
        ({"token": None}, "must be an address"),
    ],
)
def test_wrong_parameters_are_refused(values, says):
    with pytest.raises(InvalidInput, match=says):
        parse("t", MINIMAL).bind(values)


@pytest.mark.parametrize("given_value", [-1, 2**62, True, "5", 5.0, None])
def test_a_block_must_be_a_whole_number(given_value):
    template = parse("t", MINIMAL.replace("token (address)", "token (integer)"))
    with pytest.raises(InvalidInput, match="whole number"):
        template.bind({"token": given_value})


def test_an_address_is_bound_as_its_bytes_whatever_its_case():
    assert parse("t", MINIMAL).bind({"token": "0x" + "aB" * 20}) == {"token": b"\xab" * 20}


@pytest.mark.parametrize("chain_id", [1, 143, 10143, constants.CHAIN_ID])
def test_known_contracts_fit_the_templates(chain_id):
    contracts = contracts_of(chain_id)
    assert contracts is not None
    template = parse("t", MINIMAL)
    for address in filter(None, (contracts.token, contracts.staking)):
        template.bind({"token": address})


def test_nothing_is_known_of_an_unknown_chain():
    assert contracts_of(999_999_999) is None
