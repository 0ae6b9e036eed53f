"""Arithmetic of a plan: ranges, runs and RPC calls are counted; rows, bytes and hours follow from sampled blocks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from trace_dagster.blocks import BlockRange, cell_sizes, merged
from trace_dagster.config.chain_sync import Stream
from trace_dagster.config.compact import Compact
from trace_dagster.datasets.chains import chain_of
from trace_dagster.datasets.reach import Reach
from trace_dagster.evidence.needs import fetches_times, most_calls, most_row_calls
from trace_dagster.planning.dispatcher import RANGES_PER_RUN
from trace_dagster.planning.run_groups import sharing
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.verify.check import PIECE_BLOCKS, evidence_needed
from trace_dagster.verify.rows.receipt_columns import can_fill_from_receipts, requested_columns

_PLACES = 3
"""Number of places where blocks are sampled: start, middle and end of the span."""


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """The work for one stream. Calls are JSON-RPC calls of a sync in which nothing fails."""

    blocks: int
    ranges: int
    extraction_calls: int
    """Calls that Cryo makes, or our own decoder for traces, multiplied by the pool's quorum."""
    evidence_calls: int
    """Calls for evidence, if rows are proven. An upper bound: committed rows of other streams replace some."""
    header_calls: int = 0
    """Calls for the headers of rows that are not proven: their block_timestamp. An upper bound, because streams of a
    chain share them. Multiplied by the pool's quorum.
    """

    @property
    def rpc_calls(self) -> int:
        """All calls."""
        return self.extraction_calls + self.evidence_calls + self.header_calls


@dataclass(frozen=True, slots=True)
class Sample:
    """What a stream's sampled blocks contain. ``seconds`` is the time to extract them one call after the other."""

    blocks: int
    rows: int
    seconds: float
    bytes_per_file: float
    """Size of a file with at most one row: footer, page headers, statistics."""
    bytes_per_row: float
    """Size of each further row."""

    @property
    def rows_per_block(self) -> float:
        """Mean number of rows."""
        return self.rows / self.blocks

    def bytes_of(self, counts: StreamCounts) -> float:
        """Return the Parquet bytes for these ranges and blocks, with one file per range."""
        return counts.ranges * self.bytes_per_file + self.rows_per_block * counts.blocks * self.bytes_per_row


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream's part of a plan. Unknown figures are None, and ``error`` is the reason."""

    dataset_key: str
    stream: Stream
    todo: tuple[BlockRange, ...]
    """Block ranges that are not committed."""
    committed_blocks: int
    counts: StreamCounts | None
    calls_per_second: float | None
    """Limit of all the pool's endpoints together; None if no limit is set."""
    sample: Sample | None = None
    error: str | None = None
    reach: Reach | None = None
    """What ``verify: full`` means for its blocks on this chain; None if its bounds are unknown."""

    @property
    def runs(self) -> int | None:
        """Number of Dagster runs with RANGES_PER_RUN ranges each; the dispatcher may choose 32 to 1,000."""
        return _runs(self.counts.ranges) if self.counts else None

    def to_json(self) -> dict[str, Any]:
        """Return every figure as JSON values; keys include the unit."""
        counts, sample = self.counts, self.sample
        return {
            "dataset_key": self.dataset_key,
            "cryo_dataset_name": self.stream.dataset.name,
            "rpc_pool": self.stream.rpc_pool,
            "verify": self.stream.verify,
            "reachable": self.reach.to_json() if self.reach else None,
            "chunk_size_blocks": self.stream.chunk_size,
            "committed_blocks": self.committed_blocks,
            "blocks": counts.blocks if counts else None,
            "ranges": counts.ranges if counts else None,
            "runs": self.runs,
            "extraction_rpc_calls": counts.extraction_calls if counts else None,
            "evidence_rpc_calls_at_most": counts.evidence_calls if counts else None,
            "header_rpc_calls_at_most": counts.header_calls if counts else None,
            "rpc_calls_at_most": counts.rpc_calls if counts else None,
            "sampled_blocks": sample.blocks if sample else 0,
            "sampled_rows": sample.rows if sample else None,
            "rows_per_block": sample.rows_per_block if sample else None,
            "seconds_per_block": sample.seconds / sample.blocks if sample else None,
            "bytes_per_file": sample.bytes_per_file if sample else None,
            "bytes_per_row": sample.bytes_per_row if sample else None,
            "estimated_rows": self.rows,
            "estimated_bytes": self.bytes,
            "hours_at_measured_rate_at_most": self.hours_measured,
            "pool_rpc_calls_per_second": self.calls_per_second,
            "hours_at_pool_limit": self.hours_at_limit,
            "window_blocks": self.window_blocks,
            "windows": self.windows,
            "estimated_files_when_compacted": self.compacted_files,
            "error": self.error,
        }

    @property
    def rows(self) -> int | None:
        """Estimated rows."""
        return round(self.sample.rows_per_block * self.counts.blocks) if self.sample and self.counts else None

    @property
    def bytes(self) -> int | None:
        """Estimated Parquet bytes."""
        return round(self.sample.bytes_of(self.counts)) if self.sample and self.counts else None

    @property
    def window_blocks(self) -> int | None:
        """Blocks of a window of compaction; None if it is off."""
        compact = self.stream.compact
        return compact.window_blocks(self.stream.chunk_size) if isinstance(compact, Compact) else None

    @property
    def windows(self) -> int | None:
        """Number of windows in which the planned ranges are compacted; None if compaction is off."""
        return self._window_sizes().total() if self.window_blocks else None

    @property
    def compacted_files(self) -> int | None:
        """Estimated files after compaction."""
        compact, counts, size = self.stream.compact, self.counts, self.bytes
        if not isinstance(compact, Compact) or counts is None or size is None:
            return None
        per_block = size / max(1, counts.blocks)
        return sum(
            windows * max(1, ceil(per_block * blocks / compact.target_bytes))
            for blocks, windows in self._window_sizes().items()
        )

    def _window_sizes(self) -> Counter[int]:
        return sum((cell_sizes(span, self.window_blocks or 1) for span in self.todo), Counter[int]())

    @property
    def hours_measured(self) -> float | None:
        """Upper bound in hours: the sample's seconds per block, without any parallel calls."""
        if self.sample is None or self.counts is None:
            return None
        return self.sample.seconds / self.sample.blocks * self.counts.blocks / 3600

    @property
    def hours_at_limit(self) -> float | None:
        """Hours if only the pool's limit slows the sync down and no other stream uses the pool."""
        if self.counts is None or self.calls_per_second is None:
            return None
        return self.counts.rpc_calls / self.calls_per_second / 3600


