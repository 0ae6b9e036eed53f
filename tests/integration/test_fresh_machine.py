"""What a fresh machine may lack: make's targets say so in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.left_out import NPM, leave_out

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
NO_REGISTRY = "http://127.0.0.1:9/"
OF_THE_RECIPE = ("sh", "make", "grep", "mkdir", "sed", "head", "rm")


@pytest.fixture
def checkout(tmp_path):
    """Return a folder with the Makefile and nothing else."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make(checkout, target, **variables):
    """Run a target with empty caches and a registry that does not answer; return exit code and output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "MAKE"))}
    environment |= {"npm_config_cache": str(checkout / "npm-cache"), "npm_config_registry": NO_REGISTRY, **variables}
    done = subprocess.run(
        ["make", target], cwd=checkout, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def path_with(checkout, programs):
    """Return a PATH on which only these programs are found."""
    folder = checkout / "bin"
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(shutil.which(program))
    return str(folder)


def test_without_npm_one_line_says_so(checkout):
    path = path_with(checkout, OF_THE_RECIPE)
    said = "npm is not installed: the tests against a real EVM node are left out"
    assert make(checkout, "node", PATH=path) == (0, [said])
    code, lines = make(checkout, "node", PATH=path, TRACE_REQUIRE_NODE="1")
    assert code == 2
    assert lines[0] == "error: npm is not installed, and TRACE_REQUIRE_NODE is set"


def test_a_failed_fetch_gives_npms_own_reason(checkout):
    """Check also that npm accepts the options when it must fetch: a wrong one is another reason, "minTimeout ..."."""
    if shutil.which("npm") is None:
        leave_out(NPM)
    reason = "npm could not fetch the EVM node (code ECONNREFUSED; see .cache/npm.log)"
    assert make(checkout, "node") == (0, [f"{reason}: the tests against a real EVM node are left out"])
    assert "ECONNREFUSED" in (checkout / ".cache/npm.log").read_text()
    code, lines = make(checkout, "node", TRACE_REQUIRE_NODE="1")
    assert code == 2
    assert lines[0] == f"error: {reason}, and TRACE_REQUIRE_NODE is set"


@pytest.mark.parametrize(("version", "code"), [("1.7.1", 0), ("1.7.0", 2)])
def test_a_node_that_is_there_counts_only_with_the_right_version(checkout, version, code):
    binary = checkout / ".cache/npm/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\necho 'anvil Version: {version}'\n")
    binary.chmod(0o755)
    path = path_with(checkout, OF_THE_RECIPE)
    assert make(checkout, "node", PATH=path, TRACE_REQUIRE_NODE="1")[0] == code
    assert binary.exists() == (code == 0)


def test_down_without_an_install_says_what_to_do(checkout):
    assert make(checkout, "down")[1][0] == "error: trace-lite is not installed here: run make install"


def test_without_a_browser_the_screenshots_say_what_to_install():
    command = [sys.executable, str(ROOT / "docs/screenshot.py"), "--url", NO_REGISTRY, "--browser", "/nowhere/chromium"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no browser was found: install chromium, or give --browser PATH")
    assert len(done.stderr.splitlines()) == 1
