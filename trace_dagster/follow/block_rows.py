"""Builds the hot rows of one stream from proven answers, by the code that builds and proves cold native ranges."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.chain import LearnedForms
from trace_dagster.datasets.chains import chain_of
from trace_dagster.decoder import tables
from trace_dagster.errors import ExtractionFailed, TraceError, UnknownFormat
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.evidence.needs import row_needs
from trace_dagster.evidence.parts import EvidenceParts
from trace_dagster.extraction.lake_rows import lake_rows
from trace_dagster.registry.hot import HotRows
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.verify.check import LEVELS, Proof, check, extracted_columns
from trace_dagster.verify.rows.block_times import microseconds

NUMBER = "block_number"


@dataclass(frozen=True, slots=True)
class BlockRows:
    """The rows of consecutive blocks of one stream; one entry per block."""

    rows: Sequence[HotRows]
    levels: Sequence[str]


class RowBuilder:
    """Builds the hot rows of one stream."""

    def __init__(self, spec: StreamSpec, learned: LearnedForms) -> None:
        self.spec = spec
        self.needs = row_needs(spec.dataset.name)
        self._chain = chain_of(spec.chain_id)
        self._evidence = EvidenceCollector(spec.dataset.name, spec.chain_id, None, learned=learned, for_rows=True)
        self._extracted = extracted_columns(spec.dataset, spec.columns, "full")

    def build(self, piece: BlockRange, parts: EvidenceParts) -> BlockRows:
        """Return the rows of a piece, proven. ``parts`` are proven answers with at least :attr:`needs`.

        Raises VerificationFailed, UnknownForm if a form may not be left open, UnknownFormat if a stream with
        ``verify: require_full`` cannot be proven in full, ExtractionFailed if the answers do not hold the rows or a
        column cannot hold a value.
        """
        dataset, chain_id = self.spec.dataset, self.spec.chain_id
        evidence = self._evidence.of(piece).for_rows_of(parts)
        if not tables.has_rows(dataset.name, evidence):
            raise ExtractionFailed("the node's answers do not prove what the rows are built from", range=piece)
        table = tables.table(dataset, self._extracted, chain_id, evidence)
        proof = check(dataset, table, piece, chain_id, evidence)
        if proof.lowered and self.spec.requires_full:
            raise UnknownFormat(f"{proof.lowered[0].reason} (verify: require_full)", block=proof.lowered[0].first_block)
        times = pa.array(microseconds(evidence.headers, self._chain), pa.int64())
        stored = lake_rows(dataset, table, self.spec.columns, piece, proof, times)
        levels = [_level(proof, block) for block in range(piece.start, piece.end)]
        return BlockRows(_by_block(stored, piece), levels)

    def learn_from(self, failures: Iterable[TraceError]) -> bool:
        """Leave a form open from now on if every endpoint showed it, see :meth:`EvidenceCollector.learn_from`."""
        return self._evidence.learn_from(failures)


def lowest(levels: Iterable[str]) -> str:
    """Return the lowest of some levels, ``full`` if there is none."""
    return min(levels, key=LEVELS.index, default="full")


def _level(proof: Proof, block: int) -> str:
    for each in proof.lowered:
        if each.first_block <= block < each.first_block + each.blocks:
            return each.level
    return max(proof.levels or {proof.level: 1}, key=LEVELS.index)


def _by_block(table: pa.Table, piece: BlockRange) -> list[HotRows]:
    """Return the rows of each block. A table is in block order."""
    columns = tuple(table.column_names)
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if len(piece) == 1:
        return [HotRows(columns, rows)]
    numbers = table[NUMBER].to_pylist()
    ends = [bisect_left(numbers, block) for block in range(piece.start, piece.end + 1)]
    return [HotRows(columns, rows[start:end]) for start, end in pairwise(ends)]
