"""An AWS stand-in that checks signatures, session tokens and IAM policies (moto), and a metadata service over HTTP.

The metadata service answers as an instance's (IMDSv2) and as a container's; both hand out the role's credentials that
it was last given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3

from trace_dagster.store.credentials import CredentialSource, Keys
from trace_dagster.store.objects import reachable

HOST = "127.0.0.1"
BUCKET = "lake"
ROLE_PATH = "/latest/meta-data/iam/security-credentials/"
_TRUST = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}


@dataclass(slots=True)
class Aws:
    """S3, IAM and STS at one endpoint. Everything is refused that a policy does not allow."""

    endpoint: str
    admin: Keys = field(init=False)
    user: Keys = field(init=False)
    role_arn: str = field(init=False)

    def client(self, service: str, keys: Keys | None = None) -> Any:
        """Return a client that signs with these keys, or with the administrator's."""
        source = CredentialSource("none", "none") if keys is None else CredentialSource(*_three(keys))
        return source.client(service, endpoint_url=self.endpoint, region_name="us-east-1")

    def user_with(self, *actions: str) -> Keys:
        """Return the key of a new user who may do these actions and no other."""
        name = f"u{time.time_ns()}"
        iam = self.client("iam", self.admin)
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=_policy(*actions))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return Keys(made["AccessKeyId"], made["SecretAccessKey"])

    def role_keys(self) -> Keys:
        """Return new temporary credentials of the role."""
        given = self.client("sts", self.user).assume_role(RoleArn=self.role_arn, RoleSessionName="test")["Credentials"]
        return Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])

    def _prepare(self) -> None:
        iam = self.client("iam")
        self.client("s3").create_bucket(Bucket=BUCKET)
        trust = json.dumps({"Version": "2012-10-17", "Statement": [_TRUST]})
        self.role_arn = iam.create_role(RoleName="lake", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        iam.put_role_policy(RoleName="lake", PolicyName="p", PolicyDocument=_policy("s3:*"))
        for name, action in (("admin", "*"), ("user", "sts:AssumeRole")):
            iam.create_user(UserName=name)
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=_policy(action))
            made = iam.create_access_key(UserName=name)["AccessKey"]
            setattr(self, name, Keys(made["AccessKeyId"], made["SecretAccessKey"]))
        # from now on every request is checked
        headers = {"content-type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", b"0", headers))


def _three(keys: Keys) -> tuple[str, str, str | None]:
    return keys.access_key, keys.secret_key, keys.token


def _policy(*actions: str) -> str:
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [allowed]})


@contextmanager
def aws(port: int) -> Iterator[Aws]:
    """Run the stand-in on ``port``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        made = Aws(f"http://{HOST}:{port}")
        deadline = time.monotonic() + 60
        while not reachable(f"{made.endpoint}/moto-api/") and time.monotonic() < deadline:
            time.sleep(0.1)
        made._prepare()
        yield made
    finally:
        process.terminate()
        process.wait(10)


class MetadataService:
    """Hands out credentials to an instance and to a container, and counts how often."""

    def __init__(self) -> None:
        self.keys = Keys("none", "none", "none")
        self.given = 0
        self.url = ""

    def answer(self) -> dict[str, str]:
        """Return the credentials as both services spell them."""
        self.given += 1
        expires = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": self.keys.access_key,
            "SecretAccessKey": self.keys.secret_key,
            "Token": str(self.keys.token),
            "Expiration": expires,
            "LastUpdated": expires,
        }


@contextmanager
def metadata_service() -> Iterator[MetadataService]:
    """Serve credentials on loopback."""
    service = MetadataService()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._send("a-token" if self.path == "/latest/api/token" else None)

        def do_GET(self) -> None:
            if self.path == "/container":
                allowed = self.headers.get("authorization") == "container-secret"
                self._send(json.dumps(service.answer()) if allowed else None)
            elif self.headers.get("x-aws-ec2-metadata-token") != "a-token":
                self._send(None)
            elif self.path == ROLE_PATH:
                self._send("lake")
            elif self.path == f"{ROLE_PATH}lake":
                self._send(json.dumps(service.answer()))
            else:
                self._send(None)

        def _send(self, text: str | None) -> None:
            data = (text or "").encode()
            self.send_response(200 if text is not None else 401)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    service.url = f"http://{HOST}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def forget_sessions() -> None:
    """Make the next client look for credentials again, as a new process does."""
    from trace_dagster.store import credentials

    credentials._session.cache_clear()
    boto3.DEFAULT_SESSION = None
