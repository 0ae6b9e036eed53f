"""The end of a test run lists what this machine lacks, each thing one time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LACKING = """
import pytest
from tests.support.left_out import EVM_NODE, REAL_BLOCKS, leave_out

@pytest.mark.parametrize("number", range(3))
def test_blocks(number):
    leave_out(REAL_BLOCKS)

@pytest.fixture
def node():
    leave_out(EVM_NODE)

@pytest.mark.parametrize("number", range(2))
def test_node(node, number):
    pass

def test_else():
    pytest.skip("no pooler is\\ninstalled here")

def test_that_runs():
    pass
"""


def run(folder, content, *arguments, **variables):
    """Run a test file with pytest; return its exit code and the lines of its output that are not empty."""
    (folder / "test_it.py").write_text(content)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -rfExX\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.support.left_out",
        "-p",
        "no:cacheprovider",
        *arguments,
        ".",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "PYTEST_"))}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, [line for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("processes", [(), ("-n", "2")])
def test_each_absent_thing_is_listed_once_at_the_end(tmp_path, processes):
    code, lines = run(tmp_path, LACKING, *processes)
    assert code == 0, lines
    assert lines[-5].strip("= ") == "tests left out on this machine"
    assert lines[-4:-1] == [
        "    3 tests: real mainnet blocks: set TRACE_REAL_BLOCKS to a folder of recorded blocks",
        "    2 tests: a real EVM node: install npm, then run `make node`",
        "    1 test: no pooler is installed here",
    ]
    assert "1 passed, 6 skipped" in lines[-1]
    assert sum("EVM node" in line for line in lines) == 1


def test_a_thing_that_the_environment_requires_fails_its_tests(tmp_path):
    code, lines = run(tmp_path, LACKING, TRACE_REQUIRE_NODE="1")
    assert code == 1
    assert "2 errors" in lines[-1]
    assert any("TRACE_REQUIRE_NODE is set, and this machine lacks a real EVM node" in line for line in lines)


def test_nothing_is_listed_when_nothing_was_left_out(tmp_path):
    code, lines = run(tmp_path, "def test_that_runs():\n    pass\n")
    assert code == 0
    assert not any("left out" in line for line in lines)
