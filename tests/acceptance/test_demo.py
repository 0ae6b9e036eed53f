"""The README's first command, the demo: it starts its own stack, syncs, runs the analytics and stops everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil

from tests.acceptance.conftest import ROOT


def test_the_demo_follows_and_syncs_asks_at_the_tip_and_ends_everything(open_folder):
    report, home = open_folder / "demo.json", open_folder / "demo-home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACE_", "DAGSTER_"))}
    done = subprocess.run(
        [sys.executable, "-m", "trace_dagster.cli.main", "demo", "--json", str(report)],
        env={**environment, "TRACE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
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
    assert "blocks from 4,1" in done.stdout  # the reorganisation, in the table of the tip
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(home) in " ".join(each.info["cmdline"] or ())]
