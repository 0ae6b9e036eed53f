"""Estimates a chain_sync file before it is applied. Changes nothing, and works without a registry.

Ranges and calls follow from the file and the chain's head. Rows, bytes and seconds come from a few sampled blocks,
which are extracted and proven like a range. If a stream cannot be estimated, the plan has its error instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from trace_dagster.blocks import BlockRange, holes
from trace_dagster.config.chain_sync import ChainSync, FixedTarget, Stream, read
from trace_dagster.config.settings import Settings
from trace_dagster.datasets.chains import chain_of
from trace_dagster.engine.select import selected_engine
from trace_dagster.errors import InvalidInput, TraceError, Unavailable
from trace_dagster.estimate.costs import Plan, Sample, StreamPlan, TipPlan, counted, limit_of, places
from trace_dagster.estimate.receipt_probe import calls_per_block
from trace_dagster.estimate.shared_calls import blocks_of_any, shared_calls
from trace_dagster.evidence.collector import EvidenceCollector
from trace_dagster.evidence.needs import is_provable
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.gateway.routing import GatewayRouting, is_routed
from trace_dagster.identity import DEFAULT_ORG, dataset_uuid
from trace_dagster.planning.bounds import is_symbolic, resolve
from trace_dagster.planning.planner import followed_end
from trace_dagster.planning.reachable import quorum_lines, stream_reach
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Bounds, Jobs, engine_options, follow, stream_start
from trace_dagster.registry.migrations import is_current
from trace_dagster.rpc.client import require_chain
from trace_dagster.rpc.finality import chain_head, finality_note
from trace_dagster.rpc.pools import RpcPool, variable_of
from trace_dagster.store.parquet import encoded_bytes
from trace_dagster.verify.check import evidence_needed

Say = Callable[[str], None]

_NOTHING_COMMITTED = "the plan assumes that nothing is committed"


@dataclass(frozen=True, slots=True)
class _Known:
    """A job's resolved bounds and committed ranges, read from the registry. Without a registry only ``note`` is set."""

    note: str
    bounds: Bounds | None = None
    """Symbolic bounds that an earlier apply resolved."""
    committed: Mapping[str, Sequence[BlockRange]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Chain:
    """A pool that serves the job's chain, and the block up to which it may be synced."""

    pool: RpcPool
    latest: int
    finalized: int
    note: str = ""
    """Which rule of finality holds; empty for a chain that is made up."""


_Chains = Mapping[str, _Chain | TraceError]
"""By name of the pool; the error if a pool cannot be used."""


def estimate(path: Path, settings: Settings, say: Say, *, sample_blocks: int, rebuild: bool = False) -> Plan:
    """Return the plan of a file. ``sample_blocks`` blocks of each stream are sampled; 0 means none.

    ``rebuild`` counts committed ranges that `apply --rebuild` has fetched again as not committed.

    Raises InvalidInput if apply would refuse the file.
    """
    job = read(path)
    needs_rpc = settings.engine.mode == "real"
    if is_symbolic(job) and not needs_rpc:
        raise InvalidInput("the fake engine has no head: write from_block and to_block as numbers")
    known = _known(job, settings, rebuild=rebuild)
    chains = {name: _chain(name, job, settings) for name in sorted({s.rpc_pool for s in job.streams.values()})}
    bounds = _bounds(job, known, chains)
    streams = [_stream(job, key, bounds, chains, known) for key in job.streams]
    receipts = _receipt_calls(streams, chains) if needs_rpc else {}
    streams = [_with_receipts(plan, job.chain_id, chains, receipts) for plan in streams]
    if sample_blocks:
        streams = _sampled(streams, chains, job.chain_id, settings, say, sample_blocks)
    call_notes = _call_notes(streams, chains, receipts, settings)
    tip = _tip(job, receipts, needs_rpc=needs_rpc)
    tip_notes = tip.notes() if tip else ()
    notes = [*_notes(job, bounds, chains, known), *tip_notes, *_quorum_notes(streams, chains), *call_notes]
    return Plan(job.name, job.chain_id, job.mode.kind, tuple(streams), tuple(notes), tip)


def _known(job: ChainSync, settings: Settings, *, rebuild: bool) -> _Known:
    """Read the registry. Raises InvalidInput if its jobs forbid this one."""
    if settings.registry.postgres_url is None:
        return _Known(f"no registry is running: {_NOTHING_COMMITTED}")
    try:
        if not is_current(settings.postgres_url):
            return _Known(f"the registry's schema is not current: {_NOTHING_COMMITTED}")
        database = Database(settings.postgres_url)
        try:
            return _registered(job, database, rebuild=rebuild)
        finally:
            database.close()
    except Unavailable as error:
        return _Known(f"{error.message}: {_NOTHING_COMMITTED}")


def _registered(job: ChainSync, database: Database, *, rebuild: bool) -> _Known:
    jobs = Jobs(database)
    outdated = jobs.check(job, rebuild=rebuild)
    catalog = Catalog(database)
    committed = {
        key: [] if key in outdated else catalog.committed_ranges(dataset_uuid(DEFAULT_ORG, job.chain_id, key))
        for key in job.streams
    }
    note = "committed ranges are left out" if any(committed.values()) else "nothing is committed yet"
    return _Known(note, jobs.resolved(job) if is_symbolic(job) else None, committed)


def _chain(name: str, job: ChainSync, settings: Settings) -> _Chain | TraceError:
    if settings.engine.mode == "fake":
        end = job.mode.to_block if isinstance(job.mode, FixedTarget) else 1_000_000
        return _Chain(RpcPool(name, ("made up",)), int(end) - 1, int(end) - 1)
    try:
        pool = GatewayRouting(settings).named(name)
        require_chain(pool, job.chain_id)
        head = chain_head(pool, chain_of(job.chain_id), job.finality_blocks)
        return _Chain(pool, head.latest, head.finalized, finality_note(pool, head))
    except TraceError as error:
        return error


def _bounds(job: ChainSync, known: _Known, chains: _Chains) -> Bounds | TraceError:
    """Resolve the bounds on the first stream's pool, as apply does. Raises InvalidInput if they contain no block."""
    if known.bounds is not None:
        return known.bounds
    first = chains[next(iter(job.streams.values())).rpc_pool]
    if not isinstance(first, TraceError):
        return resolve(job, lambda: first.finalized)
    return first if is_symbolic(job) else resolve(job, lambda: 0)


def _stream(job: ChainSync, key: str, bounds: Bounds | TraceError, chains: _Chains, known: _Known) -> StreamPlan:
    stream = job.streams[key]
    chain = chains[stream.rpc_pool]
    found = None if isinstance(bounds, TraceError) else stream_reach(job, stream, bounds)
    try:
        span = _span(job, stream, bounds, chain)
    except TraceError as error:
        return StreamPlan(key, stream, (), 0, None, None, error=str(error), reach=found)
    todo = tuple(holes(span, known.committed.get(key, ()))) if span else ()
    pool, wrong = (None, str(chain)) if isinstance(chain, TraceError) else (chain.pool, None)
    return StreamPlan(
        key,
        stream,
        todo,
        committed_blocks=(len(span) if span else 0) - sum(len(gap) for gap in todo),
        counts=counted(todo, stream, job.chain_id, pool.quorum if pool else 1),
        calls_per_second=limit_of(pool) if pool else None,
        error=wrong,
        reach=found,
    )


def _receipt_calls(streams: Sequence[StreamPlan], chains: _Chains) -> dict[str, float]:
    """Return the calls for the receipts of one block at each pool whose streams prove something with receipts."""
    found: dict[str, float] = {}
    for each in streams:
        name = each.stream.rpc_pool
        chain = chains[name]
        needs_receipts = each.stream.is_proven and evidence_needed(each.stream.dataset.name).receipts
        if name not in found and needs_receipts and each.todo and not isinstance(chain, TraceError):
            found[name] = calls_per_block(chain.pool, each.todo, chain.finalized)
    return found


def _with_receipts(plan: StreamPlan, chain_id: int, chains: _Chains, receipts: Mapping[str, float]) -> StreamPlan:
    """Return the plan with the calls for receipts that are fetched by transaction."""
    chain, calls = chains[plan.stream.rpc_pool], receipts.get(plan.stream.rpc_pool, 1.0)
    if plan.counts is None or calls == 1.0 or isinstance(chain, TraceError):
        return plan
    return replace(plan, counts=counted(plan.todo, plan.stream, chain_id, chain.pool.quorum, calls))


def _call_notes(
    streams: Sequence[StreamPlan], chains: _Chains, receipts: Mapping[str, float], settings: Settings
) -> Iterator[str]:
    """Yield what the calls at a pool depend on: methods that it does not offer, and the gateway."""
    for name, chain in chains.items():
        if isinstance(chain, TraceError) or settings.engine.mode == "fake":
            continue
        calls = receipts.get(name, 1.0)
        if calls != 1.0:
            yield (
                f"rpc pool {name} has an endpoint without eth_getBlockReceipts: receipts are fetched by transaction,"
                f" {calls:.1f} calls per block in the blocks that were looked at"
            )
        of_pool = [each for each in streams if each.stream.rpc_pool == name and each.counts and each.todo]
        blocks = blocks_of_any(of_pool)
        how = _sharing(of_pool, chain.pool, settings) if blocks else ""
        if how:
            shared = shared_calls(of_pool, calls)
            yield (
                f"rpc pool {name} {how}: {shared:,} calls for all its streams together, {shared / blocks:.1f} per block"
            )


def _sharing(plans: Sequence[StreamPlan], pool: RpcPool, settings: Settings) -> str:
    """Return how the streams of a pool share answers, or an empty text if they do not share all of them."""
    if all(is_routed(settings, each, pool.limits) for each in pool.endpoints):
        return "is used through the gateway, which shares answers"
    if all(each.stream.engine == "native" for each in plans):
        return "serves engine: native only, whose streams share evidence"
    return ""


def _span(job: ChainSync, stream: Stream, bounds: Bounds | TraceError, chain: _Chain | TraceError) -> BlockRange | None:
    """Return the blocks of a stream, or None if there are none yet. With ``follow_head`` only full ranges count.

    Raises the error of the chain or the bounds if they are unknown.
    """
    if isinstance(bounds, TraceError):
        raise bounds
    start, end = stream_start(job, stream, bounds), bounds.to_block
    following = follow(job)
    if following is not None:
        if isinstance(chain, TraceError):
            raise chain
        tip = followed_end(following, start, chain.latest, chain.finalized)
        end = tip // stream.chunk_size * stream.chunk_size
    return BlockRange(start, end) if end is not None and end > start else None


def _sampled(
    streams: Sequence[StreamPlan],
    chains: _Chains,
    chain_id: int,
    settings: Settings,
    say: Say,
    blocks: int,
) -> list[StreamPlan]:
    engine = selected_engine(**settings.engine.selection)
    extractor = Extractor(engine)
    sampler = _Sampler(extractor, chain_id, chains, needs_rpc=settings.engine.mode == "real")
    try:
        say(f"sampling {blocks} blocks of each stream")
        probed = [sampler.probed(plan) for plan in streams]
        return [sampler.sampled(plan, blocks, say) for plan in probed]
    finally:
        extractor.close()
        engine.close()


class _Sampler:
    """Extracts, proves and encodes sampled blocks like a range, in memory only."""

    def __init__(self, extractor: Extractor, chain_id: int, chains: _Chains, *, needs_rpc: bool) -> None:
        self._extractor = extractor
        self._chain_id = chain_id
        self._chains = chains
        self._needs_rpc = needs_rpc

    def probed(self, plan: StreamPlan) -> StreamPlan:
        """Extract the first and the last block. Return the plan; if one fails, with its error in ``error``.

        This starts engine processes and connections, so that their start is not part of the measured seconds.
        """
        chain = self._chains[plan.stream.rpc_pool]
        if plan.error or not plan.todo or isinstance(chain, TraceError):
            return plan
        span = _final_todo(plan, chain)
        if span is None:
            return replace(plan, error=f"nothing to sample: the chain is final up to block {chain.finalized}")
        try:
            for edge in (BlockRange(span.start, span.start + 1), BlockRange(span.end - 1, span.end)):
                self._tables(plan.stream, chain.pool, edge)
        except TraceError as error:
            return replace(plan, error=str(error))
        return plan

    def sampled(self, plan: StreamPlan, blocks: int, say: Say) -> StreamPlan:
        """Return the plan with a sample of ``blocks`` blocks, extracted one call after the other."""
        chain = self._chains[plan.stream.rpc_pool]
        if plan.error or isinstance(chain, TraceError) or (span := _final_todo(plan, chain)) is None:
            return plan
        spots = places(span, blocks)
        say(f"sampling {plan.dataset_key}: blocks {', '.join(map(str, spots))}")
        started = time.perf_counter()
        try:
            tables = [table for spot in spots for table in self._tables(plan.stream, chain.pool, spot)]
        except TraceError as error:
            return replace(plan, error=str(error))
        seconds = time.perf_counter() - started
        return replace(plan, sample=_sample(pa.concat_tables(tables), sum(len(spot) for spot in spots), seconds))

    def _tables(self, stream: Stream, pool: RpcPool, span: BlockRange) -> list[pa.Table]:
        proven = self._needs_rpc and stream.is_proven and is_provable(stream.dataset.name)
        request = RangeRequest(
            dataset=stream.dataset,
            block_range=span,
            chain_id=self._chain_id,
            columns=stream.dataset.stored_columns(stream.columns),
            verify=stream.verify,
            pool=pool,
            evidence=EvidenceCollector(stream.dataset.name, self._chain_id, None) if proven else None,
            options=engine_options(stream),
        )
        return [piece.table for piece in self._extractor.start(request)]


def _final_todo(plan: StreamPlan, chain: _Chain) -> BlockRange | None:
    """Return the range from the first to the last block that is not committed and is final; None if there is none."""
    if not plan.todo or plan.todo[0].start > chain.finalized:
        return None
    return BlockRange(plan.todo[0].start, min(plan.todo[-1].end, chain.finalized + 1))


def _sample(rows: pa.Table, blocks: int, seconds: float) -> Sample:
    smallest = encoded_bytes(rows.slice(0, 1))
    further = rows.num_rows - 1
    per_row = (encoded_bytes(rows) - smallest) / further if further > 0 else 0.0
    return Sample(blocks, rows.num_rows, seconds, bytes_per_file=smallest, bytes_per_row=per_row)


def _notes(job: ChainSync, bounds: Bounds | TraceError, chains: _Chains, known: _Known) -> Iterator[str]:
    """Yield the assumptions behind the figures."""
    yield known.note
    yield "calls are an upper bound if nothing fails: committed rows replace evidence for other streams"
    yield "time as sampled is an upper bound: one short call after the other; a sync makes many in parallel"
    yield from (chain.note for chain in chains.values() if not isinstance(chain, TraceError) and chain.note)
    heads = {name: chain.finalized for name, chain in chains.items() if not isinstance(chain, TraceError)}
    for name, final in heads.items():
        if follow(job) is not None:
            yield f"the plan ends at block {final} of rpc pool {name}; from there the job follows the head"
        elif not isinstance(bounds, TraceError) and bounds.to_block is not None and bounds.to_block > final + 1:
            yield f"the chain of rpc pool {name} is final up to block {final}; ranges beyond it wait for it"
    for name, chain in chains.items():
        if not isinstance(chain, TraceError) and limit_of(chain.pool) is None:
            yield f"no limit is set for rpc pool {name}: {variable_of(name, 'RPS')}, calls a second per endpoint"


def _tip(job: ChainSync, receipts: Mapping[str, float], *, needs_rpc: bool) -> TipPlan | None:
    """Return what following the head adds; None for a fixed target. The fake engine has no hot rows."""
    following = follow(job)
    if following is None:
        return None
    hot = {key: stream for key, stream in job.streams.items() if stream.can_be_hot and needs_rpc}
    most = max((receipts.get(stream.rpc_pool, 1.0) for stream in hot.values()), default=1.0)
    return TipPlan(following.backfill, tuple(hot), 1.0 + most)


def _quorum_notes(streams: Sequence[StreamPlan], chains: _Chains) -> Iterator[str]:
    def quorum(pool: str) -> int:
        chain = chains[pool]
        return 1 if isinstance(chain, TraceError) else chain.pool.quorum

    known = [(each.dataset_key, each.stream, each.reach) for each in streams if each.reach is not None]
    return quorum_lines(known, quorum)
