"""Another user of the machine before the laptop's S3 server: only the signed S3 port answers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from trace_dagster.lite.certificates import Certificates, make_certificates
from trace_dagster.lite.home import Home
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.processes import Child, identity_of
from trace_dagster.lite.s3 import s3_service
from trace_dagster.store.access import S3Access
from trace_dagster.store.objects import ObjectStore

pytestmark = pytest.mark.integration

KEY, BODY = "chain/blocks/_manifest.json", b"a manifest"
NOBODY = 65534
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('connected')"
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Server:
    """A running S3 server, its ports, and a copy of its program that every user may run."""

    folder: Path
    child: Child
    access: S3Access
    ports: dict[str, int]
    weed: Path

    def inner_ports(self) -> list[int]:
        """Return every TCP port that the server listens on, other than that of S3."""
        found = psutil.Process(self.child.pid).net_connections("tcp")
        listening = {each.laddr.port for each in found if each.status == psutil.CONN_LISTEN}
        return sorted(listening - {self.ports["s3"]})

    def sockets(self) -> list[Path]:
        """Return every unix socket that the server listens on."""
        names = {each.laddr for each in psutil.Process(self.child.pid).net_connections("unix") if each.laddr}
        return [self.folder / str(name) for name in sorted(names)]


@pytest.fixture(scope="module")
def server(open_folder) -> Iterator[Server]:
    home = Home(open_folder / "s3 doors")
    home.prepare()
    ports, secrets = Ports({}), home.secrets()
    port = ports.take(with_grpc=True)
    access = S3Access("lake", secrets.s3_access_key, secrets.s3_secret_key, f"http://{HOST}:{port}")
    service = s3_service(home.path / "s3", ports, secrets, access, port)
    options = (word.removeprefix("-").split(".port=") for word in service.command if ".port=" in word)
    child = Child(service, home.logs / "s3.log")
    weed = open_folder / "weed"
    shutil.copy(service.command[0], weed)
    weed.chmod(0o755)
    try:
        child.wait_healthy()
        eventually(
            lambda: "admin" in " ".join(each.laddr for each in psutil.Process(child.pid).net_connections("unix"))
        )
        ObjectStore(access).put_if_absent(KEY, BODY)
        yield Server(home.path / "s3", child, access, {part: int(number) for part, number in options}, weed)
    finally:
        child.signal_stop()
        child.wait_stopped(10)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds: the server's admin part starts after it answers signed requests."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def as_nobody(*command: str, text: str = "", seconds: float = 8.0) -> str:
    """Run a command as a user without rights; return what it printed until its end or the timeout."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        cwd="/",
        **identity_of(NOBODY if os.geteuid() == 0 else None),
    ) as process:
        try:
            return process.communicate(text.encode(), timeout=seconds)[0].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0].decode()


def get(url: str, *options: str) -> str:
    """Return what ``curl`` prints, then the status."""
    return as_nobody("curl", "-sS", "-m", "5", "-w", " %{http_code}", *options, url)


def holds(server: Server) -> bool:
    return ObjectStore(server.access).get(KEY)[0] == BODY


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "path",
    ["/col/delete?collection=lake", "/dir/lookup?volumeId=1", "/dir/assign", "/dir/status", "/vol/vacuum", "/submit"],
)
def test_nobody_asks_the_master_for_anything(server, scheme, path):
    said = get(f"{scheme}://{HOST}:{server.ports['master']}{path}", "-k")
    assert not said.endswith((" 200", " 204")), said
    assert "locations" not in said
    assert holds(server)


def test_nobody_removes_an_object_through_the_shell(server):
    script = f"fs.rm /buckets/lake/{KEY}\ncollection.delete -collection=lake -apply\nfs.ls /buckets\n"
    where = [f"-master={HOST}:{server.ports['master']}", f"-filer={HOST}:{server.ports['filer']}"]
    said = as_nobody(str(server.weed), "shell", *where, text=script)
    assert "lake" not in said
    assert holds(server)


