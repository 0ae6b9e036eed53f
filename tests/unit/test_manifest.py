"""Manifests: what they state, and which of them are refused."""

import json
from uuid import UUID

import pytest

from trace_dagster.errors import Corrupt, OldForm
from trace_dagster.identity import sha256_hex
from trace_dagster.manifest import Manifest, ManifestFile, decode

FILE = ManifestFile(key="cryo/1/a.parquet", bytes=9, sha256="a" * 64, rows=3, min_block=0, max_block=9)
MANIFEST = Manifest(
    dataset_uuid=UUID(int=1),
    dataset_version=UUID(int=2),
    chain_id=1,
    dataset_key="blocks",
    cryo_dataset_name="blocks",
    range_start=0,
    range_end=10,
    config_hash="cryo_ingest.blocks:0",
    generation=0,
    attempt=1,
    schema_fingerprint="b" * 64,
    parquet_keys=[FILE.key],
    files=[FILE],
    rows=3,
    content_digest="c" * 64,
    verification={},
    engine={"name": "cryo", "version": "0.3.2"},
)


def altered(**changes):
    return json.dumps({**json.loads(MANIFEST.encode()), **changes}).encode()


def of_the_old_form():
    text = json.loads(altered(version=1))
    del text["content_digest_version"]
    return json.dumps(text).encode()


def test_a_manifest_is_read_as_it_was_written():
    data = MANIFEST.encode()
    assert decode(data, sha256=sha256_hex(data)) == MANIFEST
    assert {"version": 2, "content_digest_version": 2}.items() <= json.loads(data).items()


def test_a_manifest_of_the_old_form_is_named_with_the_way_out():
    with pytest.raises(OldForm, match=r"old form of the lake, .*: run `trace-lite apply --rebuild --file F`"):
        decode(of_the_old_form())


def test_an_altered_manifest_is_corrupt_whatever_its_form():
    with pytest.raises(Corrupt, match="not the one that was committed"):
        decode(of_the_old_form(), sha256="0" * 64)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (altered(version=3), "version"),
        (altered(content_digest_version=1), "content_digest_version"),
        (altered(rows=4), ""),
        (altered(parquet_keys=[]), ""),
        (altered(range_end=0), ""),
        (altered(more=1), "more"),
        (b"[1]", ""),
        (b"{", ""),
        (b"\xff", ""),
    ],
)
def test_other_contents_are_corrupt(data, key):
    with pytest.raises(Corrupt, match="cannot be read") as caught:
        decode(data)
    assert caught.value.facts["key"] == key
