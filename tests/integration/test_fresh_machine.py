"""What a fresh machine may lack: make's targets say so in one line. And the emptied environment of `.ci/fresh`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.left_out import GIT, NPM, leave_out

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


def emptied(home, *command, **variables):
    """Run a command in the emptied environment of a home with settings files; return its output."""
    machine = home.parent / "machine"
    (machine / ".config/pip").mkdir(parents=True)
    (machine / ".config/pip/pip.conf").write_text("[global]\nindex-url = https://index.example/simple\n")
    (machine / ".npmrc").write_text("registry=https://registry.example/\ncache=/var/cache/npm\n")
    (machine / ".npm").mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(machine), **variables}
    done = subprocess.run(
        [str(ROOT / ".ci/emptied"), str(home), *command], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_emptied_environment_keeps_only_where_packages_come_from(tmp_path):
    kept = {
        "PIP_INDEX_URL": "https://own.example/simple",
        "PIP_CONFIG_FILE": "/etc/own pip.conf",
        "NODE_EXTRA_CA_CERTS": "/etc/ssl/own.pem",
        "SSL_CERT_FILE": "/etc/ssl/own.pem",
        "REQUESTS_CA_BUNDLE": "/etc/ssl/own.pem",
        "NPM_CONFIG_REGISTRY": "https://own.example/",
        "https_proxy": "http://proxy.example:3128",
    }
    dropped = dict.fromkeys(
        ("PIP_CACHE_DIR", "NPM_CONFIG_CACHE", "XDG_CACHE_HOME", "PYTHONPATH", "VIRTUAL_ENV", "TRACE_HOME", "MAKEFLAGS"),
        "left",
    )
    home = tmp_path / "new home"
    found = dict(line.split("=", 1) for line in emptied(home, "env", **kept, **dropped).splitlines())
    own = {"HOME": str(home), "PIP_CACHE_DIR": f"{home}/.cache/pip", "npm_config_cache": f"{home}/.npm"}
    shells_own = {"_", "PWD", "SHLVL", "OLDPWD", "SHELL", "PATH"}
    assert {name: value for name, value in found.items() if name not in shells_own} == {**kept, **own}


def test_the_emptied_environment_keeps_the_settings_files_of_pip_and_npm(tmp_path):
    home = tmp_path / "home"
    said = emptied(home, "sh", "-c", 'cat "$HOME/.config/pip/pip.conf"')
    assert "index.example" in said
    assert not (home / ".npm").exists()


def test_npm_has_the_machines_registry_and_an_empty_cache(tmp_path):
    if shutil.which("npm") is None:
        leave_out(NPM)
    home = tmp_path / "home"
    said = emptied(home, "sh", "-c", "npm config get registry; npm config get cache")
    assert said.splitlines() == ["https://registry.example/", f"{home}/.npm"]


README = """
```sh
make demo
```

```sh
.venv/bin/trace-lite up --detach && .venv/bin/trace-lite apply
.venv/bin/trace-lite down
```
"""
MAKEFILE = """
demo:
\ttest ! -e $$HOME/.npm -a ! -e .venv -a -z "$$TRACE_HOME"
\tmkdir -p .venv/bin && cp trace-lite .venv/bin
node:
\ttest -n "$$TRACE_REQUIRE_NODE" -a ! -e no-node
"""
TRACE_LITE = """#!/bin/sh
test ! -e "no-$1"
"""


@pytest.mark.parametrize(
    ("lacking", "failed"),
    [
        ("", ""),
        (".venv", "make demo"),
        ("no-up", ".venv/bin/trace-lite up --detach && .venv/bin/trace-lite apply"),
        ("no-down", ".venv/bin/trace-lite down"),
        ("no-node", "TRACE_REQUIRE_NODE=1 make node"),
    ],
)
@pytest.mark.parametrize("with_git", [True, False])
def test_a_command_that_fails_on_a_fresh_machine_fails_ci(tmp_path, lacking, failed, with_git):
    """Run `.ci/fresh` on a small project. A git clone has no `.venv`; neither has a copy of a folder without git."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / ".ci", project / ".ci")
    for name, content in {"README.md": README, "Makefile": MAKEFILE, "trace-lite": TRACE_LITE}.items():
        (project / name).write_text(content)
    (project / "trace-lite").chmod(0o755)
    if lacking == ".venv":
        (project / "Makefile").write_text(MAKEFILE.replace("! -e .venv", "-e .venv"))
    elif lacking:
        (project / lacking).touch()
    if with_git:
        git(project, "init", "--quiet")
        git(project, "add", ".")
        git(project, "commit", "--quiet", "--message", "all")
    (project / ".venv").mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "TRACE_HOME": "left"}
    done = subprocess.run([project / ".ci/fresh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if failed else 0), done.stderr
    if failed:
        assert done.stderr.splitlines()[-1] == f"error: this fails on a fresh machine: {failed}"
    assert not list(temporary.iterdir())


def git(folder, *arguments):
    """Run git without the settings of this machine. The test is left out if there is no git."""
    if shutil.which("git") is None:
        leave_out(GIT)
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    person = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *person, *arguments], cwd=folder, env=environment, check=True, capture_output=True)
