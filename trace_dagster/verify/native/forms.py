"""Tables of forms: which members the compiled proof reads, and how each form of a header or transaction hashes them.

Members are numbered by their position in the tuples of names. ``accepted`` turns a chain's row into two arguments of
the compiled code: the form of its header, and for each transaction type its form. Forms that are not here are left to
Python.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trace_dagster.datasets.chain import STANDARD_TYPES, Chain, HeaderForm, TransactionForm

HEADER = (
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty",
    "number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas", "withdrawalsRoot",
    "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash", "blockAccessListHash", "slotNumber",
    "hash", "transactions", "extDataHash", "extDataGasUsed", "blockGasCost", "timestampMilliseconds", "minDelayExcess",
)  # fmt: skip
TRANSACTION = (
    "type", "chainId", "nonce", "gasPrice", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "input",
    "accessList", "maxFeePerBlobGas", "blobVersionedHashes", "authorizationList", "yParity", "v", "r", "s", "hash",
    "from", "sourceHash", "mint", "isSystemTx", "requestId", "ticketId", "refundTo", "maxRefund",
    "submissionFeeRefund", "l1BaseFee", "depositValue", "retryTo", "retryValue", "beneficiary", "maxSubmissionFee",
    "retryData",
)  # fmt: skip
ACCESS = ("address", "storageKeys")
AUTHORIZATION = ("chainId", "address", "nonce", "yParity", "v", "r", "s")
RECEIPT = (
    "type", "status", "cumulativeGasUsed", "transactionHash", "logs", "depositNonce", "depositReceiptVersion",
)  # fmt: skip
LOG = ("address", "topics", "data")

NUMBER, ANY_BYTES = 0, -1
NUMBER_OR_NONE, ADDRESS_OR_NONE, FLAG, ACCESSES, HASHES, AUTHORIZATIONS = -2, -3, -4, -5, -6, -7
"""Encodings of a member. A positive one is bytes of that size."""
_ENCODINGS = {
    "parentHash": 32, "sha3Uncles": 32, "miner": 20, "stateRoot": 32, "transactionsRoot": 32, "receiptsRoot": 32,
    "logsBloom": 256, "extraData": ANY_BYTES, "mixHash": 32, "withdrawalsRoot": 32, "parentBeaconBlockRoot": 32,
    "requestsHash": 32, "blockAccessListHash": 32, "extDataHash": 32,
    "to": ADDRESS_OR_NONE, "input": ANY_BYTES, "accessList": ACCESSES, "blobVersionedHashes": HASHES,
    "authorizationList": AUTHORIZATIONS, "from": 20, "sourceHash": 32, "mint": NUMBER_OR_NONE, "isSystemTx": FLAG,
    "requestId": 32, "ticketId": 32, "refundTo": 20, "retryTo": ADDRESS_OR_NONE, "beneficiary": 20,
    "retryData": ANY_BYTES,
}  # fmt: skip
"""Members that are not numbers. ``nonce`` is 8 bytes in a header and a number in a transaction."""
HEADER_ENCODINGS = np.array([{**_ENCODINGS, "nonce": 8}.get(name, NUMBER) for name in HEADER], np.int64)
TRANSACTION_ENCODINGS = np.array([_ENCODINGS.get(name, NUMBER) for name in TRANSACTION], np.int64)

NO_MEMBER = -1
_INSTEAD = {"yParity": "v", "maxFeePerGas": "gasPrice"}
"""Members that nodes may show under another name."""
INSTEAD = np.array([TRANSACTION.index(_INSTEAD.get(name, name)) for name in TRANSACTION], np.int64)


def _table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> NDArray[np.int64]:
    """Return a row of member numbers per form, filled up with NO_MEMBER."""
    longest = max(map(len, rows)) + 1
    numbers = [[names.index(name) for name in row] for row in rows]
    return np.array([[*row, *[NO_MEMBER] * (longest - len(row))] for row in numbers], np.int64)


_TO_NONCE = HEADER[: HEADER.index("nonce") + 1]
_APPENDED = HEADER[len(_TO_NONCE) : HEADER.index("hash")]
_AVALANCHE_APPENDED = (
    "baseFeePerGas", "extDataGasUsed", "blockGasCost", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot",
    "timestampMilliseconds", "minDelayExcess",
)  # fmt: skip
_HEADER_FORMS: dict[HeaderForm, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ethereum": (_TO_NONCE, _APPENDED),
    "avalanche": ((*_TO_NONCE, "extDataHash"), _AVALANCHE_APPENDED),
    "aura": (_TO_NONCE, _APPENDED),
    "celo": (_TO_NONCE, _APPENDED),
    "scroll": (_TO_NONCE, _APPENDED),
}
"""Hashed members of each header form, in order: those that every block has, and those that forks appended.

The last three chains have blocks in Ethereum's form; their own forms have other fields, and are left to Python.
"""
HEADER_FORMS = _table(HEADER, [always + later for always, later in _HEADER_FORMS.values()])
HEADER_ALWAYS = np.array([len(always) for always, _ in _HEADER_FORMS.values()], np.int64)

PRICED, CAPPED, CAPPED_OR_BASE, CLAIMED = range(4)
"""How a form names its price.

