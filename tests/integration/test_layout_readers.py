"""Readers of files that hold many ranges, some of them masked: each file is read once, and no row twice."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import obstore
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from dagster import PartitionKeyRange, PythonObjectDagsterType, StaticPartitionsDefinition, build_input_context
from sqlalchemy import make_url

from tests.conftest import cloned_database, fresh_bucket
from tests.integration.test_proofs import apply, commit, commit_all, rows, silent
from tests.support.compaction import window_of
from tests.support.layouts import lay_out
from tests.support.nodes import environment, running, serving
from trace_dagster.analytics.derive import derive
from trace_dagster.analytics.templates import parse as parse_template
from trace_dagster.blocks import BlockRange
from trace_dagster.cli import verification
from trace_dagster.cli.verification import certify_job, verify_job
from trace_dagster.compaction.compactor import Compactor
from trace_dagster.config.settings import settings_from
from trace_dagster.defs.io_manager import CommitIOManager
from trace_dagster.defs.streams import asset_key
from trace_dagster.devchain.chain import DevChain
from trace_dagster.errors import InvalidInput
from trace_dagster.evidence.committed_rows import CommittedRows
from trace_dagster.maintenance import certified_rows
from trace_dagster.maintenance.certificate import read
from trace_dagster.maintenance.certificate_check import check_certificate
from trace_dagster.registry import catalog
from trace_dagster.registry.versions import StoredFile, versions_of_job
from trace_dagster.store import objects
from trace_dagster.store.objects import ObjectStore
from trace_dagster.store.scan import inside
from trace_dagster.verify.rows.arrow import HEADER_COLUMNS

pytestmark = pytest.mark.integration
KEYS = ("blocks", "transactions", "logs", "geth_calls")
WHOLE = BlockRange(0, 300)


@pytest.fixture(scope="module")
def chain():
    return DevChain(7, 320)


@pytest.fixture(scope="module")
def honest(chain):
    with serving(chain) as url:
        yield url


@pytest.fixture(scope="module")
def first_lake(postgres, template_database, s3_server, honest):
    """Commit three ranges of four datasets, and lay each dataset out as one file: the lake that each test copies."""
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        with running(url, access, dev=honest) as runtime:
            streams = apply(runtime)
            commit_all(runtime, {key: streams[key] for key in KEYS})
            files = {
                key: lay_out(runtime.database, runtime.store, streams[key].dataset_uuid, WHOLE).file_key for key in KEYS
            }
        yield make_url(url).database, ObjectStore(access), streams, files


@pytest.fixture
def lake(first_lake, postgres, s3, honest):
    """Copy the registry and the objects of the first lake."""
    database, first, streams, files = first_lake
    own = ObjectStore(s3)
    with cloned_database(*postgres, database) as url:
        for key in first.keys(""):
            own.put_if_absent(key, first.get(key)[0])
        with running(url, s3, dev=honest) as runtime:
            yield runtime, streams, files, settings_from(environment(url, s3, dev=honest))


@pytest.fixture
def reads(monkeypatch):
    """Count the GET requests of objects, by key."""
    counts: Counter[str] = Counter()
    real = obstore.get

    def counted(store, key, **options):
        counts[key] += 1
        return real(store, key, **options)

    monkeypatch.setattr(objects.obstore, "get", counted)
    return counts


def verified(lake, *, span=None, repair=False, deep=False):
    return verify_job("proofs", lake[3], span, deep=deep, repair=repair, progress=silent)


def of(lake, key):
    runtime, streams, *_ = lake
    job = streams[key].job_id
    return [version for version in versions_of_job(runtime.database, job, WHOLE) if version.dataset_key == key]


class TestVersions:
    def test_versions_share_the_file_that_holds_them_and_forget_those_it_replaced(self, lake):
        files = {file for version in of(lake, "logs") for file in version.files}
        assert [file.key for file in files] == [lake[2]["logs"]]
        (file,) = files
        assert (file.served, file.masked) == ((WHOLE,), ())
        assert file.layout is not None

    def test_a_refreshed_range_has_its_own_file_and_is_masked_in_the_other(self, lake):
        refreshed(lake, "logs", 100)
        first, second, third = of(lake, "logs")
        assert first.files == third.files != second.files
        (file,) = first.files
        assert file.served == (BlockRange(0, 100), BlockRange(200, 300))
        assert file.masked == (BlockRange(100, 200),)
        assert second.files[0].layout is None


def refreshed(lake, key, start):
    """Invalidate a range inside a layout's file and commit it again."""
    runtime, streams, *_ = lake
    (version,) = [each for each in of(lake, key) if each.block_range.start == start]
    runtime.forks.invalidate([version.dataset_version], "a test")
    made = commit(runtime, streams[key], start)
    assert made.created
    return made


