"""Evidence from a node: its own headers, transactions and receipts, proven before they are used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import Chain, Form
from trace_dagster.errors import Part, Unavailable, UnknownForm, VerificationFailed, WrongChain
from trace_dagster.evidence.claimed_sizes import with_sizes
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.rpc.block_receipts import call_with_receipts
from trace_dagster.rpc.client import Call, call_all, quantity
from trace_dagster.rpc.pools import Endpoint, variable_of
from trace_dagster.rpc.provider_errors import MethodLacked
from trace_dagster.verify.check import EvidenceNeeds
from trace_dagster.verify.commitments import prove, rpc_json
from trace_dagster.verify.commitments.hex import data
from trace_dagster.verify.commitments.rpc_json import RawFullBlock, RawHeader, RawReceipt, RawReceiptWithoutLogs
from trace_dagster.verify.fast_path import prove_compiled
from trace_dagster.verify.model import Header, Receipt, Transaction

_HEADER_BYTES = 1200
"""Memory of one header: its hashes, its bloom, and Python's objects for them."""

_PROVEN_BY_ROWS = frozenset({"logs", "transactions"})
"""Datasets whose rows are part of what gives the receipts root: the comparison with the rows proves it."""

NULL = memoryview(b"null")
_NO_RECEIPTS = msgspec.Raw(b"[]")


