"""One chain as the table of chains describes it: its forms, its finality, and what is left open.

A *form* is how a chain encodes what it hashes: the header, a transaction of a type, a receipt of a type. A proof needs
the form. Forms are decided by chain, never by a type's number alone: type 0x7e is one thing on OP Stack chains and
another on Scroll.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from trace_dagster.errors import Part

HeaderForm = Literal["ethereum", "avalanche", "aura", "celo", "scroll", "other"]
"""How the header is hashed. ``other``: the block's hash is not that of an RLP header, so no header can be proven."""

TransactionForm = Literal[
    "op_deposit",
    "arbitrum_deposit",
    "arbitrum_unsigned",
    "arbitrum_contract",
    "arbitrum_retry",
    "arbitrum_submit_retryable",
    "arbitrum_internal",
    "arbitrum_classic",
    "polygon_state_sync",
    "celo_fee_currency",
    "celo_fee_currency_gateway",
    "celo_fee_in_celo",
    "celo_legacy",
    "scroll_l1_message",
]
"""Forms of transactions beyond types 0 to 4, which every chain has."""

TimestampUnit = Literal["seconds", "milliseconds"]
"""The unit of a header's timestamp."""

RootFrame = Literal["as_sent", "as_sent_if_succeeded", "own", "optional"]
"""What a node's trace shows for a transaction of a form.

``as_sent``: a root frame with the transaction's target, value and input, and an error exactly if it failed.
``as_sent_if_succeeded``: the same for one that succeeded; a failed one may have been ended before its call.
``own``: a frame that nodes make up for it, of which only the existence is checked.
``optional``: the same, and some nodes leave it out at the end of the block.
"""

ROOT_FRAMES: Mapping[TransactionForm, RootFrame] = MappingProxyType(
    {
        "op_deposit": "as_sent_if_succeeded",
        "arbitrum_deposit": "own",
        "arbitrum_retry": "as_sent_if_succeeded",
        "arbitrum_submit_retryable": "own",
        "arbitrum_internal": "own",
        "arbitrum_classic": "optional",
        "polygon_state_sync": "optional",
        "scroll_l1_message": "as_sent_if_succeeded",
    }
)
"""Forms whose root frame is not always the transaction as it was sent."""

HeadTag = Literal["latest", "safe", "finalized"]
"""A block tag of JSON-RPC that names a head of a chain."""

HEAD_TAGS: tuple[HeadTag, ...] = ("latest", "safe", "finalized")

_FEES = ("gas_price", "max_fee_per_gas", "max_priority_fee_per_gas")

CLAIMED_COLUMNS: Mapping[TransactionForm, tuple[str, ...]] = MappingProxyType(
    {
        "op_deposit": ("nonce", *_FEES),
        "arbitrum_deposit": ("nonce", "gas_limit", *_FEES),
        "arbitrum_unsigned": _FEES,
        "arbitrum_contract": ("nonce", *_FEES),
        "arbitrum_retry": _FEES,
        "arbitrum_submit_retryable": ("nonce", *_FEES),
        "arbitrum_internal": ("nonce", "gas_limit", *_FEES),
        "arbitrum_classic": ("transaction_type", "gas_used", "success", *_FEES[1:]),
        "polygon_state_sync": ("from_address", "to_address", "nonce", "gas_limit", *_FEES),
        "celo_fee_currency": ("gas_price",),
        "celo_fee_currency_gateway": ("gas_price",),
        "celo_fee_in_celo": ("gas_price",),
        "scroll_l1_message": ("nonce", *_FEES),
    }
)
"""Columns of dataset ``transactions`` that the chain does not commit to in a transaction of a form."""

MOST_TYPES = 256
"""Transaction types are one byte. EIP-2718 leaves half of them unused; zkSync Era uses 0xff nevertheless."""

STANDARD_TYPES = range(5)
"""Transaction types that every chain may have: legacy, EIP-2930, EIP-1559, EIP-4844, EIP-7702."""

DEFAULT_FINALITY_BLOCKS = 1000
"""Depth at which a block of an unknown chain counts as final if its nodes have no ``finalized`` tag."""


class Form(NamedTuple):
    """The form of a part of a block: of its header, or of its transactions or receipts of one type."""

    part: Part
    kind: int | None = None
    """The transaction type; None for the header, or for all types."""

    def __str__(self) -> str:
        return self.part if self.kind is None else f"{self.part} of type {self.kind:#x}"


@dataclass(frozen=True, slots=True)
class Open:
    """What no commitment of a chain proves: a form, in some blocks, and the reason in one sentence."""

    form: Form
    reason: str
    first: int = 0
    end: int | None = None
    """The block after the last, or None if the era has not ended."""
    after_all: bool = False
    """Whether a node may know better: the level is lowered only after every endpoint of the pool was tried."""

    def holds(self, form: Form, block: int) -> bool:
        """Return whether this form is left open in this block."""
        fits = self.form == form or (self.form.kind is None and self.form.part == form.part)
        return fits and self.first <= block and (self.end is None or block < self.end)


