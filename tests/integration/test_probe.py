"""The probe of the bucket: it passes on a sound server, leaves nothing, and names the right or condition that lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.aws import BUCKET, aws
from tests.support.nodes import environment
from tests.support.wrong_servers import web_server
from trace_dagster.cli.main import main
from trace_dagster.errors import InvalidInput
from trace_dagster.lite.ports import Ports
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import PART_BYTES, ObjectStore
from trace_dagster.store.probe import prepare_bucket

pytestmark = pytest.mark.integration

RIGHTS = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")
UPLOADS = ("s3:ListBucketMultipartUploads", "s3:AbortMultipartUpload")
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def cloud():
    with aws(Ports({}).take()) as running:
        yield running


def access_with(cloud, *actions):
    keys = cloud.user_with(*actions)
    return S3Access(BUCKET, keys.access_key, keys.secret_key, cloud.endpoint)


def test_a_sound_server_passes_and_keeps_nothing(s3):
    for access in (s3, replace(s3, bucket=f"{s3.bucket}new")):
        prepare_bucket(access)
        prepare_bucket(access)
        assert list(ObjectStore(access).keys("")) == []
    ObjectStore(access)._client.delete_bucket(Bucket=access.bucket)


@pytest.mark.parametrize(
    ("lacking", "text"),
    [
        ("s3:ListBucket", "may not list the bucket"),
        ("s3:GetObject", "may not read from the bucket"),
        ("s3:PutObject", "may not write to the bucket"),
        ("s3:DeleteObject", "may not delete from the bucket"),
    ],
)
def test_each_right_that_lacks_is_named(cloud, lacking, text):
    access = access_with(cloud, *(right for right in RIGHTS if right != lacking))
    with pytest.raises(InvalidInput, match=text):
        prepare_bucket(access)


def test_the_documented_policy_is_enough_and_none_of_its_rights_is_missing(cloud):
    text = OPERATIONS.read_text().partition("<!-- policy: begin -->")[2].partition("<!-- policy: end -->")[0]
    policy = json.loads(text.strip().removeprefix("```json").removesuffix("```"))
    allowed = [action for statement in policy["Statement"] for action in statement["Action"]]
    assert sorted(allowed) == sorted([*RIGHTS, *UPLOADS])
    access = access_with(cloud, *allowed)
    prepare_bucket(access)
    store = ObjectStore(access)
    started = store.upload("a")
    started.write(b"z" * (PART_BYTES + 1))
    assert started.finish() == store.sha256("a")
    for key, upload_id in store.stale_uploads(0):
        store.abort_upload(key, upload_id)
    store.delete(["a"])


def test_a_bucket_that_may_not_be_made_is_named(cloud):
    with pytest.raises(InvalidInput, match="may not create the bucket"):
        prepare_bucket(replace(access_with(cloud, *RIGHTS), bucket="no-such-bucket"))


class Careless(ObjectStore):
    """Overwrites whatever is there, as a server without conditional writes does."""

    def put_if_absent(self, key, data):
        self._client.put_object(Bucket=self.access.bucket, Key=key, Body=data)


class Forgetful(ObjectStore):
    """Keeps the condition of a create and ignores that of a replace."""

    def replace(self, key, data, etag):
        self._client.put_object(Bucket=self.access.bucket, Key=key, Body=data)


@pytest.mark.parametrize(("server", "condition"), [(Careless, "If-None-Match"), (Forgetful, "If-Match")])
def test_a_server_that_ignores_conditions_is_refused(s3, monkeypatch, server, condition):
    monkeypatch.setattr("trace_dagster.store.probe.ObjectStore", server)
    with pytest.raises(InvalidInput, match=f"does not keep the condition {condition} of a put"):
        prepare_bucket(s3)
    assert list(ObjectStore(s3).keys("")) == []


def run(command, variables, monkeypatch, tmp_path):
    for name, value in {**variables, "TRACE_HOME": str(tmp_path), "TRACE_LOG_LEVEL": "error"}.items():
        monkeypatch.setenv(name, value)
    found = CliRunner().invoke(main, [command], catch_exceptions=False)
    return found.exit_code, found.stderr


def test_migrate_makes_the_bucket_and_says_what_works(postgres_url, s3, monkeypatch, tmp_path):
    new = replace(s3, bucket=f"{s3.bucket}cli")
    code, said = run("migrate", environment(postgres_url, new), monkeypatch, tmp_path)
    assert (code, said.splitlines()[-1]) == (
        0,
        f"bucket {new.bucket}: put, conditional put, get, list and delete work",
    )
    ObjectStore(new)._client.delete_bucket(Bucket=new.bucket)


def test_migrate_without_an_object_store_only_says_so(postgres_url, monkeypatch, tmp_path):
    code, said = run("migrate", {"TRACE_POSTGRES_URL": postgres_url}, monkeypatch, tmp_path)
    assert code == 0
    assert said == (
        "the schema is current\n"
        "note: no object store is set, its bucket was not checked: set TRACE_S3_ENDPOINT or AWS credentials\n"
    )


def test_migrate_at_the_wrong_port_says_so_after_the_schema(postgres_url, s3, monkeypatch, tmp_path):
    with web_server() as port:
        wrong = environment(postgres_url, replace(s3, endpoint=f"http://127.0.0.1:{port}"))
        code, said = run("migrate", wrong, monkeypatch, tmp_path)
    assert code == 2
    assert said.startswith("the schema is current\nerror: the server at TRACE_S3_ENDPOINT is not an object store")
