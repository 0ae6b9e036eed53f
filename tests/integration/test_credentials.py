"""Credentials as AWS users have them, for boto3, obstore, Arrow and DuckDB alike, against a server that checks them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.aws import BUCKET, aws, forget_sessions, metadata_service
from trace_dagster.errors import InvalidInput, Unavailable
from trace_dagster.lite.ports import Ports
from trace_dagster.query.protocol import Relation
from trace_dagster.query.runner import QueryRunner
from trace_dagster.query.session import QuerySession
from trace_dagster.store.access import S3Access
from trace_dagster.store.credentials import CredentialSource, _session, current_keys
from trace_dagster.store.objects import PART_BYTES, ObjectStore, ensure_bucket

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cloud():
    with aws(Ports({}).take()) as running:
        yield running


@pytest.fixture
def metadata():
    with metadata_service() as service:
        yield service


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    """Let the chain find nothing but what a test gives it."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_sessions()
    yield
    forget_sessions()


def chain(cloud, profile=None):
    return S3Access(BUCKET, None, None, cloud.endpoint, profile=profile)


def use_everywhere(access, name):
    """Write and read through each client."""
    store = ObjectStore(access)
    ensure_bucket(access)
    table = pa.table({"block_number": pa.array(range(100))})
    upload = store.upload(f"{name}/a.parquet")
    pq.write_table(table, pa.PythonFile(upload, mode="w"))
    upload.finish()
    big = store.upload(f"{name}/big")
    big.write(b"z" * (PART_BYTES + 1))
    big.finish()
    assert list(store.keys(f"{name}/")) == [f"{name}/a.parquet", f"{name}/big"]
    assert set(store.stored([f"{name}/big"])) == {f"{name}/big"}
    assert pq.read_table(f"{BUCKET}/{name}/a.parquet", filesystem=store.filesystem()).equals(table)
    relation = Relation("blocks", [("block_number", "BIGINT")], (access.uri(f"{name}/a.parquet"),))
    with QuerySession.over([relation], access) as session:
        assert session.table("select sum(block_number)::bigint as n from blocks", {})["n"].to_pylist() == [4950]
    with QueryRunner(refill=False) as runner:
        assert runner.query("select max(block_number) from blocks", [relation], access).rows == [(99,)]
    store.delete([f"{name}/a.parquet", f"{name}/big"])
    assert list(store.keys(f"{name}/")) == []


def test_a_session_token_from_the_environment(cloud):
    keys = cloud.role_keys()
    with_token = S3Access(BUCKET, keys.access_key, keys.secret_key, cloud.endpoint, session_token=keys.token)
    use_everywhere(with_token, "token")
    with pytest.raises(InvalidInput, match="credentials"):
        ObjectStore(replace(with_token, session_token=None)).put_if_absent("a", b"")


def test_a_profile(cloud, tmp_path):
    keys = cloud.role_keys()
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(
        f"[lake]\naws_access_key_id={keys.access_key}\naws_secret_access_key={keys.secret_key}\n"
        f"aws_session_token={keys.token}\n"
    )
    use_everywhere(chain(cloud, "lake"), "profile")


def test_a_role_that_a_profile_assumes(cloud, tmp_path):
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text(
        f"[base]\naws_access_key_id={cloud.user.access_key}\naws_secret_access_key={cloud.user.secret_key}\n"
    )
    (tmp_path / "AWS_CONFIG_FILE").write_text(
        f"[profile lake]\nrole_arn={cloud.role_arn}\nsource_profile=base\nservices=here\n"
        f"[services here]\nsts =\n  endpoint_url={cloud.endpoint}\n"
        f"[profile base]\nservices=here\n"
    )
    use_everywhere(chain(cloud, "lake"), "assumed")


def test_a_key_that_is_set_needs_no_profile_that_another_program_names(cloud, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "of-another-program")
    keys = cloud.user_with("s3:*")
    use_everywhere(S3Access(BUCKET, keys.access_key, keys.secret_key, cloud.endpoint), "fixed")


def let_time_pass(access, time):
    """Move the clock by which boto3 decides whether credentials are due."""
    found = _session(CredentialSource.of(access)).get_credentials()
    found._time_fetcher = lambda: datetime.now(UTC) + time


@pytest.fixture(params=["instance", "container"])
def role(request, metadata, monkeypatch):
    if request.param == "instance":
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/container")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-secret")
    return request.param


def test_the_role_of_an_instance_or_container(cloud, metadata, role):
    metadata.keys = cloud.role_keys()
    use_everywhere(chain(cloud), role)
    assert metadata.given == 1, "the process asks a single time, for all clients"


def test_a_roles_credentials_are_renewed_before_they_expire_in_every_client(cloud, metadata, role):
    metadata.keys = first = cloud.role_keys()
    access = chain(cloud)
    store = ObjectStore(access)
    store.put_if_absent(f"{role}/before", b"")
    before, keys_before = store.filesystem(), current_keys(access)
    metadata.keys = cloud.role_keys()
    assert current_keys(access) == first
    let_time_pass(access, timedelta(hours=5, minutes=50))  # they live for six hours
    after = current_keys(access)
    assert (keys_before, after, metadata.given) == (first, metadata.keys, 2)
    assert store.filesystem() != before
    assert store._client._request_signer._credentials.get_frozen_credentials().access_key == after.access_key
    provider = CredentialSource.of(access).obstore_provider()
    assert provider()["access_key_id"] == after.access_key
    use_everywhere(access, f"{role}/after")


def test_obstore_asks_again_before_the_shortest_lived_key_expires(cloud, metadata, role):
    """obstore renews when five minutes are left; boto3 gives no key that has less than ten."""
    metadata.keys = cloud.role_keys()
    lifetime = CredentialSource.of(chain(cloud)).obstore_provider()()["expires_at"] - datetime.now(UTC)
    assert timedelta(minutes=5) < lifetime <= timedelta(minutes=10)


def test_what_is_wrong_with_credentials_is_said(cloud, metadata, monkeypatch, tmp_path):
    with pytest.raises(InvalidInput, match="no credentials for the object store: set AWS_ACCESS_KEY_ID"):
        ObjectStore(chain(cloud))
    forget_sessions()
    with pytest.raises(InvalidInput, match="no such profile: check AWS_PROFILE"):
        ObjectStore(chain(cloud, "nobody"))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong")
    forget_sessions()
    with pytest.raises(Unavailable, match="cannot be fetched: the role's service"):
        ObjectStore(chain(cloud))


def test_a_right_that_is_missing_is_named(cloud):
    def store(*actions):
        keys = cloud.user_with(*actions)
        return ObjectStore(S3Access(BUCKET, keys.access_key, keys.secret_key, cloud.endpoint))

    reader, writer = store("s3:GetObject", "s3:ListBucket"), store("s3:PutObject")
    for name, ask in (
        ("write to", lambda: reader.put_if_absent("a", b"")),
        ("delete from", lambda: reader.delete(["a"])),
        ("read from", lambda: writer.read("a")),
        ("list", lambda: list(writer.keys(""))),
        ("list", lambda: writer.stored(["a"])),
        ("list", lambda: ensure_bucket(writer.access)),
        ("create", lambda: ensure_bucket(replace(reader.access, bucket="another-bucket"))),
    ):
        with pytest.raises(InvalidInput, match=f"these credentials may not {name} the bucket: .* code=AccessDenied"):
            ask()