class TestVerify:
    @pytest.mark.parametrize("deep", [False, True])
    def test_a_file_of_many_ranges_is_read_once(self, lake, reads, deep):
        report = verified(lake, deep=deep).report
        assert report.passed, report
        assert report.ranges == 12
        assert {key: reads[key] for key in lake[2].values()} == dict.fromkeys(lake[2].values(), 1)
        assert report.objects == 4
        assert report.bytes == sum(row["bytes"] for row in rows(lake[0].database, LAYOUT_FILES))
        offline = {"full": 3, "crosschecked": 6, "structural": 3}
        assert report.levels == ({"full": 9, "crosschecked": 3} if deep else offline)

    def test_the_objects_that_a_manifest_names_may_be_gone(self, lake):
        runtime, _, files, _ = lake
        gone = [key for key in runtime.store.keys("") if key.endswith(".parquet") and key not in files.values()]
        assert len(gone) == 12
        runtime.store.delete(gone)
        assert verified(lake).report.passed

    def test_a_part_of_the_ranges_of_a_file(self, lake):
        report = verified(lake, span=BlockRange(100, 200)).report
        assert report.passed, report
        assert report.ranges == 4

    @pytest.mark.parametrize("damage", ["missing_object", "altered_object", "bad_manifest"])
    def test_a_damaged_file_is_found_for_each_range_and_repaired_range_by_range(self, lake, damage):
        runtime, streams, files, _ = lake
        if damage == "missing_object":
            runtime.store.delete([files["logs"]])
        else:
            key = files["logs"]
            if damage == "bad_manifest":
                (row,) = rows(runtime.database, f"select manifest_key from trace.layouts l join trace.files using (layout_id) where file_key = '{key}'")  # fmt: skip  # noqa: E501
                key = row["manifest_key"]
            data, etag = runtime.store.get(key)
            runtime.store.replace(key, data[:-20] + b"\0" * 20, etag)
        found = verified(lake, repair=True)
        assert [(each.dataset_key, each.range_start, each.kind) for each in found.report.findings] == [
            ("logs", start, damage) for start in (0, 100, 200)
        ]
        assert all("layout/0_300" in each.reason for each in found.report.findings)
        assert found.repaired == 3
        for start in (0, 100, 200):
            assert commit(runtime, streams["logs"], start).generation == 1
        assert verified(lake, deep=True).report.passed

    def test_masked_rows_are_not_checked_and_not_counted(self, lake):
        before = verified(lake).report.rows
        refreshed(lake, "logs", 100)
        refreshed(lake, "blocks", 200)
        report = verified(lake, deep=True).report
        assert report.passed, report
        assert report.rows == before
        assert report.objects == 6

    def test_rows_of_blocks_that_no_range_in_the_file_has_are_found(self, lake):
        runtime, _, files, _ = lake
        with runtime.database.connection() as connection:
            connection.execute(
                "delete from trace.version_files l using trace.dataset_versions v where v.dataset_version ="
                " l.dataset_version and l.file_key = %s and lower(v.block_range) = 100",
                (files["logs"],),
            )
            connection.execute(
                "update trace.version_files l set replaced_at = null from trace.dataset_versions v"
                " where v.dataset_version = l.dataset_version and lower(v.block_range) = 100 and l.file_key like"
                " '%%logs%%'"
            )
        findings = verified(lake).report.findings
        assert [(each.range_start, each.kind) for each in findings] == [(0, "bad_rows"), (200, "bad_rows")]
        assert "holds rows of a block that no range in it has" in findings[0].reason

    def test_a_compaction_and_a_sweep_during_the_check_are_no_damage(self, lake, monkeypatch):
        """The check begins with the files that the compaction replaced; the sweep has removed them."""
        runtime, _, files, _ = lake
        refreshed(lake, "logs", 100)
        gone = [key for key in runtime.store.keys("") if key.endswith(".parquet") and key not in files.values()]
        stale = versions_of_job(runtime.database, lake[1]["logs"].job_id, WHOLE)
        with runtime.database.connection() as connection:  # as the snapshot was before the compaction
            old = connection.execute(
                "select l.dataset_version, f.file_key, f.bytes, f.sha256, f.row_count from trace.version_files l"
                " join trace.files f using (file_key) where l.replaced_at is not null"
            ).fetchall()
        by_version = {
            row["dataset_version"]: StoredFile(row["file_key"], row["bytes"], row["sha256"], row["row_count"], ())
            for row in old
        }
        stale = [
            replace(each, files=(replace(by_version[each.dataset_version], served=(each.block_range,)),))
            if each.dataset_version in by_version
            else each
            for each in stale
        ]
        runtime.store.delete(
            set(gone) - {key for each in of(lake, "logs") for key in (file.key for file in each.files)}
        )
        answers = iter([stale])
        monkeypatch.setattr(
            verification, "versions_of_job", lambda *args: next(answers, None) or versions_of_job(*args)
        )
        report = verified(lake).report
        assert report.passed, report
        assert (report.ranges, report.objects) == (12, 5)

    def test_a_range_that_was_replaced_during_the_check_is_left_to_the_next_one(self, lake, monkeypatch):
        runtime, _, files, _ = lake
        stale = versions_of_job(runtime.database, lake[1]["logs"].job_id, WHOLE)
        refreshed(lake, "logs", 100)
        runtime.store.delete([files["logs"]])
        answers = iter([stale])
        monkeypatch.setattr(
            verification, "versions_of_job", lambda *args: next(answers, None) or versions_of_job(*args)
        )
        report = verified(lake).report
        assert [(each.dataset_key, each.range_start) for each in report.findings] == [("logs", 0), ("logs", 200)]
        assert report.unchecked == ["logs [100, 200): it was replaced during the check: verify it again"]


