"""The parts of one process, built on first use from checked settings. This module only composes them.

Parts that need an engine, proofs or the object store are imported where they are built, so that a process which
describes assets, plans, or reads the status does not pay for them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from trace_dagster.compaction.due import DueWindows
from trace_dagster.planning.dispatcher import Dispatcher
from trace_dagster.planning.head_reader import HeadReader, made_up_head
from trace_dagster.planning.heads import Heads
from trace_dagster.planning.planner import Planner
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.connection import Database
from trace_dagster.registry.endpoint_scores import EndpointScores
from trace_dagster.registry.forks import Forks
from trace_dagster.registry.hot import HotStore
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.streams import StreamSpec
from trace_dagster.registry.tasks import Tasks
from trace_dagster.registry.unreliable_methods import UnreliableMethods
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.wakeups.outbox import Outbox
from trace_dagster.wakeups.postgres import PgQueueDriver

if TYPE_CHECKING:
    from trace_dagster.blocks import BlockRange
    from trace_dagster.compaction.run import CompactionRunner
    from trace_dagster.config.settings import Settings
    from trace_dagster.engine.base import Engine
    from trace_dagster.evidence.cache import EvidenceCache
    from trace_dagster.evidence.collector import EvidenceCollector
    from trace_dagster.evidence.committed_objects import CommittedObjects
    from trace_dagster.extraction.extractor import Extractor
    from trace_dagster.follow.service import Followers
    from trace_dagster.gateway.routing import GatewayRouting
    from trace_dagster.ingest.commit import Committer
    from trace_dagster.ingest.heartbeat import Heartbeats
    from trace_dagster.ingest.ingester import ChainAccess, Ingester
    from trace_dagster.ingest.stream_pools import MadeUpPools, StreamPools
    from trace_dagster.store.objects import ObjectStore
    from trace_dagster.wakeups.driver import QueueDriver


def prepare_bucket(settings: Settings) -> None:
    """Create the bucket of the settings, and try put, conditional put, get, list and delete on it.

    Raises InvalidInput or Unavailable with the cause if one of them fails.
    """
    from trace_dagster.store import probe

    probe.prepare_bucket(settings.s3)


class Runtime:
    """Registry, store, engine and ingest path of one process. Close it when done."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

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
            lease_ttl_seconds=self.settings.ranges.lease_ttl_seconds,
            max_attempts=self.settings.ranges.max_attempts,
            retry_base_seconds=self.settings.ranges.retry_base_seconds,
        )

    @cached_property
    def outbox(self) -> Outbox:
        """Wake-ups to be published."""
        return Outbox(self.database)

    @cached_property
    def queue(self) -> QueueDriver:
        """The queue of wake-ups: a table of the registry, or SQS if its queues are configured."""
        sqs = self.settings.sqs
        if sqs is None:
            return PgQueueDriver(self.database)
        from trace_dagster.store.credentials import CredentialSource
        from trace_dagster.wakeups.sqs import SqsQueueDriver

        access = self.settings.s3
        return SqsQueueDriver(
            sqs.queue_url,
            sqs.dead_queue_url,
            endpoint=sqs.endpoint,
            region=access.region,
            credentials=CredentialSource(sqs.access_key, sqs.secret_key)
            if sqs.access_key
            else CredentialSource.of(access),
        )

    @cached_property
    def heads(self) -> Heads:
        """Observation of the chains' heads."""
        return Heads(self.database, HeadReader(self.pools.named).read if self.needs_rpc else made_up_head)

    @cached_property
    def planner(self) -> Planner:
        """Ranges to tasks."""
        return Planner(self.database, self.jobs)

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Wake-ups to runs."""
        return Dispatcher(self.database, self.jobs, self.queue, ranges_per_run=self.settings.ranges.ranges_per_run)

    @cached_property
    def publications(self) -> Publications:
        """Commits."""
        return Publications(self.database)

    @cached_property
    def due_windows(self) -> DueWindows:
        """Windows of streams, and which of them are due to be compacted."""
        return DueWindows(self.database)

    @cached_property
    def compaction(self) -> CompactionRunner:
        """Compaction of windows."""
        from trace_dagster.compaction.compactor import Compactor
        from trace_dagster.compaction.run import CompactionRunner

        ttl = self.settings.ranges.lease_ttl_seconds
        return CompactionRunner(Compactor(self.database, self.store, lease_ttl_seconds=ttl), self.due_windows)

    @cached_property
    def catalog(self) -> Catalog:
        """Visible datasets and their files."""
        return Catalog(self.database)

    @cached_property
    def endpoint_scores(self) -> EndpointScores:
        """Scores of endpoints: those that lied are asked last."""
        return EndpointScores(self.database)

    @cached_property
    def unreliable_methods(self) -> UnreliableMethods:
        """Methods that are not asked at an endpoint for a while."""
        return UnreliableMethods(self.database)

    @cached_property
    def forks(self) -> Forks:
        """Invalidation of committed versions."""
        return Forks(self.database)

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        from trace_dagster.store.objects import ObjectStore

        return ObjectStore(self.settings.s3)

    @cached_property
    def committed_objects(self) -> CommittedObjects:
        """Comparison of committed files with the object store."""
        from trace_dagster.evidence.committed_objects import CommittedObjects

        return CommittedObjects(self.database, self.store)

    @cached_property
    def committer(self) -> Committer:
        """The commit protocol."""
        from trace_dagster.ingest.commit import Committer

        return Committer(self.store, self.publications, self.settings.caps)

    @cached_property
    def engine(self) -> Engine:
        """The extraction engine that TRACE_CRYO_MODE names."""
        from trace_dagster.engine.select import selected_engine

        return selected_engine(**self.settings.engine.selection)

    @property
    def needs_rpc(self) -> bool:
        """False for the fake engine, which makes up its chain."""
        return not self.engine.name.startswith("fake")

    @cached_property
    def routing(self) -> GatewayRouting:
        """The choice of endpoints that are asked through a gateway."""
        from trace_dagster.gateway.routing import GatewayRouting

        return GatewayRouting(self.settings)

    @cached_property
    def pools(self) -> StreamPools | MadeUpPools:
        """RPC pools, checked to serve their chain."""
        from trace_dagster.ingest.stream_pools import MadeUpPools, StreamPools

        return StreamPools(self._pool_named, self.routing) if self.needs_rpc else MadeUpPools()

    @cached_property
    def heartbeats(self) -> Heartbeats:
        """Lease renewal."""
        from trace_dagster.ingest.heartbeat import Heartbeats

        return Heartbeats(self.tasks)

    @cached_property
    def evidence_cache(self) -> EvidenceCache:
        """Evidence that several streams need."""
        from trace_dagster.evidence.cache import EvidenceCache

        return EvidenceCache()

    @cached_property
    def extractor(self) -> Extractor:
        """Extraction and proof of ranges."""
        from trace_dagster.extraction.extractor import Extractor
        from trace_dagster.rpc.latency import requests_at_once

        if not self.needs_rpc:
            return Extractor(self.engine)
        return Extractor(
            self.engine,
            self.endpoint_scores.best_first,
            self.endpoint_scores.record_lie,
            note_unreliable=self.unreliable_methods.note_unreliable,
            requests_at_once=requests_at_once,
            is_unreliable=self.unreliable_methods.is_unreliable,
        )

    @cached_property
    def tip_database(self) -> Database:
        """Connections of the followers, which must notice within seconds that the registry is back."""
        return Database(self.settings.postgres_url, connect_timeout_seconds=2.0, reconnect_seconds=2.0)

    @cached_property
    def followers(self) -> Followers:
        """The followers of the chains' heads."""
        from trace_dagster.follow.follower import FollowerParts
        from trace_dagster.follow.service import Followers, holder_name

        scores, jobs = EndpointScores(self.tip_database), Jobs(self.tip_database)
        parts = FollowerParts(
            store=HotStore(self.tip_database),
            best_first=scores.best_first,
            record_lie=scores.record_lie,
            halt=lambda spec, reason: jobs.halt(spec.dataset_uuid, reason),
            pool=lambda name: self.routing.for_tip(self._pool_named(name)),
            holder=holder_name(),
        )
        return Followers(jobs.streams if self.needs_rpc else list, parts)

    @cached_property
    def ingester(self) -> Ingester:
        """The path from claim to commit."""
        from trace_dagster.ingest.ingester import Ingester

        return Ingester(
            tasks=self.tasks,
            publications=self.publications,
            committer=self.committer,
            extractor=self.extractor,
            heartbeats=self.heartbeats,
            pool=self.pools.of_stream,
            chain=self._chain_access() if self.needs_rpc else None,
        )

    def evidence(self, spec: StreamSpec, block_range: BlockRange) -> EvidenceCollector:
        """Return the collector of evidence for a range: from committed rows if there are some, else from the node."""
        from trace_dagster.evidence.collector import EvidenceCollector
        from trace_dagster.evidence.committed_rows import CommittedRows
        from trace_dagster.evidence.committed_source import SOURCES, CommittedSource

        rows = CommittedRows(self.database, self.store, spec.dataset_uuid, block_range, SOURCES)
        committed = CommittedSource(rows, spec.chain_id, spec.dataset.name)
        return EvidenceCollector(
            spec.dataset.name,
            spec.chain_id,
            committed,
            self.evidence_cache,
            block_range,
            for_rows=spec.options.get("engine") == "native",
        )

    def close(self) -> None:
        """End ranges that are still open, then worker processes, threads and connections that were started."""
        for name in (
            "followers",
            "ingester",
            "extractor",
            "engine",
            "routing",
            "heartbeats",
            "tip_database",
            "database",
        ):
            if name in self.__dict__:
                self.__dict__[name].close()

    def _chain_access(self) -> ChainAccess:
        from trace_dagster.ingest.fork_resolution import ForkResolver
        from trace_dagster.ingest.ingester import ChainAccess

        resolver = ForkResolver(self.forks, self._pool_named, self.endpoint_scores.record_lie)
        return ChainAccess(
            evidence=self.evidence,
            resolve=resolver.resolve,
            halt=lambda spec, reason: self.jobs.halt(spec.dataset_uuid, reason),
        )

    def _pool_named(self, name: str) -> RpcPool:
        return self.routing.named(name)
