"""Jobs and streams: apply a chain_sync, and read back what was applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from trace_dagster.config.chain_sync import ChainSync, FollowHead, Stream
from trace_dagster.config.compact import Compact
from trace_dagster.errors import InvalidInput, OldForm
from trace_dagster.identity import DEFAULT_ORG, LAKE_FORM, config_hash, dataset_uuid, job_id
from trace_dagster.registry.connection import Database, Row, Session, storable
from trace_dagster.registry.forms import old_form
from trace_dagster.registry.streams import StreamRow, stream_row
from trace_dagster.registry.wake import wake

WOKEN_ON_RESUME = 4096
"""Wake-ups that a resume writes at once. The reconciliation wakes the other tasks."""

REBUILT = "rebuilt: its columns, engine or form changed"
"""Reason of the changes that a rebuild writes."""

ENGINE_VERSION = "0.3.2"
"""The Cryo version in the config hash. A minor version may change rows, a patch level does not."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A job's span with symbolic bounds resolved; ``to_block`` is None if the job follows the head."""

    from_block: int
    to_block: int | None


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of an apply: the job, whether it is new, and its enabled and disabled streams."""

    job_id: UUID
    name: str
    created: bool
    streams: list[str]
    disabled: list[str]
    rebuilt: dict[str, int]
    """Ranges that were hidden to be fetched again, by dataset key."""


class Jobs:
    """Applies and reads the jobs of one organisation."""

    def __init__(self, database: Database, org_id: UUID = DEFAULT_ORG) -> None:
        self._database = database
        self._org_id = org_id

    def resolved(self, job: ChainSync) -> Bounds | None:
        """Return the bounds that this job was applied with before; None if it never was, or the file has others now."""
        with self._database.transaction() as session:
            row = session.one("job_by_name", org_id=self._org_id, name=job.name)
        if row is None or _written_bounds(row["spec"]["chain_sync"]["mode"]) != _written_bounds(job.mode.model_dump()):
            return None
        return Bounds(**row["spec"]["bounds"])

    def apply(self, job: ChainSync, bounds: Bounds, *, rebuild: bool = False) -> Applied:
        """Register a job in one transaction. Applying the same file again changes nothing.

        ``rebuild`` hides the ranges of other columns, another engine version or another form, and queues them as their
        next generations. Raise InvalidInput for a change that would mix rows of two meanings under one name, OldForm
        for a stream whose rows have an older form.
        """
        identity = job_id(self._org_id, job.name)
        rebuilt: dict[str, int] = {}
        with self._database.transaction() as session:
            session.one("lock_apply")
            before = session.one("job_by_name", org_id=self._org_id, name=job.name)
            _refuse_another_chain(before, job)
            session.run(
                "upsert_job",
                job_id=identity,
                org_id=self._org_id,
                name=job.name,
                chain_id=job.chain_id,
                mode=job.mode.kind,
                spec=Jsonb({"chain_sync": job.model_dump(mode="json"), "bounds": asdict(bounds)}),
            )
            kept = []
            for key, stream in job.streams.items():
                dataset, rebuilt[key] = self._apply_stream(session, identity, job, key, stream, bounds, rebuild=rebuild)
                kept.append(dataset)
            disabled = [
                row["dataset_key"]
                for row in session.all("all_streams")
                if row["job_id"] == identity and row["enabled"] and row["dataset_uuid"] not in kept
            ]
            session.run("disable_other_streams", job_id=identity, kept=kept)
            if any(rebuilt.values()):
                _wake_waiting(session, identity)
        return Applied(identity, job.name, before is None, list(job.streams), disabled, rebuilt)

    def check(self, job: ChainSync, *, rebuild: bool = False) -> set[str]:
        """Return the dataset keys of streams that ``rebuild`` fetches again. Change nothing.

        Raise InvalidInput or OldForm if :meth:`apply` would.
        """
        identity = job_id(self._org_id, job.name)
        outdated = set()
        with self._database.snapshot() as session:
            _refuse_another_chain(session.one("job_by_name", org_id=self._org_id, name=job.name), job)
            for key, stream in job.streams.items():
                dataset = dataset_uuid(self._org_id, job.chain_id, key)
                owner = session.one("dataset_owner", dataset_uuid=dataset)
                _refuse_changes(owner, identity, job, key, stream, rebuild=rebuild)
                if _is_outdated(owner, stream):
                    outdated.add(key)
        return outdated

    def require_present_form(self, wanted: str) -> None:
        """Raise OldForm, with the way out, if a stream of this job stores its rows in an older form."""
        identity = self.find(wanted)
        for stream in self.streams():
            if stream.job_id == identity and stream.enabled and stream.old_form:
                raise OldForm(f"stream {stream.dataset_key} of job {stream.job_name}: {stream.old_form}")

    def set_enabled(self, name: str, enabled: bool) -> bool:
        """Pause or resume a job; return whether that changed anything. Raise InvalidInput if the job is unknown."""
        self.find(name)
        with self._database.transaction() as session:
            job = job_id(self._org_id, name)
            changed = session.run("set_job_enabled", org_id=self._org_id, name=name, enabled=enabled)
            if enabled:
                changed += session.run("clear_halts", job_id=job)
            if changed and enabled:
                _wake_waiting(session, job)
        return bool(changed)

    def replan(self, dataset: UUID) -> None:
        """Have the planner look at a stream's whole span again and plan the ranges that have no task."""
        with self._database.transaction() as session:
            session.run("lock_plan", dataset_uuid=dataset)
            session.run("rewind_stream", dataset_uuid=dataset)

    def halt(self, dataset: UUID, reason: str) -> None:
        """Stop one stream until its job is resumed."""
        with self._database.transaction() as session:
            session.run("halt_stream", dataset_uuid=dataset, reason=storable(reason))

    def find(self, wanted: str) -> UUID:
        """Return the id of a job, by name or id. Raise InvalidInput with the known jobs if there is none."""
        with self._database.snapshot() as session:
            found = {row["name"]: row["job_id"] for row in session.all("all_jobs", org_id=self._org_id)}
        for name, identity in found.items():
            if wanted in (name, str(identity)):
                return UUID(str(identity))
        raise InvalidInput(f"no job is called {wanted!r}; known: {', '.join(found) or 'none yet'}")

    def stream_of(self, wanted: str, dataset_key: str) -> StreamRow:
        """Return one stream of a job. Raise InvalidInput with the known streams if there is none."""
        identity = self.find(wanted)
        mine = {stream.dataset_key: stream for stream in self.streams() if stream.job_id == identity}
        if dataset_key not in mine:
            raise InvalidInput(f"job {wanted} has no stream {dataset_key!r}; known: {', '.join(mine)}")
        return mine[dataset_key]

    def add_derived(self, dataset: UUID, chain_id: int, template: str, parameters: dict[str, Any]) -> None:
        """Register a derived dataset before its first commit."""
        with self._database.transaction() as session:
            session.run(
                "insert_dataset",
                dataset_uuid=dataset,
                org_id=self._org_id,
                chain_id=chain_id,
                dataset_key=template,
                kind="derived",
                source=template,
                parameters=Jsonb(parameters),
            )

    def streams(self) -> list[StreamRow]:
        """Return every stream of every job, by job name and dataset key."""
        with self._database.snapshot() as session:
            return [stream_row(row) for row in session.all("all_streams")]

    def _apply_stream(
        self,
        session: Session,
        identity: UUID,
        job: ChainSync,
        key: str,
        stream: Stream,
        bounds: Bounds,
        *,
        rebuild: bool,
    ) -> tuple[UUID, int]:
        """Register one stream; return its dataset, and the number of its ranges that are rebuilt."""
        dataset = dataset_uuid(self._org_id, job.chain_id, key)
        session.one("lock_plan", dataset_uuid=dataset)
        owner = session.one("dataset_owner", dataset_uuid=dataset)
        _refuse_changes(owner, identity, job, key, stream, rebuild=rebuild)
        session.run(
            "insert_dataset",
            dataset_uuid=dataset,
            org_id=self._org_id,
            chain_id=job.chain_id,
            dataset_key=key,
            kind="stream",
            source=stream.dataset.name,
            parameters=Jsonb({}),
        )
        from_block = stream_start(job, stream, bounds)
        session.run(
            "upsert_stream",
            dataset_uuid=dataset,
            job_id=identity,
            rpc_pool=stream.rpc_pool,
            chunk_size=stream.chunk_size,
            max_inflight=stream.max_inflight,
            columns=list(stream.dataset.stored_columns(stream.columns)),
            config_hash=_config_hash(stream),
            verify=stream.verify,
            options=Jsonb({**engine_options(stream), "compact": compact_option(stream)}),
            from_block=from_block,
            to_block=bounds.to_block,
        )
        rebuilt = _rebuild(session, dataset, _config_hash(stream)) if rebuild else 0
        if owner and owner["chunk_size"] is not None and owner["chunk_size"] != stream.chunk_size:
            session.run("supersede_uncommitted", dataset_uuid=dataset)
        session.run("supersede_unwanted", dataset_uuid=dataset, from_block=from_block, to_block=bounds.to_block)
        session.run("rewind_stream", dataset_uuid=dataset)
        return dataset, rebuilt