def _begin_with(monkeypatch, versions):
    """Let the next check begin with these versions, as if the registry had changed since."""
    answers = iter([versions])
    monkeypatch.setattr(verification, "versions_of_job", lambda *args: next(answers, None) or versions_of_job(*args))


LAYOUT_FILES = "select bytes from trace.files where layout_id is not null"


class TestEvidence:
    def rows(self, lake, span=WHOLE):
        runtime, streams, *_ = lake
        return CommittedRows(runtime.database, runtime.store, streams["logs"].dataset_uuid, span, ("blocks",))

    @pytest.mark.parametrize("masked", [None, 0, 100, 200])
    def test_each_block_is_there_once_and_in_order(self, lake, masked):
        if masked is not None:
            refreshed(lake, "blocks", masked)
        evidence = self.rows(lake)
        for piece in (BlockRange(0, 50), BlockRange(50, 150), BlockRange(90, 210), BlockRange(250, 300), WHOLE):
            found = evidence.table("blocks", piece, HEADER_COLUMNS)
            assert found["block_number"].to_pylist() == list(range(piece.start, piece.end))
        assert len(evidence._opened) == (1 if masked is None else 2), (
            "a file is opened once, however many ranges it holds"
        )

    def test_an_invalidated_range_is_no_evidence(self, lake):
        runtime, *_ = lake
        runtime.forks.invalidate([of(lake, "blocks")[1].dataset_version], "a test")
        evidence = self.rows(lake)
        assert evidence.table("blocks", BlockRange(50, 150), HEADER_COLUMNS) is None
        assert evidence.table("blocks", BlockRange(0, 100), HEADER_COLUMNS).num_rows == 100

    def test_a_layouts_row_group_is_read_whole(self, lake):
        evidence = self.rows(lake)
        evidence.table("blocks", BlockRange(0, 10), HEADER_COLUMNS)
        (window,) = evidence._windows.values()
        assert window.span.end == 300, "the window is limited by the range"


