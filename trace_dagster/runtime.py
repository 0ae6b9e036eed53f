"""The parts of one process, built on first use from checked settings.

What needs more than the registry is imported where it is built: whoever describes assets, plans or asks for the
status pays for no engine, no proof and no object store.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trace_dagster.blocks import BlockRange
from trace_dagster.config.settings import Settings
from trace_dagster.errors import ForkConflict, InvalidInput, TraceError
from trace_dagster.ingest.heartbeat import Heart
from trace_dagster.planning.dispatcher import Dispatcher
from trace_dagster.planning.heads import Heads
from trace_dagster.planning.planner import Planner
from trace_dagster.registry.catalog import Reading
from trace_dagster.registry.connection import Database
from trace_dagster.registry.endpoint_scores import Standings
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.streams import StreamRow, StreamSpec
from trace_dagster.registry.tasks import Tasks
from trace_dagster.rpc.pools import RpcPool, pool_named
from trace_dagster.wakeups.driver import QueueDriver
from trace_dagster.wakeups.outbox import Outbox
from trace_dagster.wakeups.postgres import PgQueueDriver

if TYPE_CHECKING:
    from trace_dagster.analytics.derived import Derived
    from trace_dagster.analytics.templates import Template
    from trace_dagster.engine.base import Engine
    from trace_dagster.evidence.cache import Shared
    from trace_dagster.evidence.collector import Witness
    from trace_dagster.extraction.extractor import Pieces
    from trace_dagster.gateway.routing import Doors
    from trace_dagster.ingest.commit import Committer
    from trace_dagster.ingest.ingester import Ingest
    from trace_dagster.store.objects import ObjectStore

WAKEUPS_AT_ONCE = 4096
"""A tick's or a command's share; what is beyond it is published by the next tick."""


class Runtime:
    """Registry, store, engine and the ingest path of one process; close it when done."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._checked_pools: set[tuple[str, int]] = set()
        self._wanted: dict[tuple[str, int], frozenset[str]] = {}

    @cached_property
    def database(self) -> Database:
        """Connections to the registry."""
        return Database(self.settings.postgres_url)

    @cached_property
    def jobs(self) -> Jobs:
        """Applied jobs."""
        return Jobs(self.database)

    @cached_property
    def tasks(self) -> Tasks:
        """Leases and fencing."""
        return Tasks(
            self.database,
            lease_ttl_seconds=self.settings.lease_ttl_seconds,
            max_attempts=self.settings.max_attempts,
            retry_base_seconds=self.settings.retry_base_seconds,
        )

    @cached_property
    def outbox(self) -> Outbox:
        """Wake-ups to be published."""
        return Outbox(self.database)

    @cached_property
    def queue(self) -> QueueDriver:
        """The queue of wake-ups: a table of the registry, or SQS where its queues are named."""
        sqs = self.settings.sqs
        if sqs is None:
            return PgQueueDriver(self.database)
        from trace_dagster.wakeups.sqs import SqsQueueDriver

        access = self.settings.s3
        return SqsQueueDriver(
            sqs.queue_url,
            sqs.dead_queue_url,
            endpoint=sqs.endpoint,
            region=access.region,
            access_key=sqs.access_key or access.access_key,
            secret_key=sqs.secret_key or access.secret_key,
        )

    @cached_property
    def heads(self) -> Heads:
        """Head observation."""
        return Heads(self.database, self.read_head)

    @cached_property
    def planner(self) -> Planner:
        """The ledger's filler."""
        return Planner(self.database, self.jobs)

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Wake-ups to batches."""
        return Dispatcher(self.database, self.jobs, self.queue, ranges_per_run=self.settings.ranges_per_run)

    @cached_property
    def publications(self) -> Publications:
        """Commits."""
        return Publications(self.database)

    @cached_property
    def reading(self) -> Reading:
        """What readers may see."""
        return Reading(self.database)

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        from trace_dagster.store.objects import ObjectStore

        return ObjectStore(self.settings.s3)

    @cached_property
    def committer(self) -> Committer:
        """The commit protocol."""
        from trace_dagster.ingest.commit import Committer

        return Committer(self.store, self.publications, self.settings.caps)

    @cached_property
    def engine(self) -> Engine:
        """The extraction engine TRACE_CRYO_MODE names."""
        from trace_dagster.engine.select import engine_from

        return engine_from(self.settings.environment)

    @cached_property
    def heart(self) -> Heart:
        """Lease renewal."""
        return Heart(self.tasks)

    @cached_property
    def ingest(self) -> Ingest:
        """The path from claim to commit."""
        from trace_dagster.ingest.ingester import Ingest

        return Ingest(
            tasks=self.tasks,
            publications=self.publications,
            committer=self.committer,
            pieces=self.pieces,
            heart=self.heart,
            pool=self.stream_pool,
            judge=self if self.needs_rpc else None,
        )

    @cached_property
    def pieces(self) -> Pieces:
        """Extraction and proof."""
        from trace_dagster.extraction.extractor import Pieces
        from trace_dagster.rpc.latency import requests_at_once

        if not self.needs_rpc:
            return Pieces(self.engine)
        return Pieces(self.engine, self.standings.best_first, self.standings.lied, requests_at_once=requests_at_once)

    @cached_property
    def doors(self) -> Doors:
        """Which endpoints are asked through a gateway."""
        from trace_dagster.gateway.routing import Doors

        return Doors(self.settings.environment)

    @cached_property
    def shared(self) -> Shared:
        """Evidence that several streams need."""
        from trace_dagster.evidence.cache import Shared

        return Shared()

    @cached_property
    def standings(self) -> Standings:
        """Which endpoints lied."""
        return Standings(self.database)

    @cached_property
    def forks(self) -> Forks:
        """Invalidation of committed versions."""
        return Forks(self.database)

    def witness(self, spec: StreamSpec, block_range: BlockRange) -> Witness:
        """Measures a range's rows against what is committed, else against the node."""
        from trace_dagster.evidence.collector import SOURCES, Witness
        from trace_dagster.evidence.committed import Committed

        committed = Committed(self.database, self.store, spec.dataset_uuid, block_range, SOURCES)
        return Witness(spec.dataset.name, spec.chain_id, committed, self.shared, block_range)

    def settle(self, conflict: ForkConflict, pool: RpcPool, used: list[str]) -> TraceError:
        """See :func:`trace_dagster.ingest.fork_resolution.settle`."""
        from trace_dagster.ingest.fork_resolution import settle

        pools = {pool.name: pool}
        for name in self.forks.pools_of(conflict.versions):
            with suppress(InvalidInput):  # a pool that has no URL any more cannot be asked
                pools.setdefault(name, pool_named(name, self.settings.environment))
        return settle(conflict, list(pools.values()), used, self.forks, self.standings.lied)

    def derive(self, template: Template, chain_id: int, given: Mapping[str, Any]) -> Derived:
        """See :func:`trace_dagster.analytics.derive.derive`."""
        from trace_dagster.analytics.derive import derive

        return derive(template, chain_id, given, self.reading, self.settings.s3)

    def halt(self, spec: StreamSpec, reason: str) -> None:
        """Stop a stream until its job is resumed."""
        self.jobs.halt(spec.dataset_uuid, reason)

    def pool(self, name: str, chain_id: int) -> RpcPool:
        """A pool whose endpoints serve ``chain_id``: asked once per process.

        Raises InvalidInput for an unknown pool or another chain, Unavailable when it does not answer.
        """
        from trace_dagster.rpc.client import require_chain

        if not self.needs_rpc:
            return RpcPool(name, ("made up",))
        wanted = self._wanted.get((name, chain_id), frozenset())
        pool = self.doors.through(pool_named(name, self.settings.environment), wanted)
        if (name, chain_id) not in self._checked_pools:
            require_chain(pool, chain_id)
            self._checked_pools.add((name, chain_id))
        return pool

    def stream_pool(self, spec: StreamSpec) -> RpcPool:
        """The pool of a stream; its doors know what the streams asked for so far fetch of each block anyway."""
        from trace_dagster.evidence.collector import fetched

        key = (spec.rpc_pool, spec.chain_id)
        self._wanted[key] = self._wanted.get(key, frozenset()) | fetched(spec.dataset, spec.columns, spec.verify)
        return self.pool(*key)

    def publish(self) -> int:
        """Hand due wake-ups to the queue, up to WAKEUPS_AT_ONCE; returns how many."""
        return self.outbox.publish(self.queue, limit=WAKEUPS_AT_ONCE)

    @property
    def needs_rpc(self) -> bool:
        """False for the fake engine, which makes its chain up."""
        return not self.engine.name.startswith("fake")

    def read_head(self, stream: StreamRow) -> tuple[int, int]:
        """(latest, finalized) block numbers of the stream's pool."""
        from trace_dagster.rpc.client import block_number

        if not self.needs_rpc:
            end = stream.to_block or 1_000_000
            return end, end
        pool = self.pool(stream.rpc_pool, stream.chain_id)
        return block_number(pool, "latest"), block_number(pool, "finalized")

    def close(self) -> None:
        """End worker processes, threads and connections that were started."""
        for name in ("pieces", "engine", "doors", "database"):
            if name in self.__dict__:
                self.__dict__[name].close()
        if "heart" in self.__dict__:
            self.heart.stop()