@dataclass(frozen=True, slots=True)
class TipPlan:
    """What following the head adds to a plan."""

    backfill: str
    """newest_first or oldest_first: the order of history."""
    hot_streams: tuple[str, ...]
    """Dataset keys of the streams whose newest blocks are hot rows."""
    calls_per_block: float
    """Calls for the hot rows of a new block, which its streams share: the block and its receipts."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; keys include the unit."""
        calls = {"rpc_calls_per_new_block_at_most": self.calls_per_block}
        return {"backfill": self.backfill, "hot_streams": list(self.hot_streams), **calls}

    def notes(self) -> Iterator[str]:
        """Yield what a person should know about the tip."""
        order = "backwards from the tip" if self.backfill == "newest_first" else "upwards from from_block"
        yield f"backfill is {self.backfill}: new blocks come first, then history, {order}"
        if self.hot_streams:
            yield (
                f"the newest blocks of {', '.join(self.hot_streams)} are hot rows: at most {self.calls_per_block:g}"
                " calls per new block together, in addition to those with which it is committed later"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """The estimate for one job."""

    job: str
    chain_id: int
    mode: str
    streams: tuple[StreamPlan, ...]
    notes: tuple[str, ...]
    """Sentences about the assumptions behind the figures."""
    tip: TipPlan | None = None
    """None if the job does not follow the head."""

    @property
    def runs(self) -> int:
        """Number of Dagster runs. Streams with the same ranges share runs."""
        planned = {each.dataset_key: each for each in self.streams if each.counts}
        sizes = {key: each.stream.chunk_size for key, each in planned.items()}
        return sum(_runs(_ranges_of_any([planned[key] for key in keys])) for keys in sharing(sizes)) if sizes else 0

    @property
    def hours_at_limit(self) -> float | None:
        """Hours until the busiest pool has served all streams; None if a pool has no limit or calls are unknown."""
        hours: dict[str, float] = defaultdict(float)
        for each in self.streams:
            if each.hours_at_limit is None:
                return None
            hours[each.stream.rpc_pool] += each.hours_at_limit
        return max(hours.values(), default=None)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        chain = chain_of(self.chain_id)
        return {
            "job": self.job,
            "chain_id": self.chain_id,
            "chain": {"name": chain.name, "is_listed": chain.is_listed, "notes": chain.notes},
            "mode": self.mode,
            "streams": [each.to_json() for each in self.streams],
            "runs": self.runs,
            "hours_at_pool_limit": self.hours_at_limit,
            "tip": self.tip.to_json() if self.tip else None,
            "notes": list(self.notes),
        }


def counted(
    todo: Sequence[BlockRange], stream: Stream, chain_id: int, quorum: int = 1, receipt_calls: float = 1.0
) -> StreamCounts:
    """Count ranges and calls for the block ranges ``todo``, which are divided into ranges as the planner does.

    ``receipt_calls`` are the calls for the receipts of one block, more than 1 if they are fetched by transaction.
    """
    sizes: Counter[int] = Counter()
    for span in todo:
        sizes += cell_sizes(span, stream.chunk_size)
    proven = stream.is_proven
    fills_from_receipts = can_fill_from_receipts(proven=proven, quorum=quorum)
    columns = requested_columns(
        stream.dataset,
        stream.dataset.stored_columns(stream.columns),
        stream.check_level,
        from_receipts=fills_from_receipts,
    )
    takes_headers = fetches_times(stream.dataset.name, columns, proven=proven)
    extraction = evidence = headers = 0
    for size, ranges in sizes.items():
        for piece, pieces in cell_sizes(BlockRange(0, size), PIECE_BLOCKS).items():
            if stream.engine == "native":
                extraction += ranges * pieces * native_trace_calls(stream.dataset.name, piece)
                evidence += ranges * pieces * most_row_calls(stream.dataset.name, piece)
                continue
            calls = 1 + stream.dataset.most_calls(piece, stream.inner_request_blocks, columns)
            extraction += ranges * pieces * calls
            headers += takes_headers * ranges * pieces * (1 + piece)
            if proven:
                evidence += ranges * pieces * most_calls(stream.dataset.name, piece)
    if proven and evidence_needed(stream.dataset.name).receipts:
        evidence += ceil((receipt_calls - 1) * sum(len(span) for span in todo))
    blocks = sum(len(span) for span in todo)
    return StreamCounts(blocks, sizes.total(), quorum * extraction, evidence, quorum * headers)


def native_trace_calls(dataset_name: str, blocks: int) -> int:
    """Return the calls for traces, in addition to evidence, where our own decoder builds the rows of a dataset."""
    return blocks if dataset_name == "geth_calls" else 0


def limit_of(pool: RpcPool) -> float | None:
    """Return the calls per second that all endpoints of a pool allow together; None if no limit is set."""
    each = pool.limits.requests_per_second
    return each * len(pool.endpoints) if each is not None else None


def places(span: BlockRange, blocks: int) -> list[BlockRange]:
    """Return the ranges in which ``blocks`` blocks are sampled: at start, middle and end of ``span``, or all of it."""
    if len(span) <= blocks:
        return [span]
    start, middle, end = (blocks // _PLACES + (place < blocks % _PLACES) for place in range(_PLACES))
    between = len(span) - start - end
    first = span.start + start + (between - middle) // 2
    spots = [(span.start, start), (first, middle), (span.end - end, end)]
    return [BlockRange(at, at + size) for at, size in spots if size]


def _runs(ranges: int) -> int:
    return -(-ranges // RANGES_PER_RUN)


def _ranges_of_any(streams: Sequence[StreamPlan]) -> int:
    """Count the ranges that at least one of the streams needs; all have the same ``chunk_size``."""
    todo = merged(span for each in streams for span in each.todo)
    return sum(cell_sizes(span, streams[0].stream.chunk_size).total() for span in todo)
