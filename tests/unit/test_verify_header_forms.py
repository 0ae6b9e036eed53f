"""Headers of every form, encoded here a second time with the `rlp` package."""

import json

import pytest
import rlp

from trace_dagster.datasets.chain import Chain
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import UnknownForm, VerificationFailed
from trace_dagster.verify.commitments.keccak import keccak
from trace_dagster.verify.commitments.prove import claimed_header, prove_header
from trace_dagster.verify.commitments.rpc_json import decode_block

FIRST = {
    "parentHash": b"\x01" * 32, "sha3Uncles": b"\x02" * 32, "miner": b"\x22" * 20, "stateRoot": b"\x03" * 32,
    "transactionsRoot": b"\x04" * 32, "receiptsRoot": b"\x05" * 32, "logsBloom": b"\x06" * 256, "difficulty": 2**40,
    "number": 7, "gasLimit": 40, "gasUsed": 30, "timestamp": 99, "extraData": b"extra",
}  # fmt: skip
WORK = {"mixHash": b"\x08" * 32, "nonce": b"\x09" * 8}
CANCUN = {
    "baseFeePerGas": 11, "withdrawalsRoot": b"\x0a" * 32, "blobGasUsed": 1, "excessBlobGas": 13,
    "parentBeaconBlockRoot": b"\x0b" * 32,
}  # fmt: skip
AMSTERDAM = {**CANCUN, "requestsHash": b"\x0c" * 32, "blockAccessListHash": b"\x0d" * 32, "slotNumber": 14}
AVALANCHE = {
    "extDataHash": b"\x0e" * 32, "baseFeePerGas": 11, "extDataGasUsed": 12, "blockGasCost": 0, "blobGasUsed": 0,
    "excessBlobGas": 0, "parentBeaconBlockRoot": b"\x0b" * 32, "timestampMilliseconds": 99_001, "minDelayExcess": 5,
    "targetExponent": 6, "minPriceExponent": 7, "settledHeight": 3, "settledGasUnix": 4, "settledGasNumerator": 5,
    "settledExcess": 6,
}  # fmt: skip
SIGNATURE = b"\x77" * 65


def said(value):
    return hex(value) if isinstance(value, int) else "0x" + value.hex()


def answer(hashed, shown=None, **more):
    """Return the JSON of a block whose hash covers the values of ``hashed``; ``shown`` are the members it shows."""
    members = {name: said(value) for name, value in (hashed if shown is None else shown).items()}
    return {**members, "hash": said(keccak(rlp.encode(list(hashed.values())))), "transactions": [], **more}


def prove(given, chain, number=7):
    return prove_header(decode_block(json.dumps(given).encode(), full=True), number, chain)


def up_to(fields, last):
    names = list(fields)
    return {name: fields[name] for name in names[: names.index(last) + 1]}


@pytest.mark.parametrize("last", AMSTERDAM)
def test_ethereums_header_up_to_amsterdam(last):
    given = answer({**FIRST, **WORK, **up_to(AMSTERDAM, last)})
    assert prove(given, chain_of(1)).base_fee_per_gas == 11
    for name in up_to(AMSTERDAM, last):
        with pytest.raises(VerificationFailed):
            prove({key: value for key, value in given.items() if key != name}, chain_of(1))


@pytest.mark.parametrize("last", AVALANCHE)
def test_avalanches_header_up_to_each_of_its_fields(last):
    avalanche = chain_of(43114)
    given = answer({**FIRST, **WORK, **up_to(AVALANCHE, last)})
    assert prove(given, avalanche).is_proven
    assert prove(given, Chain(987654, "a chain of Avalanche's code", is_listed=False)).is_proven
    with pytest.raises(VerificationFailed):
        prove({**given, "extDataHash": said(b"\x0f" * 32)}, avalanche)
    with pytest.raises(VerificationFailed):
        prove({key: value for key, value in given.items() if key != "extDataHash"}, avalanche)


def test_a_gap_in_avalanches_header_is_an_empty_item_but_none_in_ethereums():
    hashed = {**FIRST, **WORK, **up_to(AVALANCHE, "timestampMilliseconds")}
    gap = {**hashed, "blobGasUsed": b"", "excessBlobGas": b"", "parentBeaconBlockRoot": b""}
    shown = {name: value for name, value in gap.items() if value != b""}
    assert prove(answer(gap, shown), chain_of(43114)).is_proven
    without_fee = {name: value for name, value in shown.items() if name != "baseFeePerGas"}
    with pytest.raises(VerificationFailed, match="lacks a field that later ones need"):
        prove(answer({**gap, "baseFeePerGas": b""}, without_fee), chain_of(43114))
    ethereum = {**FIRST, **WORK, **CANCUN, "withdrawalsRoot": b""}
    shown = {name: value for name, value in ethereum.items() if value != b""}
    with pytest.raises(VerificationFailed, match="lacks a field that later ones need"):
        prove(answer(ethereum, shown), chain_of(1))


def sealed(step=8, **fee):
    return {**FIRST, "step": step, "signature": SIGNATURE, **fee}


def as_nethermind(hashed):
    return {**answer(hashed), "step": hashed["step"]}


def as_nethermind_in_hex(hashed):
    return answer(hashed)


def as_erigon(hashed):
    shown = {name: value for name, value in hashed.items() if name not in ("step", "signature")}
    seal = {"auraStep": hex(hashed["step"]), "auraSeal": said(SIGNATURE)}
    return {**answer(hashed, shown), **seal, "mixHash": said(bytes(32)), "nonce": said(bytes(8))}


