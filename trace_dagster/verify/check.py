"""Checks one piece of a dataset: which evidence and columns a check needs, and the proof that results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import BLOCK_TIMESTAMP, Dataset
from trace_dagster.datasets.catalogue import dataset as lookup
from trace_dagster.datasets.chains import chain_of
from trace_dagster.errors import Part, VerificationFailed
from trace_dagster.verify.commitments import headers as header_forms
from trace_dagster.verify.commitments.prove import require_linked, unproven_columns
from trace_dagster.verify.mismatch import mismatch
from trace_dagster.verify.model import Evidence, Header
from trace_dagster.verify.rows import columnwise, rowwise
from trace_dagster.verify.rows.arrow import plain, required, spans
from trace_dagster.verify.rows.block_times import check_times, compare_times
from trace_dagster.verify.rows.comparison import Comparison
from trace_dagster.verify.rows.structure import check_structure

Level = Literal["structural", "crosschecked", "full"]
LEVELS = ("off", "structural", "crosschecked", "full")
"""Verification levels, from none to all that the chain commits to."""

PIECE_BLOCKS = 500
"""Blocks per piece. A table costs half a millisecond regardless of its size, and a piece must fit into memory."""

_PROVABLE = frozenset({"blocks", "transactions", "logs", "erc20_transfers", "erc721_transfers"})

_BY_ROOTS = _PROVABLE - {"blocks"}
"""Datasets whose rows give the roots in a header."""

_ALL_COLUMNS: dict[str, tuple[str, ...]] = {
    "transactions": ("transaction_hash", "transaction_type", "success", "gas_used"),
    "logs": ("transaction_hash", "address", "topic0", "topic1", "topic2", "topic3", "data"),
    "erc20_transfers": ("transaction_hash", "erc20", "from_address", "to_address", "value_binary"),
    "erc721_transfers": ("transaction_hash", "erc20", "from_address", "to_address", "token_id_binary"),
    "geth_calls": ("transaction_hash", "typ", "from_address", "to_address", "value_binary", "input", "error"),
    "traces": ("transaction_hash", "action_type", "action_from", "action_to", "action_value", "error"),
    "geth_balance_diffs": ("transaction_hash", "address", "from_value_binary", "to_value_binary"),
}
"""Columns that a comparison with evidence reads, in addition to the structural columns."""

_SHAPE_COLUMNS = {"traces": ("trace_address", "action_type"), "transactions": ("transaction_hash",)}


@dataclass(frozen=True, slots=True)
class EvidenceNeeds:
    """Which parts of evidence the level ``full`` needs."""

    headers: bool
    transactions: bool
    receipts: bool
    sizes: bool = False
    """Whether headers carry the block's size and total difficulty, which nothing proves: rows are built from them."""

    def covers(self, other: EvidenceNeeds) -> bool:
        """Return whether evidence of these parts holds all parts of ``other``."""
        return all(getattr(self, name) >= getattr(other, name) for name in EvidenceNeeds.__slots__)


@dataclass(frozen=True, slots=True)
class Lowered:
    """Consecutive blocks whose rows reach a lower level than the stream asks for, and the reason in one sentence."""

    first_block: int
    blocks: int
    level: Level
    reason: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of checking a piece.

    Level ``full``: the chain's commitments cover the rows, except for the columns in ``unproven``. ``crosschecked``: no
    commitment covers the dataset, but the rows were compared with proven headers, transactions or receipts.
    ``structural``: the rows obey the rules that any correct answer obeys. ``checks`` are the names of the checks done.
    ``blocks`` is the number of blocks. The two hashes are those of the piece's ends, or None if they are not known.
    """

    level: Level
    checks: tuple[str, ...]
    unproven: tuple[str, ...]
    first_block: int
    blocks: int
    first_parent_hash: bytes | None
    last_block_hash: bytes | None
    lowered: tuple[Lowered, ...] = ()
    """Blocks below the level of the others, because the chain's form leaves their proof open."""
    levels: Mapping[Level, int] = field(default_factory=dict)
    """Number of blocks by level; ``level`` is the lowest of them."""


def evidence_needed(dataset_name: str) -> EvidenceNeeds:
    """Return the evidence that level ``full`` needs for a dataset."""
    if dataset_name == "blocks":
        return EvidenceNeeds(True, False, False)
    if dataset_name in {"logs", "erc20_transfers", "erc721_transfers"}:
        return EvidenceNeeds(True, False, True)
    if dataset_name in _ALL_COLUMNS:
        return EvidenceNeeds(True, True, True)
    return EvidenceNeeds("block_hash" in lookup(dataset_name).all_columns, False, False)