class TestRefresh:
    def test_the_same_rows_in_a_layout_are_confirmed(self, lake):
        runtime, streams, *_ = lake
        for key in KEYS:
            assert not commit(runtime, streams[key], 100, refresh=True).created

    @pytest.mark.parametrize("damage", ["missing", "altered"])
    def test_a_damaged_layout_is_written_again(self, lake, damage):
        runtime, streams, files, _ = lake
        if damage == "missing":
            runtime.store.delete([files["logs"]])
        else:
            data, etag = runtime.store.get(files["logs"])
            middle = len(data) // 2
            runtime.store.replace(files["logs"], data[: middle - 2000] + bytes(4000) + data[middle + 2000 :], etag)
        assert commit(runtime, streams["logs"], 100, refresh=True).created
        (first, second, third) = of(lake, "logs")
        assert second.files[0].layout is None
        assert first.files[0].masked == (BlockRange(100, 200),) == third.files[0].masked

    def test_only_the_ranges_own_row_groups_are_read(self, lake, monkeypatch):
        import trace_dagster.store.scan as scan

        seen = []
        real = scan.pq.ParquetFile.iter_batches

        def counted(self, *args, row_groups, **options):
            seen.extend(row_groups)
            return real(self, *args, row_groups=row_groups, **options)

        monkeypatch.setattr(scan.pq.ParquetFile, "iter_batches", counted)
        runtime, streams, *_ = lake
        assert not commit(runtime, streams["blocks"], 200, refresh=True).created
        assert seen == [3, 4], "blocks 200 to 299 in row groups of 64 rows"


class TestDamagedObjects:
    def test_a_file_of_many_ranges_is_named_once_with_all_its_blocks(self, lake):
        runtime, _, files, _ = lake
        refreshed(lake, "logs", 200)
        runtime.store.delete([files["logs"]])
        (found,) = runtime.committed_objects.damaged([files["logs"]])
        assert (found.kind, found.dataset.rpartition(".")[2], found.block_range) == (
            "missing", "logs", BlockRange(0, 200),
        )  # fmt: skip
        assert "--range 0:200 --repair" in str(found)