def as_openethereum(hashed):
    shown = {name: value for name, value in hashed.items() if name not in ("step", "signature")}
    return {**answer(hashed, shown), "sealFields": [said(rlp.encode(hashed["step"])), said(rlp.encode(SIGNATURE))]}


SHOWN = [as_nethermind, as_nethermind_in_hex, as_erigon, as_openethereum]


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("step", [0, 5, 127, 128, 344_642_158, 2**40])
def test_the_seal_of_an_aura_header_as_each_client_shows_it(shown, step):
    for fee in ({}, {"baseFeePerGas": 7}):
        given = shown(sealed(step, **fee))
        for chain in (chain_of(100), Chain(987654, "another chain of AuRa", is_listed=False)):
            assert prove(given, chain).hash.hex() == given["hash"][2:]


@pytest.mark.parametrize("shown", SHOWN)
def test_a_wrong_seal_is_refused(shown):
    given = shown(sealed(baseFeePerGas=7))
    for name in ("signature", "auraSeal", "step", "auraStep", "sealFields"):
        for wrong in ("0x05", None, [], 5, True, "0xzz", ["0x05"], [None, None], ["0x05", "0x05"], -1, 10**30):
            if name in given:
                with pytest.raises(VerificationFailed):
                    prove({**given, name: wrong}, chain_of(100))


def test_openethereums_seal_fields_cannot_hide_further_fields():
    """Two items in one of them would take the place of the base fee, which the header then seems not to have."""
    given = as_openethereum(sealed(baseFeePerGas=7))
    step, signature = given["sealFields"]
    hidden = {**given, "sealFields": [step, signature + "07"]}
    del hidden["baseFeePerGas"]
    with pytest.raises(VerificationFailed, match="seal is not an AuRa step and signature"):
        prove(hidden, chain_of(100))


def test_after_the_merge_gnosis_has_the_standard_header():
    assert prove(answer({**FIRST, **WORK, **CANCUN}), chain_of(100)).is_proven


def test_celos_header_before_gingerbread():
    names = ["parentHash", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "number", "gasUsed",
             "timestamp", "extraData"]  # fmt: skip
    last = 21_615_999
    hashed = {**{name: FIRST[name] for name in names}, "number": last}
    given = answer(hashed)
    assert prove(given, chain_of(42220), last).is_proven
    assert prove({**given, "baseFeePerGas": "0x5", "gasLimit": "0x5"}, chain_of(42220), last).is_proven
    with pytest.raises(VerificationFailed):
        prove({**given, "gasUsed": "0x5"}, chain_of(42220), last)
    after = answer({**FIRST, **WORK, **CANCUN, "number": last + 1})
    assert prove(after, chain_of(42220), last + 1).is_proven
    with pytest.raises(VerificationFailed):
        prove(answer({**hashed, "number": last + 1}), chain_of(42220), last + 1)


def test_scrolls_hash_leaves_out_the_extra_data_since_euclid_v2():
    hashed, shown = {**FIRST, **WORK, "extraData": b""}, {**FIRST, **WORK}
    assert prove(answer(hashed, shown), chain_of(534352)).extra_data == b"extra"
    assert prove(answer(shown), chain_of(534352)).is_proven
    with pytest.raises(VerificationFailed):
        prove(answer(hashed, shown), chain_of(1))


@pytest.mark.parametrize("chain_id", [10, 42161, 56, 146, 137, 999])
def test_roots_and_counts_go_into_the_hash_as_given(chain_id):
    given = answer({**FIRST, **WORK, **CANCUN, "requestsHash": b"\x0c" * 32, "blobGasUsed": 2**40}, epoch="0x5")
    extra = {"l1BlockNumber": "0x1", "totalDifficulty": 5, "timestampNano": "0x1", "sendRoot": None, "size": []}
    assert prove({**given, **extra}, chain_of(chain_id)).is_proven


def test_a_header_that_does_not_come_out_is_a_lie_unless_it_has_members_nobody_knows():
    given = {**answer({**FIRST, **WORK, **CANCUN}), "gasUsed": "0x1f", "epoch": "0x1", "l1BlockNumber": "0x1"}
    for chain in (chain_of(1), Chain(987654, "unlisted", is_listed=False)):
        with pytest.raises(VerificationFailed, match="does not give the block's hash"):
            prove(given, chain)
        with pytest.raises(UnknownForm, match="members=newRoot") as caught:
            prove({**given, "newRoot": "0x1"}, chain)
        assert (caught.value.part, caught.value.kind, caught.value.block) == ("header", None, 7)


def test_a_chain_whose_hash_is_not_that_of_a_header_claims_it():
    given = {**answer({**FIRST, **WORK}), "hash": said(b"\x0f" * 32)}
    with pytest.raises(UnknownForm) as caught:
        prove(given, chain_of(324))
    assert caught.value.part == "header"
    found = claimed_header(decode_block(json.dumps(given).encode(), full=True), 7)
    assert (found.is_proven, found.hash, found.gas_used) == (False, b"\x0f" * 32, 30)
    with pytest.raises(VerificationFailed, match="another block"):
        claimed_header(decode_block(json.dumps(given).encode(), full=True), 8)


@pytest.mark.parametrize("name", ["sha3Uncles", "difficulty", "gasLimit", "mixHash", "nonce"])
def test_a_missing_member_is_a_form_on_a_chain_that_nobody_listed_and_a_lie_elsewhere(name):
    given = {key: value for key, value in answer({**FIRST, **WORK}).items() if key != name}
    with pytest.raises(UnknownForm, match="lacks members"):
        prove(given, Chain(987654, "unlisted", is_listed=False))
    with pytest.raises(VerificationFailed):
        prove(given, chain_of(1))