PRICED is a hashed ``gasPrice``; CAPPED are fee caps and a base fee (EIP-1559). CAPPED_OR_BASE is the same, but some of
Arbitrum's nodes show the base fee alone, which is then the price. CLAIMED hashes no price: it is what the node says.
"""
ANY_CALL, HAS_NONCE, ARBOS_CALL, NO_INPUT, SUBMISSION = range(5)
"""What members that a form does not hash must be: anything; a nonce, although it is not hashed; those of Arbitrum's own
call (from ArbOS to itself, without value); no input, but a target; the call that its nodes show for a submitted
retryable, whose input is made of the hashed members.
"""
ARBOS_ADDRESS = np.array([*bytes(17), 0x0A, 0x4B, 0x05], np.uint8)
RETRYABLES_ADDRESS = np.array([*bytes(19), 0x6E], np.uint8)
SUBMIT_SELECTOR = np.array([0xC9, 0xF9, 0x5D, 0x32], np.uint8)
SUBMIT_WORDS = np.array(
    [
        TRANSACTION.index(name)
        for name in (
            "requestId", "l1BaseFee", "depositValue", "retryValue", "maxFeePerGas", "gas", "maxSubmissionFee",
            "refundTo", "beneficiary", "retryTo",
        )
    ],
    np.int64,
)  # fmt: skip
"""The arguments of a submitted retryable's call, in order, before ``retryData``."""


class _Form(NamedTuple):
    price: int
    members: tuple[str, ...]
    unhashed: int = ANY_CALL


_CALL = ("gas", "to", "value", "input")
_FEES = ("maxPriorityFeePerGas", "maxFeePerGas", *_CALL, "accessList")
_SIGNED = ("yParity", "r", "s")
_STANDARD = (
    _Form(PRICED, ("nonce", "gasPrice", *_CALL, "v", "r", "s")),
    _Form(PRICED, ("chainId", "nonce", "gasPrice", *_CALL, "accessList", *_SIGNED)),
    _Form(CAPPED, ("chainId", "nonce", *_FEES, *_SIGNED)),
    _Form(CAPPED, ("chainId", "nonce", *_FEES, "maxFeePerBlobGas", "blobVersionedHashes", *_SIGNED)),
    _Form(CAPPED, ("chainId", "nonce", *_FEES, "authorizationList", *_SIGNED)),
)
"""Types 0 to 4: EIP-155, 2930, 1559, 4844, 7702."""
_ON_ARBITRUM = tuple(form._replace(price=CAPPED_OR_BASE) if form.price == CAPPED else form for form in _STANDARD)
_CALL_WITH_CAP = ("maxFeePerGas", *_CALL)
_SUBMITTED = (
    "chainId", "requestId", "from", "l1BaseFee", "depositValue", "maxFeePerGas", "gas", "retryTo", "retryValue",
    "beneficiary", "maxSubmissionFee", "refundTo", "retryData",
)  # fmt: skip
_OTHERS: dict[TransactionForm, _Form] = {
    "op_deposit": _Form(
        CLAIMED, ("sourceHash", "from", "to", "mint", "value", "gas", "isSystemTx", "input"), HAS_NONCE
    ),
    "arbitrum_deposit": _Form(CLAIMED, ("chainId", "requestId", "from", "to", "value"), NO_INPUT),
    "arbitrum_unsigned": _Form(CLAIMED, ("chainId", "from", "nonce", *_CALL_WITH_CAP)),
    "arbitrum_contract": _Form(CLAIMED, ("chainId", "requestId", "from", *_CALL_WITH_CAP)),
    "arbitrum_retry": _Form(
        CLAIMED,
        ("chainId", "nonce", "from", *_CALL_WITH_CAP, "ticketId", "refundTo", "maxRefund", "submissionFeeRefund"),
    ),
    "arbitrum_submit_retryable": _Form(CLAIMED, _SUBMITTED, SUBMISSION),
    "arbitrum_internal": _Form(CLAIMED, ("chainId", "input"), ARBOS_CALL),
}
_TRANSACTION_FORMS = (*_STANDARD, *_ON_ARBITRUM, *_OTHERS.values())
_NUMBERS = {name: len(_STANDARD) + len(_ON_ARBITRUM) + place for place, name in enumerate(_OTHERS)}
TRANSACTION_FORMS = _table(TRANSACTION, [form.members for form in _TRANSACTION_FORMS])
"""The hashed members of each form, in order."""
PRICES = np.array([form.price for form in _TRANSACTION_FORMS], np.int64)
UNHASHED = np.array([form.unhashed for form in _TRANSACTION_FORMS], np.int64)
OP_DEPOSIT = _NUMBERS["op_deposit"]
NOT_ACCEPTED = -1
KINDS = 256
"""A transaction type is one byte."""


class Accepted(NamedTuple):
    """The forms of one chain: the row of its header form, and for each transaction type the row of its form."""

    header: int
    forms: NDArray[np.int64]


def accepted(chain: Chain, first: int) -> Accepted | None:
    """Return what the compiled code accepts of a chain's blocks from ``first`` on.

    None if it does not know the form of the header, or if the blocks are of an era with other forms: before Byzantium
    (receipts with state roots), and before Nitro on Arbitrum.
    """
    types = chain.types.values()
    since = max(chain.fork("byzantium"), chain.fork("nitro") if "arbitrum_classic" in types else 0)
    if chain.header not in _HEADER_FORMS or first < since:
        return None
    forms = np.full(KINDS, NOT_ACCEPTED, np.int64)
    forms[STANDARD_TYPES] = np.array(STANDARD_TYPES) + (len(_STANDARD) if "arbitrum_internal" in types else 0)
    for kind, form in chain.types.items():
        forms[kind] = _NUMBERS.get(form, NOT_ACCEPTED)
    return Accepted(list(_HEADER_FORMS).index(chain.header), forms)