def checked_columns(dataset: Dataset, level: str) -> tuple[str, ...]:
    """Return the columns that a check at ``level`` (structural or full) reads, in schema order."""
    names = {*dataset.checked_columns, *_SHAPE_COLUMNS.get(dataset.name, ())}
    if level == "full":
        names |= {*_ALL_COLUMNS.get(dataset.name, ()), "block_hash"}
    return tuple(name for name in dataset.all_columns if name in names)


def extracted_columns(dataset: Dataset, stored: Sequence[str], level: str) -> tuple[str, ...]:
    """Return the columns to extract, in schema order: for ``stored`` rows with their times, and to check them."""
    times = {"timestamp"} & dataset.all_columns.keys() if level != "full" else ()  # no header gives them there
    found = dataset.stored_columns([*stored, *checked_columns(dataset, level), *times])
    return tuple(name for name in found if name != BLOCK_TIMESTAMP)


def check(
    dataset: Dataset,
    table: pa.Table,
    piece: BlockRange,
    chain_id: int,
    evidence: Evidence | None,
    *,
    deep: bool = False,
) -> Proof:
    """Check all rows of a piece: always the structure, and the values if there is evidence.

    ``table`` has at least :func:`checked_columns` of the dataset; further columns are compared if the evidence covers
    them. ``deep`` means that the evidence's senders were recovered from signatures. Raises VerificationFailed with the
    first difference, UnknownFormat if a transaction has an unknown type.
    """
    done = [*check_structure(dataset, table, piece, chain_id), *check_times(table, chain_id)]
    if evidence is None:
        return _proof("structural", done, [], piece, _row_boundary(dataset, table))
    check_evidence(evidence, piece)
    if not evidence.open:
        return _check_run(dataset, table, piece, evidence, done, chain_id, deep)
    slices = spans(table, piece)
    proofs = []
    for start, end, reasons in _runs(evidence, piece):
        rows = table.slice(slices[start].start, slices[end - 1].stop - slices[start].start)
        run, span = evidence.run(start, end, reasons), BlockRange(piece.start + start, piece.start + end)
        if reasons:
            proofs.append(_check_open_run(dataset, rows, span, run, done, reasons, chain_id))
        else:
            proofs.append(_check_run(dataset, rows, span, run, done, chain_id, deep))
    return merge(proofs)


def _runs(evidence: Evidence, piece: BlockRange) -> Iterator[tuple[int, int, Mapping[Part, str]]]:
    """Yield consecutive blocks, counted from the first, whose evidence leaves the same parts open, with the reasons."""
    for reasons, run in groupby(range(len(piece)), lambda place: evidence.open.get(piece.start + place, {})):
        places = list(run)
        yield places[0], places[-1] + 1, reasons


def _check_run(
    dataset: Dataset,
    table: pa.Table,
    piece: BlockRange,
    evidence: Evidence,
    done: Sequence[str],
    chain_id: int,
    deep: bool,
) -> Proof:
    """Compare rows with evidence that is proven in all its parts."""
    compared = _compare(dataset, table, evidence, deep, chain_id)
    compared.covered |= compare_times(table, evidence.headers, chain_id)
    level: Level = "structural"
    if compared.checks:
        level = "full" if dataset.name in _PROVABLE and _has_needed_evidence(dataset, evidence) else "crosschecked"
    unproven = set(table.column_names) - compared.covered - {"chain_id"} if compared.checks else set()
    said = [*(compared.unproven or sorted(unproven)), *_unproven_rows(dataset, table, piece, chain_id)]
    return _proof(level, [*done, *compared.checks], said, piece, _boundary(evidence.headers))


def _unproven_rows(dataset: Dataset, table: pa.Table, piece: BlockRange, chain_id: int) -> list[str]:
    """Return what the chain's forms leave open in the rows although hash and roots come out."""
    chain = chain_of(chain_id)
    if dataset.name == "blocks":
        return header_forms.unproven_columns(chain, piece.start)
    if dataset.name not in _BY_ROOTS or not chain.types:
        return []
    has_types = dataset.name == "transactions" and "transaction_type" in table.column_names
    kinds = pc.unique(plain(table, "transaction_type")).to_pylist() if has_types else []
    return unproven_columns(chain, kinds, piece.start)


