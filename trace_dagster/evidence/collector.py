"""What the rows of one piece are measured against: committed rows where there are some, else the node itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

import msgspec

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import Dataset
from trace_dagster.errors import ForkConflict, Unavailable, UnknownFormat, VerificationFailed, WrongChain
from trace_dagster.evidence.cache import PARTS, Batch, Parts, Shared, batches_of, joined, runs
from trace_dagster.evidence.committed import Committed
from trace_dagster.rpc.client import Call, call_all, quantity
from trace_dagster.rpc.pools import Endpoint, variable_of
from trace_dagster.verify.check import Needs, needs
from trace_dagster.verify.commitments import prove, rpc_json
from trace_dagster.verify.commitments.receipts import has_status
from trace_dagster.verify.fast_path import prove_plain
from trace_dagster.verify.model import Evidence, Header, Receipt
from trace_dagster.verify.rows import arrow
from trace_dagster.verify.rows.arrow import HEADER_COLUMNS, RECEIPT_COLUMNS, TRANSACTION_COLUMNS

SOURCES = ("blocks", "transactions")
"""Datasets whose committed rows serve as evidence."""

_TOKEN_TRANSFERS = ("erc20_transfers", "erc721_transfers")
"""They are read out of the receipts' logs; other datasets bring logs or need none."""


_HEADER_BYTES = 1200
"""Of a header: its hashes, its bloom and Python's objects for them."""

_NOTHING = Needs(headers=False, transactions=False, receipts=False)
_NULL = memoryview(b"null")


def is_provable(dataset: str) -> bool:
    """Whether anything of the chain can be held against the rows of a dataset."""
    wanted = needs(dataset)
    return wanted.headers or wanted.transactions or wanted.receipts


def most_calls(dataset: str, blocks: int) -> int:
    """JSON-RPC calls for the evidence of one piece where committed rows tell none of it, and nothing fails."""
    wanted = needs(dataset)
    per_block = (wanted.headers or wanted.transactions) + wanted.receipts
    return 1 + per_block * blocks if per_block else 0


def fetched(dataset: Dataset, stored: Collection[str], verify: str) -> frozenset[str]:
    """What a stream fetches of every block, by Cryo or as evidence: whole ``blocks``, ``receipts``."""
    wanted = needs(dataset.name) if verify == "full" else _NOTHING
    blocks = wanted.transactions or dataset.name == "transactions"
    receipts = wanted.receipts or dataset.takes_receipts(stored)
    return frozenset({"blocks"} if blocks else ()) | frozenset({"receipts"} if receipts else ())


