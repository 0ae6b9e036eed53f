"""The commit path over real Postgres and a real S3 server: invariants, then attempts to break them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.registry import apply, assert_registry_sound, ingesting, job_text, keys_of, ranges, rows_of
from trace_dagster.blocks import BlockRange
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import CapExceeded, LeaseLost, Refused, Unavailable, VerificationFailed
from trace_dagster.manifest import decode
from trace_dagster.registry.catalog import Catalog
from trace_dagster.registry.publications import Publication, Publications
from trace_dagster.registry.tasks import Lease, Tasks, Unclaimed
from trace_dagster.store.caps import Caps

pytestmark = pytest.mark.integration
FIRST = BlockRange(0, 100)


def commit(ingest, stream, block_range=FIRST):
    work = ingest.claim(stream, block_range, "run", wait_seconds=1)
    return work if isinstance(work, Publication) else ingest.commit(ingest.start(work))


def lapse(database, task_id):
    """Expire a lease by the database's clock."""
    with database.connection() as connection:
        connection.execute(
            "update trace.tasks set lease_expires_at = now() - interval '1 second' where task_id = %s",
            (task_id,),
        )


def test_a_range_is_visible_with_its_rows_manifest_and_digest(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        published = commit(ingest, blocks)
    assert (published.rows, published.created, published.generation) == (100, True, 0)
    manifest = decode(store.get(published.manifest_key)[0])
    assert manifest.verification["level"] == "structural"
    assert manifest.verification["asked"] == "full"
    assert manifest.parquet_keys[0].startswith(
        f"cryo/99/{blocks.dataset_uuid}/0_100/{published.dataset_version}/blocks_0_100-"
    )
    keys = keys_of(database, "blocks")
    assert rows_of(store, keys)["block_number"].to_pylist() == list(range(100))
    written = pq.ParquetFile(pa.BufferReader(store.get(keys[0])[0]))
    (order,) = written.metadata.row_group(0).sorting_columns
    assert written.metadata.row_group(0).column(order.column_index).path_in_schema == "block_number"
    assert_registry_sound(database, store)


def test_a_committed_range_is_skipped_without_rpc(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        first = commit(ingest, blocks)

        class Untouchable(FakeCryo):
            def extract(self, request):
                raise AssertionError("the node was asked")

    with ingesting(database, store, engine=Untouchable()) as ingest:
        again = commit(ingest, blocks)
    assert (again.dataset_version, again.created) == (first.dataset_version, False)
    assert_registry_sound(database, store)


def test_many_claims_of_one_range_have_one_winner(database, store):
    blocks = apply(database)["blocks"]
    tasks = Tasks(database)
    identity = blocks.task_id(FIRST)
    tasks.ensure(identity, blocks.dataset_uuid, FIRST, blocks.config_hash)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda n: tasks.claim(identity, blocks.dataset_uuid, FIRST, f"run{n}"), range(16)))
    assert sum(isinstance(outcome, Lease) for outcome in outcomes) == 1
    assert outcomes.count(Unclaimed.LEASED) == 15


def test_max_inflight_counts_leases_of_every_run(database, store):
    blocks = apply(database, job_text(inflight=2))["blocks"]
    tasks = Tasks(database)
    outcomes = []
    for block_range in ranges(blocks, 3):
        identity = blocks.task_id(block_range)
        tasks.ensure(identity, blocks.dataset_uuid, block_range, blocks.config_hash)
        outcomes.append(tasks.claim(identity, blocks.dataset_uuid, block_range, "run"))
    assert [type(outcome) for outcome in outcomes] == [Lease, Lease, Unclaimed]
    assert outcomes[2] is Unclaimed.NO_SLOT


