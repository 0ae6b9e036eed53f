"""Verification on the real stack: levels in status and UI, a faulty pool, damage found and repaired, a certificate."""

from __future__ import annotations

import json

import pytest
from dagster import AssetKey, DagsterInstance

from tests.acceptance.jobs import FOUR, job_file
from trace_dagster.blocks import BlockRange
from trace_dagster.config.settings import settings_from
from trace_dagster.defs.verification_check import CHECK_NAME
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.store.objects import ObjectStore

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


def applied(stack, tmp_path_factory, name, suffix, *, pool="devchain", end=300, streams=FOUR):
    path = job_file(
        tmp_path_factory.mktemp("jobs"), name, chain=CHAIN_ID, end=end, pool=pool, streams=streams, suffix=suffix
    )
    done = stack.cli("apply", "--file", str(path), "--wait")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def proven(stack, tmp_path_factory):
    """Run a job of four datasets to its end."""
    applied(stack, tmp_path_factory, "proven", "_proven")
    return "proven"


def status(stack, job):
    return {
        stream["dataset_key"]: stream for stream in stack.json("status", "--json", "--job", job)["jobs"][0]["streams"]
    }


def test_status_says_which_level_every_range_reached(stack, proven):
    reached = {key: stream["verified"] for key, stream in status(stack, proven).items()}
    assert reached == {
        "blocks_proven": {"full": 3},
        "transactions_proven": {"full": 3},
        "logs_proven": {"full": 3},
        "geth_calls_proven": {"crosschecked": 3},
    }
    assert "crosschecked 3" in stack.cli("status", "--job", proven).stdout


def test_each_partition_has_its_proof_as_an_asset_check(stack, proven, monkeypatch):
    for name, value in stack.state.environment().items():
        monkeypatch.setenv(name, value)
    from dagster import AssetCheckKey

    storage = DagsterInstance.get().event_log_storage
    for dataset, passed in (("blocks_proven", True), ("geth_calls_proven", True)):
        key = AssetCheckKey(AssetKey([str(CHAIN_ID), dataset]), CHECK_NAME)
        found = storage.get_asset_check_execution_history(key, limit=10)
        evaluations = [record.event.dagster_event.event_specific_data for record in found]
        assert {each.partition for each in evaluations} == {BlockRange(n, n + 100).key for n in (0, 100, 200)}
        assert all(each.passed is passed for each in evaluations)
        assert {"level", "checks", "unproven", "evidence", "first_parent_hash", "last_block_hash"} <= set(
            evaluations[0].metadata
        )


def test_a_pool_with_a_liar_in_it_brings_in_the_truth_and_names_it(stack, tmp_path_factory, devchain, lines):
    applied(stack, tmp_path_factory, "lied_to", "_lied", pool="lying", streams=("transactions", "logs"))
    assert stack.count("chain_20143.logs_lied") == devchain.rows("logs", 0, 300)
    assert stack.count("chain_20143.transactions_lied") == devchain.rows("transactions", 0, 300)
    assert lines[0].injected
    (standing,) = stack.json("status", "--json", "--job", "lied_to")["endpoints"]
    assert standing["endpoint"] == "lying#1"
    assert standing["lies"] >= 1
    shown = stack.cli("status").stdout
    assert "endpoints that lied" in shown
    assert "lying#1" in shown
    assert "http" not in shown.split("endpoints that lied")[1]


@pytest.mark.parametrize("more", [(), ("--deep",)])
def test_a_whole_job_verifies(stack, proven, more):
    done = stack.cli("verify", "--job", proven, "--json", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    assert report["ranges"] == 12
    assert report["findings"] == report["unchecked"] == []
    assert "nothing is missing" in stack.cli("verify", "--job", proven).stderr


def test_damage_is_found_and_repaired_by_the_stack_itself(stack, tmp_path_factory, devchain):
    applied(stack, tmp_path_factory, "damaged", "_damaged", streams=("blocks", "logs"))
    store = ObjectStore(settings_from(stack.state.environment()).s3)
    keys = [key for key in store.keys("cryo/") if "/0_100/" in key or "/100_200/" in key]
    uuids = {stream["dataset_key"]: stream["dataset_uuid"] for stream in status(stack, "damaged").values()}
    (gone,) = [key for key in keys if uuids["logs_damaged"] in key and "/0_100/" in key and key.endswith("parquet")]
    (bent,) = [key for key in keys if uuids["blocks_damaged"] in key and "/100_200/" in key and key.endswith("parquet")]
    store.delete([gone])
    data, etag = store.get(bent)
    store.replace(bent, data[:200] + bytes([data[200] ^ 1]) + data[201:], etag)
    done = stack.cli("verify", "--job", "damaged", "--json")
    assert done.returncode == 1
    findings = {
        (each["dataset_key"], each["range_start"]): each["kind"] for each in json.loads(done.stdout)["findings"]
    }
    assert findings == {("logs_damaged", 0): "missing_object", ("blocks_damaged", 100): "altered_object"}
    repaired = stack.cli("verify", "--job", "damaged", "--repair", "--json")
    assert json.loads(repaired.stdout)["repaired"] == 2
    _until_complete(stack, "damaged")
    assert stack.cli("verify", "--job", "damaged", "--deep").returncode == 0
    assert stack.count("chain_20143.logs_damaged") == devchain.rows("logs", 0, 300)


def _until_complete(stack, job):
    import time

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = stack.json("status", "--json", "--job", job)["jobs"][0]
        if found["state"] == "complete" and all(stream["committed_ranges"] == 3 for stream in found["streams"]):
            return
        time.sleep(1)
    pytest.fail(f"{job} is not complete: {found}")


def test_a_certificate_needs_no_registry_to_be_checked(stack, proven, tmp_path, devchain):
    statement = tmp_path / "statement.json"
    done = stack.cli("certify", "--job", proven, "--out", str(statement))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "parquet"
    folder.mkdir()
    store = ObjectStore(settings_from(stack.state.environment()).s3)
    names = {file["name"] for file in json.loads(statement.read_text())["files"]}
    for key in store.keys("cryo/"):
        if (name := key.rpartition("/")[2]) in names:
            store.download(key, folder / name)
    alone = {"TRACE_HOME": str(tmp_path / "nothing here")}
    trusted = f"299:0x{devchain.blocks[299].hash.hex()}"
    check = ("certify", "--check", str(statement), "--data", str(folder), "--trusted")
    done = stack.cli(*check, trusted, environment=alone)
    assert done.returncode == 0, done.stderr
    assert "complete and as stated" in done.stderr
    assert stack.cli(*check, f"299:0x{'00' * 32}", environment=alone).returncode == 1
    assert stack.cli(*check, "299", environment=alone).returncode == 2
