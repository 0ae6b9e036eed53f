"""What the rows of one piece are measured against: committed rows where there are some, else the node itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from trace_dagster.blocks import BlockRange
from trace_dagster.committed import Committed
from trace_dagster.errors import ForkConflict, Unavailable, UnknownFormat, VerificationFailed, WrongChain
from trace_dagster.rpc.client import Call, call_all, quantity
from trace_dagster.rpc.pools import Endpoint, variable_of
from trace_dagster.verify import prove, raw, tables
from trace_dagster.verify.check import needs
from trace_dagster.verify.evidence import Evidence, Header, Receipt, Transaction
from trace_dagster.verify.receipts import has_status
from trace_dagster.verify.tables import HEADER_COLUMNS, RECEIPT_COLUMNS, TRANSACTION_COLUMNS

SOURCES = ("blocks", "transactions")
"""Datasets whose committed rows serve as evidence."""

_TOKEN_TRANSFERS = ("erc20_transfers", "erc721_transfers")
"""They are read out of the receipts' logs; other datasets bring logs or need none."""


@dataclass(slots=True)
class _Parts:
    """The parts of an evidence, None where they are not known (yet)."""

    headers: Sequence[Header] | None = None
    transactions: Sequence[Sequence[Transaction]] | None = None
    receipts: Sequence[Sequence[Receipt]] | None = None


def is_provable(dataset: str) -> bool:
    """Whether anything of the chain can be held against the rows of a dataset."""
    wanted = needs(dataset)
    return wanted.headers or wanted.transactions or wanted.receipts


def most_calls(dataset: str, blocks: int) -> int:
    """JSON-RPC calls for the evidence of one piece where committed rows tell none of it, and nothing fails."""
    wanted = needs(dataset)
    per_block = (wanted.headers or wanted.transactions) + wanted.receipts
    return 1 + per_block * blocks if per_block else 0


