"""The README's first command, the demo: it starts its own stack, syncs, runs the analytics and stops everything."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from urllib.request import urlopen

import psutil
import pytest

from tests.acceptance.conftest import ROOT

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


def shown_until(demo: subprocess.Popen[str], last: str) -> list[str]:
    """Return the lines that the demo prints, up to the one that begins so."""
    shown = []
    for line in demo.stdout:
        shown.append(line)
        if line.startswith(last):
            return shown
    pytest.fail(demo.stderr.read()[-3000:])


def check_lines(shown: list[str]) -> None:
    """Check that the last lines can be pasted: a link that opens the page, and a query by curl."""
    *_, page, command = (line.partition(": ")[2].strip() for line in shown)
    link, _, code = page.partition("#")
    with urlopen(link, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
    assert code.startswith("trace_")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row[1] for row in found["rows"]] == ["proposed", "voted", "finalized"]


def test_the_demo_follows_and_syncs_asks_at_the_tip_and_ends_everything(open_folder):
    report, home = open_folder / "demo.json", open_folder / "demo-home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "DAGSTER_"))}
    demo = subprocess.Popen(
        [sys.executable, "-m", "trace_dagster.cli.main", "demo", "--keep", "--json", str(report)],
        env={**environment, "TRACE_HOME": str(home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        shown = shown_until(demo, "SQL by HTTP: ")
        check_lines(shown)
    finally:
        demo.send_signal(signal.SIGINT)
        _, said = demo.communicate(timeout=60)
    assert demo.returncode == 0, said[-3000:]
    found = json.loads(report.read_text())
    assert {stream["committed_blocks"] for stream in found["job"]["streams"]} == {4000}
    assert all(answer["rows"] for answer in found["analytics"].values())
    assert len(found["analytics"]) == 3
    newest, *_ = found["tip"]["at the tip"]["rows"]
    [[blocks, first, last, each_once]] = found["tip"]["over hot and cold"]["rows"]
    assert newest[0] > 4100  # a block that the chain did not have at its start
    assert (each_once, last - first + 1) == (True, blocks)
    assert first < 4000 < newest[0] <= last
    assert [row[0] for row in found["tip"]["heads"]["rows"]] == ["proposed", "voted", "finalized"]
    assert re.search(r"blocks from 4,\d{3}", "".join(shown))  # the reorganisation, in the table of the tip
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(home) in " ".join(each.info["cmdline"] or ())]