class NodeSource:
    """Answers with what one endpoint shows of a chain. Every answer is proven as far as the chain's commitments go.

    A part of a block whose form is not known is left open, with the error: who needs the part decides what that means.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        chain: Chain,
        dataset_name: str | None,
        *,
        deep: bool = False,
        checks_chain: bool = True,
    ) -> None:
        """``dataset_name`` is the dataset that the evidence is for, or None for several; ``deep`` recovers senders.
        ``checks_chain`` is False if the caller has just compared the endpoint's chain id.

        A single dataset whose rows are part of what gives the receipts root gets its receipts as the node claims them:
        the root is then proven when the rows are compared.
        """
        self.endpoint = endpoint
        self.chain = chain
        self._dataset_name = dataset_name
        self._deep = deep
        self._checks_chain = checks_chain

    def parts(self, piece: BlockRange, needs: EvidenceNeeds, headers: Sequence[Header] | None = None) -> EvidenceParts:
        """Fetch what is needed in batches, and prove it; ``headers`` are those of the piece, if they are known.

        Raises VerificationFailed, WrongChain, or Unavailable if the endpoint lacks a block.
        """
        numbers = range(piece.start, piece.end)
        full = needs.transactions
        blocks: list[Call] = [("eth_getBlockByNumber", [hex(n), full]) for n in numbers] if needs.headers else []
        receipts = numbers if needs.receipts else ()
        if not blocks and not receipts:
            return EvidenceParts()
        answers = self._answers(blocks, receipts)
        shown, told = answers[: len(blocks)], answers[len(blocks) :]
        if any(memoryview(answer) == NULL for answer in shown):
            raise lacks(self.endpoint, piece)
        in_columns = full and receipts and not self._deep
        if in_columns and (found := self._in_columns([*shown, *_some(told)], piece, needs)) is not None:
            return found
        parts = EvidenceParts(weight=sum(memoryview(answer).nbytes for answer in answers))
        if blocks:
            self._read_blocks(parts, shown, piece, full=full)
            if needs.sizes and parts.headers is not None:
                parts.headers = with_sizes(parts.headers, shown)
        if receipts:
            known = parts.headers or headers or ()
            known_transactions: Sequence[Sequence[Transaction] | None] = parts.transactions or [None] * len(known)
            given = zip(told, known, known_transactions, strict=True)
            parts.receipts = [self._receipts(parts, *each) for each in given]
            if self._dataset_name is None:
                parts.proven = [
                    None if parts.is_open("receipts", header.number) else list(prove.receipt_fields(inside))
                    for header, inside in zip(known, parts.receipts, strict=True)
                ]
        return parts

    def _answers(self, blocks: Sequence[Call], receipts: Sequence[int]) -> list[msgspec.Raw]:
        if not self._checks_chain:
            return call_with_receipts(self.endpoint, blocks, receipts)
        chain_id, *answers = call_with_receipts(self.endpoint, [("eth_chainId", []), *blocks], receipts)
        require_chain(self.endpoint, self.chain, chain_id)
        return answers

    def _read_blocks(
        self, parts: EvidenceParts, answers: Sequence[msgspec.Raw], piece: BlockRange, *, full: bool
    ) -> None:
        """Decode and prove blocks: set the headers, and the transactions if whole blocks were fetched (``full``)."""
        whole = [rpc_json.decode_block(answer, full=True) for answer in answers] if full else []
        blocks: Sequence[RawHeader] = whole or [rpc_json.decode_block(answer, full=False) for answer in answers]
        numbers = range(piece.start, piece.end)
        parts.headers = [self._header(parts, block, n) for block, n in zip(blocks, numbers, strict=True)]
        prove.require_linked(parts.headers, None)
        if full:
            raw_bytes = self._raw_bytes(whole, parts.headers)
            given = zip(whole, parts.headers, raw_bytes, strict=True)
            parts.transactions = [self._transactions(parts, *each) for each in given]

    def _header(self, parts: EvidenceParts, raw: RawHeader, number: int) -> Header:
        try:
            return prove.prove_header(raw, number, self.chain)
        except UnknownForm as unknown:
            parts.leave_open(unknown)
            return prove.claimed_header(raw, number)

    def _raw_bytes(self, blocks: Sequence[RawFullBlock], headers: Sequence[Header]) -> list[dict[int, bytes]]:
        """Fetch the encodings of the transactions whose JSON lacks fields that are hashed; by index, for each block."""
        wanted = [
            (place, index)
            for place, (block, header) in enumerate(zip(blocks, headers, strict=True))
            for index in prove.raw_needed(block, header, self.chain)
        ]
        found: list[dict[int, bytes]] = [{} for _ in blocks]
        if not wanted:
            return found
        calls: list[Call] = [
            ("eth_getRawTransactionByBlockNumberAndIndex", [hex(headers[place].number), hex(index)])
            for place, index in wanted
        ]
        try:
            answers = call_all(self.endpoint, calls)
        except MethodLacked:  # the proof says which transactions it leaves open
            return found
        for (place, index), answer in zip(wanted, answers, strict=True):
            given = b"" if memoryview(answer) == NULL else data(_text(answer), headers[place].number)
            if given:  # nodes answer null or "0x" if they do not have it
                found[place][index] = given
        return found

    def _transactions(
        self, parts: EvidenceParts, raw: RawFullBlock, header: Header, raw_bytes: dict[int, bytes]
    ) -> list[Transaction]:
        """Return a block's proven transactions, or none if their form is not known."""
        if not self._is_left_open(parts, "transactions", header):
            with _open_if_unknown(parts, "transactions", header):
                return prove.prove_transactions(raw, header, self.chain, deep=self._deep, raw_bytes=raw_bytes)
        return []

    def _receipts(
        self,
        parts: EvidenceParts,
        answer: msgspec.Raw,
        header: Header,
        transactions: Sequence[Transaction] | None,
    ) -> list[Receipt]:
        """Return a block's receipts. Prove them, unless the comparison with the dataset's rows proves them later.

        If their form is not known, they are returned as the node claims them.
        """
        if memoryview(answer) == NULL:  # right for a block without transactions, as some nodes answer
            if not prove.has_no_receipts(header):
                raise lacks(self.endpoint, BlockRange(header.number, header.number + 1))
            answer = _NO_RECEIPTS
        if not self._is_left_open(parts, "receipts", header):
            with _open_if_unknown(parts, "receipts", header):
                is_known = transactions is not None and not parts.is_open("transactions", header.number)
                if (kind := self._open_kind(parts, header)) is not None:
                    return self._receipts_with(kind, answer, header)
                found = self._known_receipts(answer, header, transactions if is_known else None)
                if is_known:
                    self._require_same_outside(transactions or (), found, header)
                return found
        return prove.unproven_receipts(rpc_json.decode_receipts(answer), header, self.chain)

    def _known_receipts(
        self, answer: msgspec.Raw, header: Header, transactions: Sequence[Transaction] | None
    ) -> list[Receipt]:
        try:
            if self._dataset_name in _PROVEN_BY_ROWS:
                rows_prove = self._undemanding(answer)
                claimed = prove.claimed_receipts(rows_prove, header, self.chain, transactions=transactions)
                has_types = transactions is not None or all(each.type is not None for each in rows_prove)
                if has_types and all(each.form != "unknown" for each in claimed):
                    return claimed
            return self._proven_receipts(rpc_json.decode_receipts(answer), header, transactions)
        except UnknownForm as unknown:
            self._confirm(unknown, header)
            raise

    def _proven_receipts(
        self, raw: Sequence[RawReceipt], header: Header, transactions: Sequence[Transaction] | None
    ) -> list[Receipt]:
        """Return proven receipts. Where a node leaves out their types, the block's transactions tell them."""
        try:
            return prove.receipts_of(raw, header, self.chain, transactions=transactions)
        except VerificationFailed:
            if transactions is not None or all(each.type is not None for each in raw):
                raise
            inside = prove.prove_transactions(self._whole_block(header), header, self.chain)
            return prove.receipts_of(raw, header, self.chain, transactions=inside)

    def _whole_block(self, header: Header) -> RawFullBlock:
        (answer,) = call_all(self.endpoint, [("eth_getBlockByNumber", [hex(header.number), True])])
        return rpc_json.decode_block(answer, full=True)

    def _open_kind(self, parts: EvidenceParts, header: Header) -> int | None:
        """Return the type for which a block's transactions are open, if the form of its receipts is known."""
        unknown = parts.unknown.get(header.number, {}).get("transactions")
        kind = None if unknown is None else unknown.kind
        form = None if kind is None else self.chain.types.get(kind)
        return None if form in (None, "arbitrum_classic") else kind

    def _receipts_with(self, kind: int, answer: msgspec.Raw, header: Header) -> list[Receipt]:
        """Return proven receipts. Raises VerificationFailed if none is of the type that opens the transactions: a node
        must not open a block by a type that it does not have.
        """
        found = prove.receipts_of(rpc_json.decode_receipts(answer), header, self.chain)
        if all(each.kind != kind for each in found):
            raise VerificationFailed(
                "a transaction has a type that no receipt of its block has", block=header.number, type=hex(kind)
            )
        return found

    def _require_same_outside(
        self, transactions: Sequence[Transaction], receipts: Sequence[Receipt], header: Header
    ) -> None:
        """Raise Unavailable unless a state-sync transaction that is in no root comes with its receipt, and vice versa.

        Some nodes show only one of the two. No commitment says which is wrong, so it is no lie.
        """
        shown = sum(each.form == "polygon_state_sync" and each.kind == 0 for each in transactions)
        if shown != sum(each.form == "outside_root" for each in receipts):
            raise Unavailable(
                f"rpc endpoint {self.endpoint.name} does not show both a state-sync transaction and its receipt",
                block=header.number,
            )

    def _is_left_open(self, parts: EvidenceParts, part: Part, header: Header) -> bool:
        """Leave a part of a block open, and return True, if the chain's row says that nothing can prove it."""
        known = self.chain.open_form(Form(part), header.number)
        if known is None or known.after_all:
            return False
        parts.leave_open(UnknownForm(known.reason, part=part, kind=None, block=header.number))
        return True

    def _undemanding(self, answer: msgspec.Raw) -> list[RawReceipt] | list[RawReceiptWithoutLogs]:
        """Decode receipts; without logs if the dataset's rows bring them."""
        if self._dataset_name == "logs":
            return rpc_json.decode_receipts_without_logs(answer)
        return rpc_json.decode_receipts(answer)

    def _confirm(self, unknown: UnknownForm, header: Header) -> None:
        """Raise VerificationFailed if a receipt is open for its type, but no transaction of its block has it."""
        if unknown.kind is None:
            return
        block = self._whole_block(header)
        try:
            if any(each.kind == unknown.kind for each in prove.prove_transactions(block, header, self.chain)):
                return
        except UnknownForm as other:
            if other.kind == unknown.kind:
                return
        raise VerificationFailed(
            "a receipt has a type that no transaction of its block has", block=header.number, type=hex(unknown.kind)
        )

    def _in_columns(
        self, answers: Sequence[msgspec.Raw], piece: BlockRange, needs: EvidenceNeeds
    ) -> EvidenceParts | None:
        """Return the parts of whole blocks and receipts as the compiled code proves them, or None if it does not."""
        found = prove_compiled(answers, piece.start, self.chain)
        if found is None:
            return None
        headers, rows = found
        prove.require_linked(headers, None)
        if needs.sizes:
            headers = with_sizes(headers, answers[: len(headers)])
        parts = EvidenceParts.in_columns(headers, rows)
        parts.weight = rows.nbytes + _HEADER_BYTES * len(headers)
        return parts


