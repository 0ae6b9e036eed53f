"""The container files, as far as they can be tested without a Docker engine."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.support.compose import DOCKER, REFERENCE, SERVICES, Compose
from tests.support.gateways import gateway

ROOT = Path(__file__).parents[2]
ONE_SHOT = {"bucket", "migrate"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|_URL$")
GATEWAY = "http://gateway:8546/"


def example_names():
    lines = (DOCKER / "env.example").read_text().splitlines()
    return {line.split("=")[0] for line in lines if line and not line.startswith("#")}


def test_the_services_of_the_product_are_all_there():
    dagster, others = {"code", "web", "daemon"}, {"gateway", "follower", "queries"}
    assert set(SERVICES) == {"postgres", "minio", "bucket", "migrate", *dagster, *others}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_one_shot_or_says_whether_it_is_healthy(name):
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        assert "healthcheck" not in service
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", SERVICES)
def test_waiting_is_for_health_or_for_the_end_of_a_one_shot(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if other in ONE_SHOT else "service_healthy")


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_on_this_machine_only(name):
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in SERVICES[name].get("ports", []))
    assert SERVICES[name].get("network_mode") is None


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_file(name):
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(variable) and variable != "TRACE_WEB_URL" and value is not None:  # None: that of .env
            found = REFERENCE.fullmatch(str(value).removeprefix(GATEWAY))
            assert found, variable
            assert found.group(2) == ":?", f"{variable} must be required"


def test_every_variable_is_required_and_explained_in_the_example():
    references = REFERENCE.findall((DOCKER / "compose.yaml").read_text())
    assert references
    assert {name for name, _ in references} <= example_names()
    assert {how for _, how in references} == {":?"}


def test_the_example_holds_no_secret():
    text = (DOCKER / "env.example").read_text()
    for name in ("POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TRACE_GATEWAY_TOKEN", READ_KEY):
        assert re.search(rf"^{name}=$", text, re.MULTILINE)
    assert ":CHANGE_ME@" in text
    assert re.search(r"^TRACE_RPC_POOL_STANDARD_URL=$", (DOCKER / "pools.env.example").read_text(), re.MULTILINE)


POOLS, DATABASE, STORE = "pools.env", "TRACE_POSTGRES_URL", "AWS_SECRET_ACCESS_KEY"
READ_KEY = "TRACE_S3_QUERY_SECRET_ACCESS_KEY"
TOKEN, DOOR = "TRACE_GATEWAY_TOKEN", "TRACE_RPC_GATEWAY_URL"
SECRETS = {POOLS, DATABASE, STORE, READ_KEY, TOKEN, DOOR, ".env"}
NEEDS = {
    "bucket": {STORE},
    "migrate": {DATABASE},
    "gateway": {POOLS, DATABASE, TOKEN},
    "code": {DOOR, DATABASE, STORE},
    "follower": {DOOR, DATABASE},
    "queries": {DATABASE, READ_KEY},
    "web": {DATABASE},
    "daemon": {DATABASE},
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_service_has_only_the_secrets_that_it_needs(name):
    files = SERVICES[name].get("env_file", [])
    assert {*files, *SERVICES[name]["environment"]} & SECRETS == NEEDS[name]
    shared = yaml.safe_load((DOCKER / "compose.yaml").read_text())["x-trace"]
    assert "env_file" not in shared
    assert "environment" not in shared


def test_the_gateway_is_reached_by_the_other_containers_only():
    service = SERVICES["gateway"]
    assert "ports" not in service
    command = service["command"]
    assert command[command.index("--host") + 1] == "0.0.0.0"
    port = command[command.index("--port") + 1]
    for name in ("code", "follower"):
        assert SERVICES[name]["environment"][DOOR].startswith(f"http://gateway:{port}/${{{TOKEN}:?")
        assert "gateway" in SERVICES[name]["depends_on"]


def test_the_query_service_writes_to_its_temporary_folder_only():
    service = SERVICES["queries"]
    assert service["read_only"] is True
    assert service["volumes"] == ["queries:/tmp"]
    command = service["command"]
    assert service["ports"] == [f"127.0.0.1:8480:{command[command.index('--port') + 1]}"]


def test_the_gateway_is_healthy_while_it_answers():
    env = {DATABASE: "postgresql://nobody@127.0.0.1:9/trace", TOKEN: "token-of-this-test"}
    with gateway(dev="http://127.0.0.1:9") as door:
        port = door.url.split(":")[2].split("/")[0]
        compose = Compose(env, {}, {"8546": port})
        assert compose.is_healthy("gateway")
        assert not Compose({**env, TOKEN: "another-token-here"}, {}, {"8546": port}).is_healthy("gateway")
    assert not compose.is_healthy("gateway")
    with socket.create_server(("127.0.0.1", int(port))):  # accepts, and does not answer
        assert not compose.is_healthy("gateway")


@pytest.mark.parametrize("name", [name for name in SERVICES if "command" in SERVICES[name]])
def test_what_a_service_runs_exists(name):
    programs, modules = commands_of(SERVICES[name])
    scripts = Path(sys.executable).parent
    assert programs
    for program in programs - {"sh", "bash", "python", "find"}:
        assert shutil.which(program, path=str(scripts)), program
    for module in modules:
        assert find_spec(module), module


def commands_of(service):
    """Return the programs and Python modules that the command and the health check start."""
    programs, modules = set(), set()
    for words in (service["command"], service.get("healthcheck", {}).get("test", ["CMD"])[1:]):
        parts = words[2].split(" && ") if words[:2] == ["sh", "-c"] else [words]
        for part in parts:
            line = part.split() if isinstance(part, str) else part
            programs |= set(line[:1])
            modules |= {after for flag, after in zip(line, line[1:], strict=False) if flag == "-m"}
    return programs, modules


def test_the_follower_is_healthy_while_its_heartbeat_is_fresh(tmp_path):
    file = tmp_path / "follower.heartbeat"
    line = SERVICES["follower"]["healthcheck"]["test"][-1].replace("/tmp/follower.heartbeat", str(file))

    def is_healthy():
        return subprocess.run(["sh", "-c", line], stderr=subprocess.DEVNULL, check=False).returncode == 0

    assert not is_healthy()
    file.touch()
    assert is_healthy()
    os.utime(file, (time.time() - 11,) * 2)
    assert not is_healthy()
    assert SERVICES["follower"]["command"][-1] == "/tmp/follower.heartbeat"


def test_scripts_named_in_commands_are_in_the_image():
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert SERVICES["bucket"]["command"] == ["python", "/opt/trace/bootstrap_bucket.py"]
    assert "COPY docker/bootstrap_bucket.py /opt/trace/" in dockerfile


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.minio"])
def test_images_end_as_an_ordinary_user_and_take_no_secret(name):
    text = (DOCKER / name).read_text()
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users
    assert users[-1] not in {"root", "0"}
    assert not re.search(r"^(ARG|ENV) .*(PASSWORD|SECRET|TOKEN|KEY)", text, re.MULTILINE)
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.search(r":\S*\d", base) for base in bases), "a base image has a version"


def test_what_the_dockerfile_copies_exists_and_reaches_the_builder():
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore[1] == "*"
    assert {"docker/.env", "docker/pools.env"} <= set(ignore[-3:])
    copies = re.findall(r"^COPY (?!--from)(.+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copies for source in line.split()[:-1]]
    assert "requirements.txt" in sources
    for source in sources:
        name = source.removeprefix("./")
        assert (ROOT / name).exists(), name
        assert {f"!{name}", f"!{name}/", f"!{name.split('/')[0]}/"} & set(ignore), name


def test_the_image_installs_from_the_hashed_list():
    text = (DOCKER / "Dockerfile").read_text()
    assert "--require-hashes -r requirements.txt" in text
    assert "--no-deps --no-build-isolation" in text


def test_the_workspace_leads_to_the_code_service():
    [entry] = yaml.safe_load((DOCKER / "workspace.yaml").read_text())["load_from"]
    command = SERVICES["code"]["command"]
    server = entry["grpc_server"]
    assert server["host"] in SERVICES
    assert str(server["port"]) == command[command.index("-p") + 1]
    assert server["location_name"] == command[command.index("--location-name") + 1]