class Witness:
    """Gathers the evidence for pieces of one dataset of one chain. Safe to use from several threads."""

    def __init__(self, dataset: str, chain_id: int, committed: Committed | None) -> None:
        self._dataset = dataset
        self._chain_id = chain_id
        self._committed = committed
        self._needs = needs(dataset)

    def gather(self, piece: BlockRange, endpoint: Endpoint, *, fresh: bool = False, deep: bool = False) -> Evidence:
        """The evidence for every block of ``piece``, each part proven as far as it can be.

        ``fresh`` asks the endpoint for all of it, ``deep`` recovers senders from their signatures.
        Raises VerificationFailed, Unavailable, WrongChain, UnknownFormat, or ForkConflict where the endpoint's
        headers are not the committed ones.
        """
        known = _Parts() if fresh else self._known(piece)
        asked = self._ask(piece, endpoint, known, deep=deep)
        if known.headers is not None and asked.headers is not None:
            self._require_same(piece, known.headers, asked.headers)
        parts = {name: getattr(asked, name) or getattr(known, name) for name in _Parts.__slots__}
        return Evidence(
            headers=parts["headers"] or (),
            transactions=parts["transactions"],
            receipts=parts["receipts"],
            source={
                name: "committed rows" if getattr(asked, name) is None else "rpc"
                for name, part in parts.items()
                if part is not None
            },
        )

    def stored(self, piece: BlockRange) -> Evidence | None:
        """The evidence committed rows give alone; None when they do not tell the headers."""
        known = self._known(piece)
        if known.headers is None:
            return None
        return Evidence(known.headers, known.transactions, known.receipts)

    def knows(self, piece: BlockRange) -> bool:
        """Whether committed rows tell anything about ``piece``."""
        known = self._known(piece)
        return any(getattr(known, name) is not None for name in _Parts.__slots__)

    def require_one_chain(self, piece: BlockRange, fresh: Evidence) -> None:
        """Raises ForkConflict when the committed headers of ``piece`` are not these."""
        known = self._known(piece)
        if known.headers is not None:
            self._require_same(piece, known.headers, fresh.headers)

    def _known(self, piece: BlockRange) -> _Parts:
        """What committed rows tell; nothing where somebody altered them: the node is asked then."""
        parts = _Parts()
        if self._committed is not None:
            with suppress(VerificationFailed, UnknownFormat):
                self._fill(parts, piece, self._committed)
        return parts

    def _fill(self, parts: _Parts, piece: BlockRange, committed: Committed) -> None:
        if self._needs.headers and self._dataset != "blocks":
            rows = committed.table("blocks", piece, HEADER_COLUMNS)
            parts.headers = tables.headers_of(rows, piece) if rows is not None else None
        if self._dataset == "transactions":
            return
        if self._needs.receipts and self._dataset not in _TOKEN_TRANSFERS and has_status(self._chain_id, piece):
            rows = committed.table("transactions", piece, RECEIPT_COLUMNS)
            parts.receipts = tables.receipts_of_tables(rows, None, piece) if rows is not None else None
        if self._needs.transactions:
            rows = committed.table("transactions", piece, TRANSACTION_COLUMNS)
            parts.transactions = tables.transactions_of(rows, piece) if rows is not None else None

    def _ask(self, piece: BlockRange, endpoint: Endpoint, known: _Parts, *, deep: bool) -> _Parts:
        """Ask the node for what is not known, batched, and prove it."""
        full = self._needs.transactions and known.transactions is None
        wants_blocks = full or (self._needs.headers and known.headers is None)
        wants_receipts = self._needs.receipts and known.receipts is None
        numbers = range(piece.start, piece.end)
        blocks: list[Call] = [("eth_getBlockByNumber", [hex(n), full]) for n in numbers] if wants_blocks else []
        receipts: list[Call] = [("eth_getBlockReceipts", [hex(n)]) for n in numbers] if wants_receipts else []
        if not blocks and not receipts:
            return _Parts()
        chain, *answers = call_all(endpoint, [("eth_chainId", []), *blocks, *receipts])
        self._require_chain(endpoint, chain)
        if any(bytes(answer) == b"null" for answer in answers):
            raise Unavailable(f"rpc endpoint {endpoint.name} does not have a block of this range", range=piece)
        parts = _Parts()
        if blocks:
            _read_blocks(parts, answers[: len(blocks)], piece, full=full, deep=deep)
        headers = parts.headers or known.headers or ()
        if receipts:
            pairs = zip(answers[len(blocks) :], headers, strict=True)
            parts.receipts = [self._receipts(answer, header) for answer, header in pairs]
        return parts

    def _receipts(self, answer: msgspec.Raw, header: Header) -> list[Receipt]:
        """Proven here, unless the rows themselves are part of what gives the root: then that is proven once."""
        match self._dataset:
            case "logs":
                return prove.claimed_receipts(raw.decode_outcomes(answer), header.number)
            case "transactions":
                return prove.claimed_receipts(raw.decode_receipts(answer), header.number)
        return prove.receipts_of(raw.decode_receipts(answer), header)

    def _require_chain(self, endpoint: Endpoint, answer: msgspec.Raw) -> None:
        try:
            found = quantity(msgspec.json.decode(answer))
        except msgspec.DecodeError:
            raise VerificationFailed("the node's chain id is not a quantity") from None
        if found != self._chain_id:
            raise WrongChain(
                f"rpc endpoint {endpoint.name} serves chain {found} now, the job is of chain {self._chain_id}:"
                f" correct {variable_of(endpoint.pool)}"
            )

    def _require_same(self, piece: BlockRange, committed: Sequence[Header], found: Sequence[Header]) -> None:
        for old, new in zip(committed, found, strict=True):
            if old.hash != new.hash:
                assert self._committed is not None
                raise ForkConflict(
                    "the node shows another block than the one that is committed",
                    block=old.number,
                    committed=old.hash,
                    found=new.hash,
                    versions=tuple(self._committed.versions("blocks", piece, HEADER_COLUMNS)),
                )


def _read_blocks(parts: _Parts, answers: Sequence[msgspec.Raw], piece: BlockRange, *, full: bool, deep: bool) -> None:
    """Headers, linked to one another, and transactions where whole blocks were asked for."""
    numbers = range(piece.start, piece.end)
    if full:
        whole = [raw.decode_block(answer, full=True) for answer in answers]
        parts.headers = [prove.prove_header(block, n) for block, n in zip(whole, numbers, strict=True)]
        pairs = zip(whole, parts.headers, strict=True)
        parts.transactions = [prove.prove_transactions(block, header, deep=deep) for block, header in pairs]
    else:
        thin = [raw.decode_block(answer, full=False) for answer in answers]
        parts.headers = [prove.prove_header(block, n) for block, n in zip(thin, numbers, strict=True)]
    prove.link(parts.headers, None)