def lacks(endpoint: Endpoint, piece: BlockRange) -> Unavailable:
    """Return the error for a block that the endpoint does not have."""
    return Unavailable(f"rpc endpoint {endpoint.name} does not have a block of this range", range=piece)


def require_chain(endpoint: Endpoint, chain: Chain, answer: msgspec.Raw) -> None:
    """Raise WrongChain unless the endpoint's answer to eth_chainId is the chain's id."""
    found = quantity(_text(answer))
    if found != chain.chain_id:
        raise WrongChain(
            f"rpc endpoint {endpoint.name} serves chain {found} now, the job is of chain"
            f" {chain.chain_id}: correct {variable_of(endpoint.pool)}"
        )


@contextmanager
def _open_if_unknown(parts: EvidenceParts, part: Part, header: Header) -> Iterator[None]:
    """Leave a part of a block open if its form is not known, or if it contradicts a header that is only claimed.

    Raises VerificationFailed if it contradicts a proven header.
    """
    try:
        yield
    except UnknownForm as unknown:
        parts.leave_open(unknown)
    except VerificationFailed as failed:
        if header.is_proven:
            raise
        parts.leave_open(UnknownForm(failed.message, part=part, kind=None, block=header.number))


def _some(receipts: Sequence[msgspec.Raw]) -> list[msgspec.Raw]:
    """Return the answers with an empty list for null: the roots decide whether that is right."""
    return [_NO_RECEIPTS if memoryview(answer) == NULL else answer for answer in receipts]


def _text(answer: msgspec.Raw) -> str:
    """Return an answer that must be a text. Raises VerificationFailed for any other."""
    try:
        return msgspec.json.decode(answer, type=str)
    except msgspec.MsgspecError:
        raise VerificationFailed("the node's answer is not a text where one is needed") from None