class TestCertificate:
    def certified(self, lake, folder, span=None):
        """Write a statement and the files that it names; return it as read again, and the folder."""
        statement = folder / "statement.json"
        statement.write_text(certify_job("proofs", lake[3], span).model_dump_json())
        found = read(statement)
        names = {file.name for file in found.files}
        (folder / "data").mkdir()
        for key in lake[0].store.keys(""):
            if (name := key.rpartition("/")[2]) in names:
                lake[0].store.download(key, folder / "data" / name)
        return found, folder / "data"

    def test_a_file_of_many_ranges_is_listed_and_hashed_once(self, lake, tmp_path, chain, monkeypatch):
        hashed = Counter()
        real = certified_rows._sha256

        def counted(path):
            hashed[path.name] += 1
            return real(path)

        monkeypatch.setattr(certified_rows, "_sha256", counted)
        found, folder = self.certified(lake, tmp_path)
        assert (len(found.files), len(found.ranges)) == (4, 12)
        wrong, checked = check_certificate(found, folder, (299, chain.blocks[299].hash))
        assert wrong == []
        assert (checked["rows"], checked["receipts roots"], checked["times"]) == (1200, 300, 900)
        assert set(hashed.values()) == {1}
        assert len(hashed) == 4

    def test_masked_rows_are_not_stated(self, lake, tmp_path, chain):
        refreshed(lake, "blocks", 100)
        refreshed(lake, "logs", 100)
        found, folder = self.certified(lake, tmp_path)
        assert len(found.files) == 6
        wrong, checked = check_certificate(found, folder, (150, chain.blocks[150].hash))
        assert wrong == []
        assert (checked["rows"], checked["receipts roots"], checked["times"]) == (1200, 300, 900)

    def test_a_part_of_a_files_ranges(self, lake, tmp_path):
        found, folder = self.certified(lake, tmp_path, BlockRange(100, 200))
        assert (len(found.files), len(found.ranges)) == (4, 4)
        assert check_certificate(found, folder, None)[0] == []

    @pytest.mark.parametrize("damage", ["missing", "altered", "other_rows"])
    def test_a_damaged_file_is_wrong_for_each_of_its_ranges(self, lake, tmp_path, damage):
        found, folder = self.certified(lake, tmp_path)
        (victim,) = folder.glob("logs_*.parquet")
        if damage == "missing":
            victim.unlink()
        elif damage == "altered":
            victim.write_bytes(victim.read_bytes()[:-1] + b"x")
        else:
            found = _with_rows_of_another_digest(found)
        wrong, checked = check_certificate(found, folder, None)
        said = {"missing": "a file is missing", "altered": "not the certified one", "other_rows": "not the certified"}
        count = 1 if damage == "other_rows" else 3
        assert len(wrong) == count
        assert all(each.startswith("logs [") and said[damage] in each for each in wrong)
        assert checked["rows"] == 1200 - 100 * count

    def test_a_statement_of_version_1_is_named(self, tmp_path):
        path = tmp_path / "old.json"
        path.write_text(json.dumps({"kind": "trace_dagster.maintenance.certificate", "version": 1, "job": "proofs"}))
        with pytest.raises(InvalidInput, match=r"certificate of version 1.*`trace-lite certify --job proofs`"):
            read(path)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda found: found["files"].append(found["files"][0]), "a file is listed twice"),
            (lambda found: found["files"].pop(), "the files are not those that the ranges name"),
            (lambda found: found["ranges"][0]["files"].append("0" * 64), "not those that the ranges name"),
        ],
    )
    def test_files_and_ranges_must_name_each_other(self, lake, tmp_path, change, reason):
        found = json.loads(certify_job("proofs", lake[3], None).model_dump_json())
        change(found)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(found))
        with pytest.raises(InvalidInput, match=reason):
            read(path)


def _with_rows_of_another_digest(found):
    ranges = [
        each.model_copy(update={"content_digest": "0" * 64})
        if (each.dataset_key, each.range_start) == ("logs", 100)
        else each
        for each in found.ranges
    ]
    return found.model_copy(update={"ranges": ranges})