def _rebuild(session: Session, dataset: UUID, config: str) -> int:
    """Hide a stream's outdated versions and queue their ranges; return how many. Tasks are locked first, as in a
    commit.
    """
    session.run("requeue_outdated", dataset_uuid=dataset, config_hash=config)
    session.run("lock_outdated", dataset_uuid=dataset, config_hash=config)
    hidden = session.one("hide_outdated", dataset_uuid=dataset, config_hash=config, reason=REBUILT)
    return int(hidden["n"]) if hidden else 0


def _wake_waiting(session: Session, job: UUID) -> None:
    waiting = session.all("waiting_tasks", job_id=job, limit=WOKEN_ON_RESUME)
    wake(session, [row["task_id"] for row in waiting])


def _config_hash(stream: Stream) -> str:
    return config_hash(stream.dataset.name, stream.dataset.stored_columns(stream.columns), ENGINE_VERSION)


def _written_bounds(mode: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what bounds are resolved from. Other keys of a mode, and those that it did not have yet, move no bound."""
    return mode["kind"], mode["from_block"], mode.get("to_block")


def _refuse_another_chain(before: Row | None, job: ChainSync) -> None:
    if before and before["chain_id"] != job.chain_id:
        raise InvalidInput(
            f"job {job.name} is of chain {before['chain_id']}: a job's chain_id cannot change; use another name"
        )


def _is_outdated(owner: Row | None, stream: Stream) -> bool:
    """Return whether a stream is applied with other columns, another engine version or another form."""
    if owner is None or owner["config_hash"] is None:
        return False
    return bool(owner["config_hash"] != _config_hash(stream) or owner["form"] != LAKE_FORM)


def _refuse_changes(
    owner: Row | None, identity: UUID, job: ChainSync, key: str, stream: Stream, *, rebuild: bool
) -> None:
    if owner is None:
        return
    where = f"streams.{key}"
    if owner["source"] != stream.dataset.name:
        raise InvalidInput(
            f"{where}: dataset_key {key!r} of chain {job.chain_id} holds {owner['source']} for ever: use another key"
        )
    if owner["job_id"] not in (None, identity):
        raise InvalidInput(
            f"{where}: job {owner['job_name']} already syncs dataset {key!r} of chain {job.chain_id}:"
            " one owner per dataset"
        )
    if rebuild or not _is_outdated(owner, stream):
        return
    if owner["form"] != LAKE_FORM:
        raise OldForm(f"{where}: {old_form(owner['form'], owner['job_name'])}")
    raise InvalidInput(
        f"{where}: columns of an applied stream cannot change, because rows of both would mix: use another dataset_key,"
        " or `trace-lite apply --rebuild --file F`, which fetches every committed range of it again"
    )


def stream_start(job: ChainSync, stream: Stream, bounds: Bounds) -> int:
    """Return the first block of a stream: a symbolic start is rounded down to the stream's grid."""
    if isinstance(job.mode.from_block, str):
        return bounds.from_block // stream.chunk_size * stream.chunk_size
    return bounds.from_block


def engine_options(stream: Stream) -> dict[str, Any]:
    """Return a stream's settings for the extraction of its rows. They are no part of the config hash."""
    return {
        "requests_per_second": stream.requests_per_second,
        "max_concurrent_requests": stream.max_concurrent_requests,
        "inner_request_blocks": stream.inner_request_blocks,
        "timeout_seconds": stream.timeout_seconds,
        "engine": stream.engine,
    }


def compact_option(stream: Stream) -> Any:
    """Return a stream's compaction settings as its options hold them."""
    return stream.compact.model_dump() if isinstance(stream.compact, Compact) else stream.compact


def follow(job: ChainSync) -> FollowHead | None:
    """Return the job's follow_head settings, or None for a fixed target."""
    return job.mode if isinstance(job.mode, FollowHead) else None