def _check_open_run(
    dataset: Dataset,
    table: pa.Table,
    piece: BlockRange,
    evidence: Evidence,
    done: Sequence[str],
    reasons: Mapping[Part, str],
    chain_id: int,
) -> Proof:
    """Compare rows with evidence whose parts in ``reasons`` are left open. What can be compared must still agree."""
    compared, level = _compare_open(dataset, table, piece, evidence, reasons, chain_id)
    compared.covered |= compare_times(table, evidence.headers, chain_id)
    lowered = Lowered(piece.start, len(piece), level, "; ".join(sorted(set(reasons.values()))))
    unproven: list[str] = []
    if level != "structural":
        unproven += set(table.column_names) - compared.covered - {"chain_id"}
        unproven += _unproven_rows(dataset, table, piece, chain_id)
    return _proof(level, [*done, *compared.checks], unproven, piece, _boundary(evidence.headers), lowered=(lowered,))


def _compare_open(
    dataset: Dataset,
    table: pa.Table,
    piece: BlockRange,
    evidence: Evidence,
    reasons: Mapping[Part, str],
    chain_id: int,
) -> tuple[Comparison, Level]:
    """Return what the evidence covers, and the level.

    It is ``crosschecked`` if the rows give the roots of a header that is only claimed, if proven transactions lack
    their receipts, or if logs before Byzantium give the bloom of a proven header; otherwise ``structural``.
    """
    headers, transactions = evidence.headers, evidence.transactions
    if dataset.name in _BY_ROOTS and _has_needed_evidence(dataset, evidence):
        return _compare(dataset, table, evidence, False, chain_id), "crosschecked"
    if "header" not in reasons:
        if dataset.name == "transactions" and transactions is not None:
            return rowwise.check_transactions(table, headers, transactions, None), "crosschecked"
        if dataset.name == "logs" and piece.end <= chain_of(chain_id).fork("byzantium"):
            return rowwise.check_blooms(table, headers), "crosschecked"
    return _pairs(table, evidence), "structural"


def check_evidence(evidence: Evidence, piece: BlockRange) -> None:
    """Raise VerificationFailed unless the evidence covers exactly this piece and its parts agree with each other.

    Headers must link by parent hash, and each transaction must have the receipt at the same position.
    """
    if [header.number for header in evidence.headers] != list(range(piece.start, piece.end)):
        raise VerificationFailed("the evidence is for other blocks", block=piece.start, range=piece)
    require_linked(evidence.headers, None)
    for part, given in (("transactions", evidence.transactions), ("receipts", evidence.receipts)):
        if given is not None and len(given) != len(piece):
            raise mismatch(f"the evidence lacks {part}", piece.start, len(piece), len(given))
    if evidence.transactions is None or evidence.receipts is None or evidence.rows is not None:
        return
    for header, inside, outcomes in zip(evidence.headers, evidence.transactions, evidence.receipts, strict=True):
        if not {"transactions", "receipts"}.isdisjoint(evidence.open.get(header.number, {})):
            continue
        if len(inside) != len(outcomes):
            raise mismatch("a block has not one receipt per transaction", header.number, len(inside), len(outcomes))
        for each, receipt in zip(inside, outcomes, strict=True):
            kind = each.kind if each.form == "arbitrum_classic" else receipt.kind  # nodes show either of two types
            if (receipt.transaction_hash or each.hash, kind) != (each.hash, each.kind):
                raise mismatch(
                    "a receipt is of another transaction", header.number, each.hash, receipt.transaction_hash
                )


def merge(proofs: Sequence[Proof]) -> Proof:
    """Return the proof that holds for all of these consecutive pieces.

    Raises VerificationFailed, with the block, if the parent of a piece is not the last block of the piece before.
    """
    for before, after in pairwise(proofs):
        block = before.first_block + before.blocks
        if after.first_block != block:
            raise mismatch("a piece does not start at the end of the previous piece", block, block, after.first_block)
        known = before.last_block_hash is not None and after.first_parent_hash is not None
        if known and before.last_block_hash != after.first_parent_hash:
            raise mismatch(
                "parent_hash is not the hash of the block before",
                block,
                before.last_block_hash,
                after.first_parent_hash,
            )
    return Proof(
        level=min((proof.level for proof in proofs), key=LEVELS.index),
        checks=tuple(sorted(set.intersection(*[set(proof.checks) for proof in proofs]))),
        unproven=tuple(sorted(set().union(*[proof.unproven for proof in proofs]))),
        first_block=proofs[0].first_block,
        blocks=sum(proof.blocks for proof in proofs),
        first_parent_hash=proofs[0].first_parent_hash,
        last_block_hash=proofs[-1].last_block_hash,
        lowered=_joined(each for proof in proofs for each in proof.lowered),
        levels=sum((Counter(proof.levels) for proof in proofs), Counter()),
    )


