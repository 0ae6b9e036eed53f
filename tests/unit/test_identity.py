"""Golden identities: they must never change, on any machine."""

from uuid import UUID

import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.identity import (
    DEFAULT_ORG,
    canonical_json,
    config_hash,
    dataset_uuid,
    dataset_version,
    outbox_id,
    task_id,
)

DATASETS = {
    "blocks": "0d9f0cf7-64ec-5863-990f-ec95ac577490",
    "transactions": "6f8b4b60-1e53-51d1-807c-93fad2c5ac95",
    "logs": "bacbeb23-fea2-5ccc-8767-1e553da61ffa",
    "geth_calls": "702e7701-bf11-55f0-8403-73a8f96187ad",
    "geth_balance_diffs": "83ac37d3-2364-5df2-8136-a19337938feb",
}
VERSIONS = {
    "blocks": "1f687d01-48d9-51fe-a5f1-8d2208cf89fb",
    "transactions": "7cd990ce-fc2c-52be-8659-23aef369b203",
    "logs": "cabdfbb3-f4b5-5528-84e6-862878cfa4ef",
    "geth_calls": "e742533f-0300-5018-bfed-7fbcf02aa9b6",
}


@pytest.mark.parametrize(("key", "expected"), DATASETS.items())
def test_dataset_uuid(key, expected):
    assert dataset_uuid(DEFAULT_ORG, 143, key) == UUID(expected)


@pytest.mark.parametrize(("key", "expected"), VERSIONS.items())
def test_dataset_version(key, expected):
    version = dataset_version(UUID(DATASETS[key]), f"cryo_ingest.{key}:v1", 143, BlockRange(0, 5000))
    assert version == UUID(expected)


def test_generation_zero_is_the_plain_name_and_others_differ():
    versions = {dataset_version(UUID(DATASETS["logs"]), "x", 143, BlockRange(0, 5000), n) for n in range(3)}
    assert len(versions) == 3


def test_task_and_wake_up():
    job = UUID("4e20d260-8623-4e1c-a64a-9c4f4c8265d3")
    task = task_id(job, "blocks", BlockRange(0, 5000))
    assert task == UUID("281a436f-b83e-547a-8f88-de0bfa3b0c8e")
    assert outbox_id(task, 1) == UUID("dfb445bb-a595-5f4d-998a-dd3c9544f2d3")
    assert outbox_id(task, 1, wake_seq=2) != outbox_id(task, 1)


def test_config_hash_names_what_changes_rows_and_nothing_else():
    plain = config_hash("logs", ["a", "b"], "0.3.2")
    assert plain == config_hash("logs", ["a", "b"], "0.3.9")
    assert plain.startswith("cryo_ingest.logs:")
    assert len({plain, config_hash("logs", ["b", "a"], "0.3.2"), config_hash("logs", ["a", "b"], "0.4.0")}) == 3


def test_canonical_json_is_canonical():
    assert canonical_json({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