def test_a_zombie_that_writes_after_the_winner_changes_nothing(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        zombie = ingest.claim(blocks, FIRST, "zombie", wait_seconds=1)
        lapse(database, zombie.lease.task_id)
        winner = commit(ingest, blocks)
        before = store.get(winner.manifest_key)
        with pytest.raises(LeaseLost):
            ingest.commit(ingest.start(zombie))
    assert store.get(winner.manifest_key) == before
    assert_registry_sound(database, store)


def test_a_zombie_that_wrote_its_manifest_first_is_replaced_and_cannot_commit(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        zombie = ingest.claim(blocks, FIRST, "zombie", wait_seconds=1)
        lapse(database, zombie.lease.task_id)
        real_commit = Publications.commit

        def take_over_first(self, lease, *args, **kwargs):
            if (
                lease == zombie.lease
            ):  # this attempt's manifest is written; now another attempt takes the range and commits
                commit(ingest, blocks)
            return real_commit(self, lease, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Publications, "commit", take_over_first)
            with pytest.raises(LeaseLost):
                ingest.commit(ingest.start(zombie))
    visible = Publications(database).visible(blocks.dataset_uuid, FIRST)
    assert decode(store.get(visible.manifest_key)[0]).attempt == 2
    assert_registry_sound(database, store)


def test_a_lapsed_lease_nobody_took_may_still_commit(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        work = ingest.claim(blocks, FIRST, "slow", wait_seconds=1)
        lapse(database, work.lease.task_id)
        assert ingest.commit(ingest.start(work)).created
    assert_registry_sound(database, store)


def test_a_new_registry_over_an_old_bucket_commits_over_what_is_there(database, store):
    """The database was lost, the bucket was not: this registry did not grant the attempts of the manifests in it."""
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        first = commit(ingest, blocks)
    with database.connection() as connection:
        connection.execute("truncate trace.jobs, trace.datasets, trace.tasks, trace.attempts, trace.files cascade")
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        again = commit(ingest, blocks)
    assert (again.created, again.manifest_key, again.content_digest) == (True, first.manifest_key, first.content_digest)
    assert_registry_sound(database, store)


def test_a_wrong_token_can_do_nothing(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        work = ingest.claim(blocks, FIRST, "run", wait_seconds=1)
        tasks = Tasks(database)
        forged = Lease(work.lease.task_id, work.lease.attempt, type(work.lease.token)(int=7), 0)
        with pytest.raises(LeaseLost):
            tasks.heartbeat(forged)
        assert tasks.fail(forged, "no", retry=False) is False
        assert ingest.commit(ingest.start(work)).created
    assert_registry_sound(database, store)


def test_heartbeats_keep_a_range_longer_than_its_lease(database, store):
    blocks = apply(database)["blocks"]
    beaten = threading.Event()

    class Slow(FakeCryo):
        def extract(self, request):
            assert beaten.wait(20)
            return super().extract(request)

    with ingesting(database, store, engine=Slow(), ttl=1.5) as ingest:
        real = Tasks.heartbeat

        def counted(self, lease, beats=[]):  # noqa: B006
            real(self, lease)
            beats.append(1)
            if len(beats) >= 4:  # two lease lifetimes
                beaten.set()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tasks, "heartbeat", counted)
            work = ingest.claim(blocks, FIRST, "run", wait_seconds=1)
            assert ingest.commit(ingest.start(work)).created
    assert_registry_sound(database, store)


def test_a_lost_commit_answer_is_looked_up(database, store):
    blocks = apply(database)["blocks"]
    real = Publications.commit
    from trace_dagster.errors import OutcomeUnknown

    def commits_then_raises(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise OutcomeUnknown("the answer was lost")

    with ingesting(database, store) as ingest, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Publications, "commit", commits_then_raises)
        assert commit(ingest, blocks).created
    assert_registry_sound(database, store)


def test_a_commit_that_did_not_land_is_an_error_and_is_tried_again(database, store):
    blocks = apply(database)["blocks"]
    from trace_dagster.errors import OutcomeUnknown

    def never_lands(self, *args, **kwargs):
        raise OutcomeUnknown("the answer was lost")

    with ingesting(database, store) as ingest:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Publications, "commit", never_lands)
            with pytest.raises(OutcomeUnknown):
                commit(ingest, blocks)
        assert commit(ingest, blocks).created
    assert_registry_sound(database, store)


class Broken(FakeCryo):
    """Yields the first piece and then raises the given error."""

    def __init__(self, error):
        self.error = error

    def extract(self, request):
        if request.block_range.start == 0 and len(request.block_range) == 50:
            return super().extract(request)
        raise self.error


@pytest.mark.parametrize(
    "error",
    [Unavailable("node away"), VerificationFailed("rows differ"), RuntimeError("bug"), KeyboardInterrupt()],
)
def test_a_range_that_fails_half_way_leaves_nothing_visible_and_can_be_tried_again(database, store, error):
    blocks = apply(database)["blocks"]
    with ingesting(database, store, engine=Broken(error), piece_blocks=50) as ingest, pytest.raises(type(error)):
        commit(ingest, blocks)
    assert Catalog(database).committed_ranges(blocks.dataset_uuid) == []
    assert list(store.keys("")) == []
    with ingesting(database, store) as ingest:
        assert commit(ingest, blocks).created
    assert_registry_sound(database, store)


def test_failures_end_after_max_attempts_with_their_reason(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store, engine=Broken(Unavailable("node away")), max_attempts=2) as ingest:
        for _ in range(2):
            with pytest.raises(Unavailable):
                commit(ingest, blocks)
    with database.connection() as connection:
        row = connection.execute("select state, error, failures from trace.tasks where state <> 'queued'").fetchone()
    assert (row["state"], row["failures"]) == ("dead", 2)
    assert row["error"].startswith("gave up after 2 tries")
    assert "node away" in row["error"]


def test_caps_are_held_while_writing(database, store):
    blocks = apply(database)["blocks"]
    with (
        ingesting(database, store, caps=Caps(bytes_per_range=1000)) as ingest,
        pytest.raises(CapExceeded, match="smaller chunk_size"),
    ):
        commit(ingest, blocks)
    assert list(store.keys("")) == []


def test_large_ranges_become_parts_and_each_part_is_listed(database, store):
    blocks = apply(database, job_text(to_block=100_000, chunk=100_000))["blocks"]
    whole = BlockRange(0, 100_000)
    with ingesting(database, store, caps=Caps(bytes_per_file=18_000_000)) as ingest:
        published = commit(ingest, blocks, whole)
    manifest = decode(store.get(published.manifest_key)[0])
    assert len(manifest.files) > 1
    assert [file.rows for file in manifest.files if file.rows == 0] == []
    assert rows_of(store, [file.key for file in manifest.files]).num_rows == 100_000
    assert_registry_sound(database, store)


def test_empty_ranges_commit_the_schema(database, store):
    streams = "traces: {cryo_dataset_name: traces}"
    traces = apply(database, job_text(streams=streams))["traces"]
    with ingesting(database, store) as ingest:
        published = commit(ingest, traces)
    assert published.rows == 0
    table = rows_of(store, decode(store.get(published.manifest_key)[0]).parquet_keys)
    assert table.schema.names == list(traces.columns)


def test_ranges_that_are_no_cell_of_the_plan_are_refused(database, store):
    blocks = apply(database)["blocks"]
    with ingesting(database, store) as ingest:
        commit(ingest, blocks)
        with pytest.raises(Refused):
            ingest.claim(blocks, BlockRange(50, 150), "run", wait_seconds=0)


def test_a_store_that_goes_away_half_way_is_one_clear_error(database, store, s3):
    from trace_dagster.lite.ports import Ports
    from trace_dagster.store.access import S3Access
    from trace_dagster.store.objects import ObjectStore

    blocks = apply(database)["blocks"]
    dead = ObjectStore(S3Access(s3.bucket, s3.access_key, s3.secret_key, f"http://127.0.0.1:{Ports({}).take()}"))
    with (
        ingesting(database, dead) as ingest,
        pytest.raises(Unavailable, match="object store does not answer"),
    ):
        commit(ingest, blocks)
    assert Catalog(database).committed_ranges(blocks.dataset_uuid) == []


def test_rows_are_the_same_however_a_range_is_cut(database, store):
    digests = set()
    for chunk in (100, 50):
        streams = apply(
            database,
            job_text(name=f"j{chunk}", chunk=100, streams=f"b{chunk}: {{cryo_dataset_name: blocks}}"),
        )
        with ingesting(database, store, piece_blocks=chunk // 3) as ingest:
            digests.add(commit(ingest, streams[f"b{chunk}"]).content_digest)
    assert len(digests) == 1


def test_tables_with_another_schema_never_reach_the_store(database, store):
    blocks = apply(database)["blocks"]

    class Other(FakeCryo):
        def extract(self, request):
            return pa.table({"block_number": pa.array([1], pa.uint32()), "chain_id": pa.array([99], pa.uint64())})

    with ingesting(database, store, engine=Other()) as ingest, pytest.raises(Exception):  # noqa: B017, PT011
        commit(ingest, blocks)
    assert Catalog(database).committed_ranges(blocks.dataset_uuid) == []


def test_a_store_killed_half_way_leaves_nothing_visible_and_the_range_commits_once_it_is_back(database, tmp_path):
    """The real server is SIGKILLed between two parts of one range."""
    import os
    import signal

    from trace_dagster.lite.home import Home
    from trace_dagster.lite.ports import HOST, Ports
    from trace_dagster.lite.processes import Child
    from trace_dagster.lite.s3 import s3_service
    from trace_dagster.store.access import S3Access
    from trace_dagster.store.objects import ObjectStore

    home = Home(tmp_path)
    home.prepare()
    ports = Ports({})
    port = ports.take(with_grpc=True)
    secrets = home.secrets()
    access = S3Access("half", secrets.s3_access_key, secrets.s3_secret_key, f"http://{HOST}:{port}")
    child = Child(s3_service(tmp_path / "s3", ports, secrets, access, port), tmp_path / "s3.log")
    child.wait_healthy()

    class Kills(FakeCryo):
        def extract(self, request):
            if request.block_range.start:
                os.kill(child.pid, signal.SIGKILL)
            return super().extract(request)

    blocks = apply(database, job_text(chunk=1000))["blocks"]
    whole = BlockRange(0, 1000)
    store = ObjectStore(access)
    try:
        with ingesting(database, store, engine=Kills()) as ingest, pytest.raises(Unavailable, match="object store"):
            commit(ingest, blocks, whole)
        assert Catalog(database).committed_ranges(blocks.dataset_uuid) == []
        while not child.dead:
            pass
        child.restart()
        child.wait_healthy()
        with ingesting(database, store) as ingest:
            assert commit(ingest, blocks, whole).rows == 1000
        assert_registry_sound(database, store)
    finally:
        child.signal_stop()
        child.wait_stopped(10)
