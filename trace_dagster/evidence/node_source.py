"""Evidence from a node: its own headers, transactions and receipts, proven before they are used."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import Unavailable, VerificationFailed, WrongChain
from trace_dagster.evidence.claimed_sizes import with_sizes
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.rpc.block_receipts import call_with_receipts
from trace_dagster.rpc.client import Call, quantity
from trace_dagster.rpc.pools import Endpoint, variable_of
from trace_dagster.verify.check import EvidenceNeeds
from trace_dagster.verify.commitments import prove, rpc_json
from trace_dagster.verify.fast_path import prove_compiled
from trace_dagster.verify.model import Header, Receipt

_HEADER_BYTES = 1200
"""Memory of one header: its hashes, its bloom, and Python's objects for them."""

_NULL = memoryview(b"null")


class NodeSource:
    """Answers with what one endpoint shows of a chain. Every answer is proven as far as the chain's commitments go."""

    def __init__(self, endpoint: Endpoint, chain_id: int, dataset_name: str | None, *, deep: bool = False) -> None:
        """``dataset_name`` is the dataset that the evidence is for, or None for several; ``deep`` recovers senders.

        A single dataset whose rows are part of what gives the receipts root gets its receipts as the node claims them:
        the root is then proven when the rows are compared.
        """
        self.endpoint = endpoint
        self.chain_id = chain_id
        self._chain = chain_of(chain_id)
        self._dataset_name = dataset_name
        self._deep = deep

    def parts(self, piece: BlockRange, needs: EvidenceNeeds, headers: Sequence[Header] | None = None) -> EvidenceParts:
        """Fetch what is needed in batches, and prove it; ``headers`` are those of the piece, if they are known.

        Raises VerificationFailed, UnknownFormat, WrongChain, or Unavailable if the endpoint lacks a block.
        """
        numbers = range(piece.start, piece.end)
        full = needs.transactions
        blocks: list[Call] = [("eth_getBlockByNumber", [hex(n), full]) for n in numbers] if needs.headers else []
        receipts = numbers if needs.receipts else ()
        if not blocks and not receipts:
            return EvidenceParts()
        chain_id, *answers = call_with_receipts(self.endpoint, [("eth_chainId", []), *blocks], receipts)
        self._require_chain(chain_id)
        views = [memoryview(answer) for answer in answers]  # without a copy of each
        if any(view == _NULL for view in views):
            raise Unavailable(f"rpc endpoint {self.endpoint.name} does not have a block of this range", range=piece)
        in_columns = full and receipts and not self._deep
        if in_columns and (found := _in_columns(answers, piece, needs, self.chain_id)) is not None:
            return found
        parts = EvidenceParts(weight=sum(view.nbytes for view in views))
        if blocks:
            self._read_blocks(parts, answers[: len(blocks)], piece, full=full)
            if needs.sizes and parts.headers is not None:
                parts.headers = with_sizes(parts.headers, answers[: len(blocks)])
        if receipts:
            pairs = zip(answers[len(blocks) :], parts.headers or headers or (), strict=True)
            parts.receipts = [self._receipts(answer, header) for answer, header in pairs]
            if self._dataset_name is None:
                parts.proven = [list(prove.receipt_fields(inside)) for inside in parts.receipts]
        return parts

    def _read_blocks(
        self, parts: EvidenceParts, answers: Sequence[msgspec.Raw], piece: BlockRange, *, full: bool
    ) -> None:
        """Decode and prove blocks: set the headers, and the transactions if whole blocks were fetched (``full``)."""
        numbers = range(piece.start, piece.end)
        if full:
            whole = [rpc_json.decode_block(answer, full=True) for answer in answers]
            parts.headers = [prove.prove_header(block, n, self._chain) for block, n in zip(whole, numbers, strict=True)]
            pairs = zip(whole, parts.headers, strict=True)
            parts.transactions = [
                prove.prove_transactions(block, header, self._chain, deep=self._deep) for block, header in pairs
            ]
        else:
            thin = [rpc_json.decode_block(answer, full=False) for answer in answers]
            parts.headers = [prove.prove_header(block, n, self._chain) for block, n in zip(thin, numbers, strict=True)]
        prove.require_linked(parts.headers, None)

    def _receipts(self, answer: msgspec.Raw, header: Header) -> list[Receipt]:
        """Return a block's receipts. Prove them, unless the comparison with the dataset's rows proves them later."""
        match self._dataset_name:
            case "logs":
                return prove.claimed_receipts(rpc_json.decode_receipts_without_logs(answer), header, self._chain)
            case "transactions":
                return prove.claimed_receipts(rpc_json.decode_receipts(answer), header, self._chain)
        return prove.receipts_of(rpc_json.decode_receipts(answer), header, self._chain)

    def _require_chain(self, answer: msgspec.Raw) -> None:
        try:
            found = quantity(msgspec.json.decode(answer))
        except msgspec.DecodeError:
            raise VerificationFailed("the node's chain id is not a quantity") from None
        if found != self.chain_id:
            raise WrongChain(
                f"rpc endpoint {self.endpoint.name} serves chain {found} now, the job is of chain {self.chain_id}:"
                f" correct {variable_of(self.endpoint.pool)}"
            )


def _in_columns(
    answers: Sequence[msgspec.Raw], piece: BlockRange, needs: EvidenceNeeds, chain_id: int
) -> EvidenceParts | None:
    """Return the parts of whole blocks and receipts as the compiled code proves them, or None if it does not."""
    found = prove_compiled(answers, piece.start, chain_of(chain_id))
    if found is None:
        return None
    headers, rows = found
    prove.require_linked(headers, None)
    if needs.sizes:
        headers = with_sizes(headers, answers[: len(headers)])
    parts = EvidenceParts.in_columns(headers, rows)
    parts.weight = rows.nbytes + _HEADER_BYTES * len(headers)
    return parts