class Witness:
    """Gathers the evidence for pieces of one dataset of one chain. Safe to use from several threads.

    ``within`` is the range whose blocks are known to be final: shared evidence is fetched for no other.
    """

    def __init__(
        self,
        dataset: str,
        chain_id: int,
        committed: Committed | None,
        shared: Shared | None = None,
        within: BlockRange | None = None,
    ) -> None:
        self._dataset = dataset
        self._chain_id = chain_id
        self._committed = committed
        self._needs = needs(dataset)
        self._shared = shared
        self._within = within
        if shared is not None:
            shared.expect(chain_id, dataset)

    def gather(self, piece: BlockRange, endpoint: Endpoint, *, fresh: bool = False, deep: bool = False) -> Evidence:
        """The evidence for every block of ``piece``, each part proven as far as it can be.

        ``fresh`` asks the endpoint for all of it, ``deep`` recovers senders from their signatures.
        Raises VerificationFailed, Unavailable, WrongChain, UnknownFormat, or ForkConflict where the endpoint's
        headers are not the committed ones.
        """
        known = Parts() if fresh else self._known(piece)
        lacking = self._lacking(known)
        wanted = self._wanted_together()
        if wanted is None or fresh or deep:
            asked = self._ask(piece, endpoint, lacking, known.headers, deep=deep)
        else:
            asked = self._shared_with(piece, endpoint, wanted, lacking)
        if known.headers is not None and asked.headers is not None:
            self._require_same(piece, known.headers, asked.headers)
        parts = {name: getattr(asked, name) or getattr(known, name) for name in PARTS}
        all_asked = all(getattr(asked, name) is not None or parts[name] is None for name in PARTS)
        return Evidence(
            headers=parts["headers"] or (),
            transactions=parts["transactions"],
            receipts=parts["receipts"],
            proven=asked.proven,
            rows=asked.rows if all_asked else None,  # nobody compared the others with these
            source={
                name: "committed rows" if getattr(asked, name) is None else "rpc"
                for name, part in parts.items()
                if part is not None
            },
        )

    def forget(self, piece: BlockRange, endpoint: Endpoint) -> None:
        """Do not use again what an endpoint said of these blocks."""
        wanted = self._wanted_together()
        if self._shared is not None and wanted is not None:
            self._shared.forget(self._batches(piece, endpoint, wanted))

    def stored(self, piece: BlockRange) -> Evidence | None:
        """The evidence committed rows give alone; None when they do not tell the headers."""
        known = self._known(piece)
        if known.headers is None:
            return None
        return Evidence(known.headers, known.transactions, known.receipts)

    def knows(self, piece: BlockRange) -> bool:
        """Whether committed rows tell anything about ``piece``."""
        known = self._known(piece)
        return any(getattr(known, name) is not None for name in PARTS)

    def require_one_chain(self, piece: BlockRange, fresh: Evidence) -> None:
        """Raises ForkConflict when the committed headers of ``piece`` are not these."""
        known = self._known(piece)
        if known.headers is not None:
            self._require_same(piece, known.headers, fresh.headers)

    def _known(self, piece: BlockRange) -> Parts:
        """What committed rows tell; nothing where somebody altered them: the node is asked then."""
        parts = Parts()
        if self._committed is not None:
            with suppress(VerificationFailed, UnknownFormat):
                self._fill(parts, piece, self._committed)
        return parts

    def _fill(self, parts: Parts, piece: BlockRange, committed: Committed) -> None:
        if self._needs.headers and self._dataset != "blocks":
            rows = committed.table("blocks", piece, HEADER_COLUMNS)
            parts.headers = arrow.headers_of(rows, piece) if rows is not None else None
        if self._dataset == "transactions":
            return
        if self._needs.receipts and self._dataset not in _TOKEN_TRANSFERS and has_status(self._chain_id, piece):
            rows = committed.table("transactions", piece, RECEIPT_COLUMNS)
            parts.receipts = arrow.receipts_of_tables(rows, None, piece) if rows is not None else None
        if self._needs.transactions:
            rows = committed.table("transactions", piece, TRANSACTION_COLUMNS)
            parts.transactions = arrow.transactions_of(rows, piece) if rows is not None else None

    def _lacking(self, known: Parts) -> Needs:
        """What has to be asked of the node."""
        transactions = self._needs.transactions and known.transactions is None
        return Needs(
            headers=transactions or (self._needs.headers and known.headers is None),
            transactions=transactions,
            receipts=self._needs.receipts and known.receipts is None,
        )

    def _ask(
        self,
        piece: BlockRange,
        endpoint: Endpoint,
        wanted: Needs,
        headers: Sequence[Header] | None = None,
        *,
        deep: bool = False,
        prove_receipts: bool = False,
    ) -> Parts:
        """Ask the node for what is wanted, batched, and prove it; ``headers`` are those of the piece, where known."""
        numbers = range(piece.start, piece.end)
        full = wanted.transactions
        blocks: list[Call] = [("eth_getBlockByNumber", [hex(n), full]) for n in numbers] if wanted.headers else []
        receipts: list[Call] = [("eth_getBlockReceipts", [hex(n)]) for n in numbers] if wanted.receipts else []
        if not blocks and not receipts:
            return Parts()
        chain_id, *answers = call_all(endpoint, [("eth_chainId", []), *blocks, *receipts])
        self._require_chain(endpoint, chain_id)
        views = [memoryview(answer) for answer in answers]  # without a copy of each
        if any(view == _NULL for view in views):
            raise Unavailable(f"rpc endpoint {endpoint.name} does not have a block of this range", range=piece)
        if wanted.transactions and receipts and not deep and (found := prove_plain(answers, piece.start)) is not None:
            headers, rows = found
            prove.link(headers, None)
            parts = Parts.plain(headers, rows)
            parts.weight = rows.nbytes + _HEADER_BYTES * len(headers)
            return parts
        parts = Parts(weight=sum(view.nbytes for view in views))
        if blocks:
            _read_blocks(parts, answers[: len(blocks)], piece, full=full, deep=deep)
        pairs = list(zip(answers[len(blocks) :], parts.headers or headers or (), strict=True)) if receipts else []
        if prove_receipts:
            parts.receipts = [prove.receipts_of(rpc_json.decode_receipts(answer), header) for answer, header in pairs]
            parts.proven = [list(prove.outcomes(inside)) for inside in parts.receipts]
        elif receipts:
            parts.receipts = [self._receipts(answer, header) for answer, header in pairs]
        return parts

    def _shared_with(self, piece: BlockRange, endpoint: Endpoint, wanted: Needs, lacking: Needs) -> Parts:
        """What is lacking, of what all datasets of the chain want of these blocks."""
        assert self._shared is not None
        batches = self._batches(piece, endpoint, wanted)
        asked = Parts() if lacking == _NOTHING else self._among(self._joint(batches, piece, endpoint, wanted), lacking)
        self._shared.passed(batches, piece)
        return asked

    def _joint(self, batches: list[Batch], piece: BlockRange, endpoint: Endpoint, wanted: Needs) -> Parts:
        """What all datasets of the chain want of these blocks."""
        assert self._shared is not None

        def work(batches: list[Batch]) -> Iterator[tuple[Parts, int]]:
            for run in runs(batches):
                span = BlockRange(run[0].start, run[-1].end)
                found = self._ask(span, endpoint, wanted, prove_receipts=True)
                for batch in run:
                    yield found.of(batch.start - span.start, batch.end - span.start), found.weight // len(run)

        found = self._shared.get(batches, work)
        return joined(found).of(piece.start - batches[0].start, piece.end - batches[0].start)

    def _wanted_together(self) -> Needs | None:
        """What all datasets of the chain need; None where nobody shares."""
        return self._shared.wanted(self._chain_id) if self._shared is not None else None

    def _batches(self, piece: BlockRange, endpoint: Endpoint, wanted: Needs) -> list[Batch]:
        return batches_of(piece, self._within or piece, endpoint.fingerprint, self._chain_id, wanted)

    @staticmethod
    def _among(found: Parts, wanted: Needs) -> Parts:
        """The wanted parts of what was found."""
        return Parts(
            headers=found.headers,
            transactions=found.transactions if wanted.transactions else None,
            receipts=found.receipts if wanted.receipts else None,
            proven=found.proven if wanted.receipts else None,
            rows=found.rows,
        )

    def _receipts(self, answer: msgspec.Raw, header: Header) -> list[Receipt]:
        """Proven here, unless the rows themselves are part of what gives the root: then that is proven once."""
        match self._dataset:
            case "logs":
                return prove.claimed_receipts(rpc_json.decode_outcomes(answer), header.number)
            case "transactions":
                return prove.claimed_receipts(rpc_json.decode_receipts(answer), header.number)
        return prove.receipts_of(rpc_json.decode_receipts(answer), header)

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


def _read_blocks(parts: Parts, answers: Sequence[msgspec.Raw], piece: BlockRange, *, full: bool, deep: bool) -> None:
    """Headers, linked to one another, and transactions where whole blocks were asked for."""
    numbers = range(piece.start, piece.end)
    if full:
        whole = [rpc_json.decode_block(answer, full=True) for answer in answers]
        parts.headers = [prove.prove_header(block, n) for block, n in zip(whole, numbers, strict=True)]
        pairs = zip(whole, parts.headers, strict=True)
        parts.transactions = [prove.prove_transactions(block, header, deep=deep) for block, header in pairs]
    else:
        thin = [rpc_json.decode_block(answer, full=False) for answer in answers]
        parts.headers = [prove.prove_header(block, n) for block, n in zip(thin, numbers, strict=True)]
    prove.link(parts.headers, None)