@dataclass(frozen=True, slots=True)
class ChainContracts:
    """Contract addresses as 0x text; ``staking`` is None if the chain has no staking contract with events."""

    token: str
    token_name: str
    staking: str | None


@dataclass(frozen=True, slots=True)
class Chain:
    """One row of the table of chains. A chain that is not in the table gets what standard forms allow."""

    chain_id: int
    name: str
    header: HeaderForm = "ethereum"
    types: Mapping[int, TransactionForm] = field(default_factory=dict)
    """Forms of its transactions of other types than STANDARD_TYPES."""
    has_finalized_tag: bool = True
    """Whether its nodes know the block tag ``finalized``. A node without it is read by ``finality_blocks``."""
    finality_blocks: int = DEFAULT_FINALITY_BLOCKS
    """Depth at which a block counts as final where a node does not know the tag."""
    forks: Mapping[str, int] = field(default_factory=dict)
    """First block of forks that change a form, by name in lower case."""
    contracts: ChainContracts | None = None
    open: tuple[Open, ...] = ()
    """What is left open, although the chain is in the table."""
    notes: str = ""
    """One sentence for the page of supported chains."""
    burns_base_fee: bool = False
    """Whether the base fee leaves all balances. Other chains pay it to an address, or may do so."""
    has_system_senders: bool = False
    """Whether some nodes show transactions of the chain's own addresses in blocks, although they are in no root."""
    timestamp_unit: TimestampUnit = "seconds"
    """The unit of its headers' timestamps. Fractions of a second in other members are not read."""
    head_labels: tuple[str, ...] = HEAD_TAGS
    """The chain's own words for the blocks that HEAD_TAGS name, in that order."""
    is_listed: bool = True
    """False for a chain that is not in the table: any unknown form may lower the level there."""

    def head_label(self, tag: HeadTag) -> str:
        """Return the chain's own word for the block that a tag names."""
        return self.head_labels[HEAD_TAGS.index(tag)]

    def fork(self, name: str) -> int:
        """Return the first block of a fork; 0 if the table has no height for it."""
        return self.forks.get(name, 0)

    def has_form(self, form: TransactionForm) -> bool:
        """Return whether transactions of this form occur on the chain."""
        return form in self.types.values()

    def leaves_open(self, part: Part, block: int) -> bool:
        """Return whether a whole part of this block is open: then what it does not give is no contradiction."""
        found = self.open_form(Form(part), block)
        return found is not None and not found.after_all

    def open_form(self, form: Form, block: int) -> Open | None:
        """Return the row that leaves this form open in this block, or None."""
        return next((each for each in self.open if each.holds(form, block)), None)


@dataclass(slots=True)
class LearnedForms:
    """Forms that every endpoint of a pool showed and nobody could prove. They lower a level from then on.

    A form begins with a fork, so what was learned holds from that block on: an earlier block must be shown by every
    endpoint again. Thread-safe.
    """

    _first: dict[tuple[int, Form], int] = field(default_factory=dict)
    """The lowest block that showed a form, by chain id and form."""

    def add(self, chain_id: int, form: Form, block: int) -> None:
        """Record that every endpoint showed the form in a block of the chain."""
        self._first[chain_id, form] = min(block, self._first.get((chain_id, form), block))

    def has(self, chain_id: int, form: Form, block: int) -> bool:
        """Return whether the form was recorded for this block or an earlier one."""
        first = self._first.get((chain_id, form))
        return first is not None and block >= first


@dataclass(frozen=True, slots=True)
class Forms:
    """What a proof knows of a chain's forms: the chain's row, and what was learned from all endpoints of a pool."""

    chain: Chain
    learned: LearnedForms = field(default_factory=LearnedForms)
    learned_here: LearnedForms = field(default_factory=LearnedForms)
    """What was learned for one range alone, because some endpoints had no say."""

    def open_reason(self, form: Form, block: int) -> str | None:
        """Return why this form lowers the level in this block, or None if it must be proven or refused."""
        known = self.chain.open_form(form, block)
        if known is not None and not known.after_all:
            return known.reason
        learned = (self.learned, self.learned_here)
        is_learned = any(each.has(self.chain.chain_id, form, block) for each in learned)
        if not (is_learned and self.may_learn(form, block)):
            return None
        return known.reason if known is not None else f"this version does not know the form of the {form}"

    def may_learn(self, form: Form, block: int) -> bool:
        """Return whether the form may be left open once every endpoint of a pool has shown it."""
        known = self.chain.open_form(form, block)
        return not self.chain.is_listed or (known is not None and known.after_all)