class TestInputs:
    """What an asset downstream of a stream loads."""

    def loaded(self, lake, key, partitions=None, kind=ds.Dataset):
        keys = [each.key for each in partitions or ()]
        partitioned = {}
        if keys:
            partitioned = {
                "asset_partitions_def": StaticPartitionsDefinition(keys),
                "asset_partition_key_range": PartitionKeyRange(keys[0], keys[-1]),
            }
        context = build_input_context(
            asset_key=asset_key(lake[1][key].chain_id, key), dagster_type=PythonObjectDagsterType(kind), **partitioned
        )
        return CommitIOManager(lake[0]).load_input(context)

    @pytest.mark.parametrize("key", KEYS)
    @pytest.mark.parametrize("change", [None, "refreshed", "invalidated"])
    def test_rows_are_as_committed_without_masked_ones(self, lake, key, change):
        before = self.loaded(lake, key, kind=pa.Table)
        assert before.num_rows == sum(version.rows for version in of(lake, key))
        if change == "refreshed":
            refreshed(lake, key, 100)
        elif change == "invalidated":
            lake[0].forks.invalidate([of(lake, key)[1].dataset_version], "a test")
            before = before.filter(~inside([BlockRange(100, 200)]))
        found = self.loaded(lake, key)
        assert found.count_rows() == before.num_rows
        assert found.schema.equals(before.schema)
        assert _multiset(found) == _multiset(before)

    def test_a_run_loads_the_rows_of_its_partitions_only(self, lake):
        found = self.loaded(lake, "blocks", [BlockRange(100, 200), BlockRange(200, 300)])
        assert found.to_table()["block_number"].to_pylist() == list(range(100, 300))
        refreshed(lake, "blocks", 200)
        found = self.loaded(lake, "blocks", [BlockRange(100, 200), BlockRange(200, 300)])
        assert sorted(found.to_table()["block_number"].to_pylist()) == list(range(100, 300))
        lake[0].forks.invalidate([of(lake, "blocks")[0].dataset_version], "a test")
        with pytest.raises(InvalidInput, match="partition 000000000000-000000000100 of blocks is not committed"):
            self.loaded(lake, "blocks", [BlockRange(0, 100)])

    @pytest.mark.parametrize("change", ["compacted", "refreshed"])
    def test_a_change_while_files_are_listed_neither_loses_nor_doubles_rows(self, lake, monkeypatch, change):
        """Rows move from one file to another between the look-ups of two partitions."""
        if change == "compacted":
            refreshed(lake, "blocks", 100)
        listed = catalog._files

        def changed_after_the_first(session, dataset_uuid, block_range):
            found = listed(session, dataset_uuid, block_range)
            monkeypatch.setattr(catalog, "_files", listed)
            if change == "compacted":
                lay_out(lake[0].database, lake[0].store, dataset_uuid, WHOLE)
            else:
                refreshed(lake, "blocks", 100)
            return found

        monkeypatch.setattr(catalog, "_files", changed_after_the_first)
        found = self.loaded(lake, "blocks", [BlockRange(100, 200), BlockRange(200, 300)])
        assert sorted(found.to_table()["block_number"].to_pylist()) == list(range(100, 300))


def _multiset(rows):
    return Counter(str(row) for batch in rows.to_batches() for row in batch.to_pylist())


class TestDerived:
    """What a template reads."""

    TEMPLATE = parse_template(
        "counted",
        "-- title: Blocks and logs\n-- grain: one row\n-- inputs: blocks, logs\n"
        "select (select count(*) from blocks) as blocks,\n"
        " (select count(distinct block_number) from blocks) as numbers,\n"
        " (select max(block_number) from blocks) as last, (select count(*) from logs) as logs",
    )

    def counted(self, lake):
        runtime, streams, *_ = lake
        access, reading = runtime.settings.s3, runtime.committed_objects.reading
        found = derive(self.TEMPLATE, streams["logs"].chain_id, {}, runtime.catalog, access, reading)
        return found.target.block_range, found.table.to_pylist()[0]

    def test_each_row_counts_once_after_a_refresh(self, lake):
        before = self.counted(lake)
        refreshed(lake, "blocks", 100)
        refreshed(lake, "logs", 0)
        assert self.counted(lake) == before == (WHOLE, before[1])
        assert before[1]["blocks"] == before[1]["numbers"] == 300

    def test_coverage_and_files_are_of_one_moment(self, lake, monkeypatch):
        """Else a range that leaves the view in between is missing in rows that claim its blocks."""
        runtime, lost = lake[0], of(lake, "logs")[1]
        read = catalog.committed_ranges

        def and_lose_a_range(session, dataset_uuid):
            found = read(session, dataset_uuid)
            runtime.forks.invalidate([lost.dataset_version], "a test")
            return found

        before = self.counted(lake)
        monkeypatch.setattr(catalog, "committed_ranges", and_lose_a_range)
        assert self.counted(lake) == before

    def test_rows_beyond_the_common_blocks_do_not_count(self, lake):
        logs = sum(version.rows for version in of(lake, "logs")[:2])
        lake[0].forks.invalidate([of(lake, "logs")[2].dataset_version], "a test")
        span, row = self.counted(lake)
        assert span == BlockRange(0, 200)
        assert row == {"blocks": 200, "numbers": 200, "last": 199, "logs": logs}

    def test_a_history_with_holes_below_gives_its_longest_range(self, lake):
        """As one that is committed backwards from the tip."""
        for key, place in (("logs", 1), ("blocks", 0)):
            lake[0].forks.invalidate([of(lake, key)[place].dataset_version], "a test")
        span, row = self.counted(lake)
        assert span == BlockRange(200, 300)
        assert row["blocks"] == 100


