"""What the routes about the lake ask: one object for each service, which its application closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool

from trace_dagster.blocks import BlockRange
from trace_dagster.errors import TooMany
from trace_dagster.query.relations import Lake
from trace_dagster.registry.catalog import VisibleDataset
from trace_dagster.registry.changes import ChangeLog
from trace_dagster.registry.grants import Grants
from trace_dagster.service.change_feed import SharedFeed
from trace_dagster.service.describing import described_lake, listed_lines, only
from trace_dagster.service.errors import HttpRefusal
from trace_dagster.service.health import Health
from trace_dagster.service.parts import Parts
from trace_dagster.service.spooled import SpooledAnswer
from trace_dagster.store.objects import ObjectStore

_LISTINGS = 2
"""Listings of files that are made at a time."""
_LISTING_SECONDS = 10.0
"""A request waits for so long for its turn."""
_NO_SUCH_KEY = "_health"


class LakeAnswers:
    """Describes the lake to callers, by what their tokens may see."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._access = parts.opening.access
        self._listings = asyncio.BoundedSemaphore(_LISTINGS)
        self.feed = SharedFeed(ChangeLog(parts.database))
        store = ObjectStore(self._access, max_connections=2)
        self.health = Health(
            {
                "registry": parts.database.require_answer,
                "processes": parts.runner.pool.require_working,
                "object_store": lambda: store.stored_now(_NO_SUCH_KEY),
            }
        )
        pool = parts.runner.pool
        parts.metrics.watch("processes_started", "Processes for queries that were started.", lambda: pool.started)
        parts.metrics.watch("processes_ready", "Processes that wait for a query.", lambda: pool.ready)
        parts.metrics.watch("listeners", "Clients that wait for changes.", lambda: self.feed.listeners)

    def lake(self, grants: Grants) -> dict[str, Any]:
        """Return everything that these grants allow, as of one moment."""
        return described_lake(self._parts.catalog.described(grants), self._access)

    def dataset(self, grants: Grants, name: str) -> dict[str, Any]:
        """Return one dataset by its full or short name. Raises HttpRefusal 404."""
        found = only(self.lake(grants), name)
        if found is None:
            raise _unknown()
        return found

    async def files(self, grants: Grants, name: str, requested: BlockRange) -> SpooledAnswer:
        """Return the files of a dataset that hold visible rows of some blocks, as of one moment.

        A request that waits for its turn holds no thread: other routes need the threads to check tokens. Raises
        HttpRefusal 404, TooMany if too many others are asking for files.
        """
        found = await run_in_threadpool(self._named, grants, name)
        async with self._turn():
            return await run_in_threadpool(self._listed, found, requested)

    def close(self) -> None:
        """Let listeners end."""
        self.feed.close()

    def _named(self, grants: Grants, name: str) -> VisibleDataset:
        visible = [each for each in self._parts.catalog.datasets() if grants.allows(each.chain_id, each.dataset_key)]
        found = Lake(visible, self._access).dataset(name)
        if found is None:
            raise _unknown()
        return found

    def _listed(self, found: VisibleDataset, requested: BlockRange) -> SpooledAnswer:
        with self._parts.catalog.listing(found.dataset_uuid, requested, self._access.uri("")) as (header, files):
            return SpooledAnswer(listed_lines(header, files, requested))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_LISTING_SECONDS):
                await self._listings.acquire()
        except TimeoutError:
            raise TooMany("too many clients list files now: try again") from None
        try:
            yield
        finally:
            self._listings.release()


def _unknown() -> HttpRefusal:
    message = "there is no such dataset: GET /v1/datasets has the names; if several chains have it, name it in full"
    return HttpRefusal(404, "unknown_dataset", message)
