"""A lake of the old form on a real stack: left out, then brought back by `apply --rebuild`, equal to the chain."""

from __future__ import annotations

import json

import pytest

from tests.acceptance.jobs import job_file
from tests.support.old_form import OLD_HASH, make_old
from trace_dagster.config.settings import settings_from
from trace_dagster.runtime import Runtime

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

END = 300
KEYS = ("blocks", "transactions", "logs")


@pytest.fixture(scope="module")
def path(stack, tmp_path_factory):
    found = job_file(tmp_path_factory.mktemp("jobs"), "rebuilt", chain=20143, end=END, streams=KEYS, suffix="_rebuilt")
    done = stack.cli("apply", "--file", str(found), "--wait")
    assert done.returncode == 0, done.stderr
    return found


def test_a_lake_of_the_old_form_comes_back_whole(stack, devchain, path):
    runtime = Runtime(settings_from(stack.state.environment()))
    try:
        make_old(runtime.database, runtime.store, job="rebuilt")
    finally:
        runtime.close()
    left_out = stack.cli("query", "--json", "select count(*) from blocks_rebuilt")
    answer = json.loads(left_out.stdout)
    assert answer["rows"] == [[0]]
    assert "apply --rebuild" in answer["snapshot"]["relations"][0]["note"]
    refused = stack.cli("apply", "--file", str(path))
    assert (refused.returncode, "apply --rebuild" in refused.stderr) == (1, True)
    planned = stack.json("plan", "--file", str(path), "--rebuild", "--no-sample", "--json")
    assert [each["ranges"] for each in planned["streams"]] == [3, 3, 3]

    done = stack.cli("apply", "--file", str(path), "--rebuild", "--wait")
    assert done.returncode == 0, done.stderr
    rows = stack.json("query", "--json", "select block_number, block_hash from blocks_rebuilt order by 1")["rows"]
    assert rows == [[block.number, "0x" + block.hash.hex()] for block in devchain.blocks[:END]]
    for key in KEYS:
        assert stack.count(f"{key}_rebuilt") == devchain.rows(key, 0, END)
    (job,) = stack.json("status", "--json", "--job", "rebuilt")["jobs"]
    assert [stream["verified"] for stream in job["streams"]] == [{"full": 3}] * 3
    verified = stack.cli("verify", "--job", "rebuilt", "--deep")  # compares every row with the chain's node
    assert verified.returncode == 0, verified.stderr
    with_old = stack.cli("status")
    assert "apply --rebuild" not in with_old.stderr
    told = stack.cli("changes", "--json").stdout
    assert told.count('"reason": "rebuilt: ') == 9
    assert OLD_HASH not in told
