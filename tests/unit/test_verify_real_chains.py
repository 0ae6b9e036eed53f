"""Real blocks of every chain family reach at least what an independent program recomputed of them."""

import copy
import json

import pytest

from tests.support.left_out import leave_out
from tests.support.real_chains import REAL_CHAINS, folder, names, real_block
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import TraceError, UnknownForm, VerificationFailed
from trace_dagster.verify.commitments import prove
from trace_dagster.verify.commitments.rpc_json import decode_block, decode_receipts


@pytest.fixture(params=names())
def real(request):
    if folder() is None:
        leave_out(REAL_CHAINS)
    return real_block(request.param)


def raw_block(answer):
    return decode_block(json.dumps(answer).encode(), full=True)


def header_of(real):
    raw = raw_block(real.block)
    if not real.checked["hash"]:
        return prove.claimed_header(raw, real.number)
    return prove.prove_header(raw, real.number, real.chain)


def test_what_was_checked_independently_proves(real):
    header = header_of(real)
    assert header.is_proven is real.checked["hash"]
    assert header.hash.hex() == real.block["hash"][2:]
    transactions = None
    if real.checked.get("transactionsRoot"):
        transactions = prove.prove_transactions(raw_block(real.block), header, real.chain, deep=True)
        assert [each.hash.hex() for each in transactions] == [each["hash"][2:] for each in real.block["transactions"]]
        assert [each.sender.hex() for each in transactions] == [each["from"][2:] for each in real.block["transactions"]]
        for each, answer in zip(transactions, real.block["transactions"], strict=True):
            if answer.get("gasPrice") is not None:  # some sources leave it out
                assert each.gas_price == int(answer["gasPrice"], 16)
    if real.checked.get("receiptsRoot"):
        raw = decode_receipts(json.dumps(real.receipts).encode())
        for known in {None: None, "known": transactions}.values():
            receipts = prove.receipts_of(raw, header, real.chain, transactions=known)
            assert [each.gas_used for each in receipts] == [int(each["gasUsed"], 16) for each in real.receipts]
            assert sum(len(each.logs) for each in receipts) == sum(len(each["logs"]) for each in real.receipts)


def test_receipts_have_a_status_exactly_where_the_chain_has_one(real):
    if not real.checked.get("receiptsRoot"):
        return
    receipts = prove.receipts_of(decode_receipts(json.dumps(real.receipts).encode()), header_of(real), real.chain)
    early = real.number < real.chain.fork("byzantium")
    assert {each.succeeded is None for each in receipts} <= {early}


HASHED = ["parentHash", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "gasUsed", "timestamp"]


@pytest.mark.parametrize("name", HASHED)
def test_an_altered_header_is_refused(real, name):
    if not real.checked["hash"]:
        return
    text = real.block[name]
    altered = {**real.block, name: text[:-1] + ("0" if text[-1] != "0" else "1")}
    with pytest.raises(VerificationFailed):
        prove.prove_header(raw_block(altered), real.number, real.chain)


def test_an_invented_or_dropped_type_is_a_lie(real):
    """A node that gives a transaction another type, or none, contradicts the transaction's hash."""
    if not real.checked.get("transactionsRoot"):
        return
    header = header_of(real)
    for index, each in enumerate(real.block["transactions"]):
        kind = int(each.get("type") or "0x0", 16)
        for claimed in ("0x1", "0x5", "0x6b", None):
            if int(claimed or "0x0", 16) == kind:
                continue
            answer = copy.deepcopy(real.block)
            answer["transactions"][index]["type"] = claimed
            if claimed is None:
                del answer["transactions"][index]["type"]
            with pytest.raises(TraceError) as caught:
                prove.prove_transactions(raw_block(answer), header, real.chain)
            assert isinstance(caught.value, VerificationFailed), (claimed, caught.value)
        if index > 4:
            break


def test_a_form_of_another_family_is_unknown_there(real):
    """The same blocks under Ethereum's row: nothing false is proven, and special types are not called lies."""
    special = {int(each.get("type") or "0x0", 16) for each in real.block["transactions"]} - set(range(5))
    if not special or not real.checked["hash"]:
        return
    header = header_of(real)
    with pytest.raises(UnknownForm) as caught:
        prove.prove_transactions(raw_block(real.block), header, chain_of(20143))
    assert caught.value.part == "transactions"
    assert caught.value.kind in special