def test_every_inner_port_wants_this_stacks_certificate(server, tmp_path):
    """A port of a later version of the server that is open fails here."""
    config = server.folder / "config"
    own = Certificates(config / "authority.pem", config / "certificate.pem", config / "key.pem")
    (tmp_path / "foreign").mkdir()
    foreign = make_certificates(tmp_path / "foreign")
    ports = server.inner_ports()
    assert len(ports) == 9, "master, volume, filer and admin by HTTP and gRPC, S3 by gRPC"
    for port in ports:
        assert answer_of(port, own), port
        assert not answer_of(port, foreign), port
        assert not answer_of(port, None), port
        assert b"200" not in plain_answer_of(port).partition(b"\r\n")[0], port


def answer_of(port: int, client: Certificates | None) -> bytes:
    """Return the first bytes that a port sends after a TLS handshake with a client certificate; none if it refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    try:
        with socket.create_connection((HOST, port), 5) as plain, context.wrap_socket(plain) as wrapped:
            wrapped.sendall(HTTP_2 if wrapped.selected_alpn_protocol() == "h2" else b"GET / HTTP/1.0\r\n\r\n")
            return wrapped.recv(100)
    except (ssl.SSLError, ConnectionError):
        return b""


def plain_answer_of(port: int) -> bytes:
    try:
        with socket.create_connection((HOST, port), 5) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return plain.recv(100)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("signed", ["", "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"])
def test_the_s3_port_answers_signed_requests_only(server, signed):
    url = f"http://{HOST}:{server.ports['s3']}"
    options = ["-H", f"authorization: {signed}"] if signed else []
    for method, path in (("GET", "/lake"), ("GET", f"/lake/{KEY}"), ("DELETE", f"/lake/{KEY}"), ("PUT", "/other")):
        assert get(url + path, "-X", method, *options)[-3:] in {"400", "401", "403"}, (method, path)
    assert holds(server)


def test_nobody_connects_to_a_socket_or_reads_a_key(server, open_folder):
    anyones = open_folder / "anyones.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(anyones))
        listener.listen()
        anyones.chmod(0o777)
        assert "connected" in as_nobody("python3", "-c", CONNECT, str(anyones))
    sockets = server.sockets()
    assert {path.name for path in sockets} >= {"filer.sock", "s3.sock"}
    for path in sockets:
        mode = path.stat().st_mode & 0o777
        assert path.is_relative_to(server.folder) or mode & 0o022 == 0, path
        if os.geteuid() == 0:
            assert "connected" not in as_nobody("python3", "-c", CONNECT, str(path)), path
    keys = [path for path in (server.folder / "config").iterdir() if path.stat().st_mode & 0o077]
    assert keys == []


def test_sockets_of_the_temporary_folder_go_with_the_server_or_at_the_next_start(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    ports, secrets = Ports({}), home.secrets()

    def start() -> tuple[Child, list[Path]]:
        port = ports.take(with_grpc=True)
        access = S3Access("lake", secrets.s3_access_key, secrets.s3_secret_key, f"http://{HOST}:{port}")
        child = Child(s3_service(home.path / "s3", ports, secrets, access, port), home.logs / "s3.log")
        child.wait_healthy()
        sockets = [Path(line) for line in (home.path / "s3" / "sockets").read_text().splitlines()]
        eventually(lambda: all(path.is_socket() for path in sockets))
        return child, sockets

    first, left = start()
    os.kill(first.pid, signal.SIGKILL)  # and the supervisor with it, so that nothing removes them
    while not first.dead:
        pass
    assert all(path.exists() for path in left)
    second, used = start()
    try:
        assert [path for path in left if path.exists()] == []
    finally:
        second.signal_stop()
        second.wait_stopped(10)
    assert [path for path in used if path.exists()] == []