def _joined(lowered: Iterable[Lowered]) -> tuple[Lowered, ...]:
    """Join neighbouring blocks that are lowered in the same way."""
    found: list[Lowered] = []
    for each in lowered:
        last = found[-1] if found else None
        if last is not None and (last.first_block + last.blocks, last.level, last.reason) == (
            each.first_block,
            each.level,
            each.reason,
        ):
            found[-1] = replace(last, blocks=last.blocks + each.blocks)
        else:
            found.append(each)
    return tuple(found)


def _compare(dataset: Dataset, table: pa.Table, evidence: Evidence, deep: bool, chain_id: int) -> Comparison:
    headers, transactions, receipts = evidence.headers, evidence.transactions, evidence.receipts
    if not _has_needed_evidence(dataset, evidence):
        return _pairs(table, evidence)
    columnwise_result = columnwise.compare_proven_rows(dataset.name, table, evidence, deep=deep)
    if columnwise_result is not None:
        return columnwise_result
    specific: dict[str, Callable[[], Comparison]] = {
        "blocks": lambda: rowwise.check_blocks(table, headers),
        "transactions": lambda: rowwise.check_transactions(
            table, headers, transactions or (), receipts, proven=evidence.proven, deep=deep
        ),
        "logs": lambda: rowwise.check_logs(table, headers, receipts or (), transactions, proven=evidence.proven),
        "erc20_transfers": lambda: _transfers(dataset, table, evidence),
        "erc721_transfers": lambda: _transfers(dataset, table, evidence),
        "geth_calls": lambda: rowwise.check_calls(
            table, headers, transactions or (), receipts or (), name=dataset.name
        ),
        "traces": lambda: rowwise.check_calls(table, headers, transactions or (), receipts or (), name=dataset.name),
        "geth_balance_diffs": lambda: rowwise.check_balance_diffs(
            table, headers, transactions or (), receipts or (), burns_base_fee=chain_of(chain_id).burns_base_fee
        ),
    }
    return specific.get(dataset.name, lambda: _pairs(table, evidence))()


def _transfers(dataset: Dataset, table: pa.Table, evidence: Evidence) -> Comparison:
    return rowwise.check_token_transfers(
        table, dataset.name, evidence.headers, evidence.receipts or (), evidence.transactions
    )


def _pairs(table: pa.Table, evidence: Evidence) -> Comparison:
    """Compare block and transaction hashes, which any dataset may have."""
    blocks = rowwise.check_block_hashes(table, evidence.headers)
    hashes = rowwise.check_transaction_hashes(
        table, evidence.headers, evidence.transactions, evidence.receipts, nulls=True
    )
    return Comparison([*blocks.checks, *hashes.checks], blocks.covered | hashes.covered)


def _has_needed_evidence(dataset: Dataset, evidence: Evidence) -> bool:
    needed = evidence_needed(dataset.name)
    return not (needed.transactions and evidence.transactions is None) and not (
        needed.receipts and evidence.receipts is None
    )


def _row_boundary(dataset: Dataset, table: pa.Table) -> tuple[bytes | None, bytes | None]:
    if dataset.name != "blocks" or not {"parent_hash", "block_hash"} <= set(table.column_names):
        return None, None
    return required(table, "parent_hash")[0], required(table, "block_hash")[-1]


def _boundary(headers: Sequence[Header]) -> tuple[bytes, bytes]:
    return headers[0].parent_hash, headers[-1].hash


def _proof(
    level: Level,
    checks: Sequence[str],
    unproven: Sequence[str],
    piece: BlockRange,
    boundary: tuple[bytes | None, bytes | None],
    lowered: tuple[Lowered, ...] = (),
) -> Proof:
    return Proof(
        level,
        tuple(sorted(set(checks))),
        tuple(sorted(set(unproven))),
        piece.start,
        len(piece),
        *boundary,
        lowered=lowered,
        levels={level: len(piece)},
    )
