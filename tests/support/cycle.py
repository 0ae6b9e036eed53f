"""One turn of the whole product without Dagster: observe, plan, publish, dispatch, ingest, acknowledge.

This process plays the runs: a batch's run works through its ranges one by one, and ends when the turn ends, with or
without an error.
"""

from __future__ import annotations

from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import TraceError
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.ingest.claim import ClaimedRange
from trace_dagster.ingest.commit import Committer
from trace_dagster.ingest.heartbeat import Heartbeats
from trace_dagster.ingest.ingester import Ingester
from trace_dagster.planning.dispatcher import Dispatcher, RunBatch, RunState, loaded_names
from trace_dagster.planning.heads import Heads
from trace_dagster.planning.planner import Planner
from trace_dagster.registry.connection import Database
from trace_dagster.registry.jobs import Jobs
from trace_dagster.registry.publications import Publications
from trace_dagster.registry.tasks import Tasks
from trace_dagster.rpc.pools import RpcPool
from trace_dagster.store.objects import ObjectStore
from trace_dagster.wakeups.outbox import Outbox
from trace_dagster.wakeups.postgres import PgQueueDriver

HEAD = 1_000_000


class Cycle:
    """The parts of one process, and turns of them."""

    def __init__(self, database: Database, store: ObjectStore, *, head: int = HEAD, ttl: float = 60.0) -> None:
        self.database = database
        self.jobs = Jobs(database)
        self.tasks = Tasks(database, lease_ttl_seconds=ttl)
        self.queue = PgQueueDriver(database)
        self.outbox = Outbox(database)
        self.heads = Heads(database, lambda _: (head, head))
        self.planner = Planner(database, self.jobs)
        self.dispatcher = Dispatcher(database, self.jobs, self.queue)
        self.publications = Publications(database)
        self.heartbeats = Heartbeats(self.tasks)
        self.ingest = Ingester(
            tasks=self.tasks,
            publications=self.publications,
            committer=Committer(store, self.publications),
            extractor=Extractor(FakeCryo()),
            heartbeats=self.heartbeats,
            pool=lambda spec: RpcPool(spec.rpc_pool, ("made up",)),
        )
        self.runs: dict[UUID, RunState] = {}
        """Batches with a run, and how far that run is."""

    def turn(self) -> None:
        """Run every part one time. Raises the error of a part: a process would end or continue, and the tests
        try both.
        """
        self.heads.observe(self.jobs.streams())
        self.planner.plan()
        self.outbox.rewake(patience_seconds=60, limit=1000)
        self.outbox.publish(self.queue, limit=1000)
        while batches := self.dispatch():  # the last tick acknowledges the runs that ended
            for batch in batches:
                self.run(batch)

    def dispatch(self, state: RunState = RunState.STARTED) -> list[RunBatch]:
        """Run one tick of the dispatcher; its batches have a run in this state from then on."""
        batches = self.dispatcher.tick(
            lambda _, keys: {key: number for number, key in enumerate(sorted(keys))},
            lambda wanted: {batch: self.runs[batch] for batch in wanted if batch in self.runs},
            loaded_names(self.jobs.streams()),
        )
        self.runs |= {batch.batch_id: state for batch in batches}
        return batches

    def run(self, batch: RunBatch) -> None:
        """Claim and commit the ranges of a batch; a failed range does not stop the others."""
        try:
            for stream in batch.group.streams:
                if stream.dataset_key in batch.dataset_keys:
                    for key in batch.keys:
                        self._range(stream, BlockRange.from_key(key))
        finally:
            self.runs[batch.batch_id] = RunState.OVER

    def _range(self, spec, block_range: BlockRange) -> None:
        try:
            work = self.ingest.claim(spec, block_range, "run", wait_seconds=0)
            if isinstance(work, ClaimedRange):
                self.tasks.heartbeat(work.lease)
                self.ingest.commit(self.ingest.start(work))
        except TraceError:
            return

    def close(self) -> None:
        """Stop the thread."""
        self.heartbeats.close()