def test_readers_agree_on_what_a_compaction_wrote(postgres_url, s3, honest, chain, tmp_path):
    """Ranges are compacted, one is refreshed, and the window is compacted again: no reader sees another row."""
    with running(postgres_url, s3, dev=honest) as runtime:
        streams = apply(runtime)
        commit_all(runtime, {key: streams[key] for key in KEYS})
        lake = (runtime, streams, {}, settings_from(environment(postgres_url, s3, dev=honest)))
        before = {key: _multiset(TestInputs().loaded(lake, key)) for key in KEYS}
        compactor = Compactor(runtime.database, runtime.store)
        for step in ("compacted", "refreshed", "compacted again"):
            for key in KEYS if step != "refreshed" else ():
                compactor.compact(window_of(streams[key], 0, 300), manual=True)
            if step == "refreshed":
                refreshed(lake, "logs", 100)
                refreshed(lake, "blocks", 200)
            assert {key: _multiset(TestInputs().loaded(lake, key)) for key in KEYS} == before, step
            report = verified(lake, deep=True).report
            assert report.passed, (step, report)
            assert report.objects == (6 if step == "refreshed" else 4)
            (tmp_path / step).mkdir()
            found, folder = TestCertificate().certified(lake, tmp_path / step)
            wrong, checked = check_certificate(found, folder, (299, chain.blocks[299].hash))
            assert (wrong, checked) == ([], {"rows": 1200, "receipts roots": 300, "times": 900})
            assert not commit(runtime, streams["transactions"], 100, refresh=True).created


@pytest.mark.parametrize("damage", ["is missing", "is not what was committed"])
def test_a_damaged_hash_index_is_found_and_forgotten(postgres_url, s3, honest, damage):
    """Queries by hash depend on it; no range is fetched again for it."""
    with running(postgres_url, s3, dev=honest) as runtime:
        streams = apply(runtime)
        commit_all(runtime, {key: streams[key] for key in KEYS})
        Compactor(runtime.database, runtime.store).compact(window_of(streams["logs"], 0, 300), manual=True)
        lake = (runtime, streams, {}, settings_from(environment(postgres_url, s3, dev=honest)))
        assert verified(lake).report.passed
        (row,) = rows(runtime.database, "select object_key from trace.hash_indexes")
        data, etag = runtime.store.get(row["object_key"])
        if damage == "is missing":
            runtime.store.delete([row["object_key"]])
        else:
            runtime.store.replace(row["object_key"], data[:-20] + b"\0" * 20, etag)
        (finding,) = verified(lake).report.findings
        assert (finding.dataset_key, finding.kind, finding.range_start, finding.range_end) == (
            "logs",
            "bad_index",
            0,
            300,
        )
        assert f"{row['object_key']} {damage}" in finding.reason
        repaired = verified(lake, repair=True)
        assert (repaired.repaired, repaired.forgotten) == (0, 1)
        assert verified(lake).report.passed
        assert rows(runtime.database, "select object_key from trace.hash_indexes") == []
