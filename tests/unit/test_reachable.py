"""What `apply` and `plan` say of levels before a job runs."""

import pytest

from trace_dagster.config.chain_sync import parse
from trace_dagster.datasets.chain import Chain, Form, Open
from trace_dagster.planning import reachable
from trace_dagster.planning.reachable import job_lines
from trace_dagster.registry.jobs import Bounds

JOB = """
kind: chain_sync
name: job
chain_id: {chain}
mode: {{kind: fixed_target, from_block: 1000, to_block: 9000}}
defaults: {{rpc_pool: one, verify: {verify}}}
streams:
  blocks: {{cryo_dataset_name: blocks}}
  logs: {{cryo_dataset_name: logs, rpc_pool: two}}
  frames: {{cryo_dataset_name: geth_calls}}
  bare: {{cryo_dataset_name: logs, verify: structural}}
"""
FRAMES = "frames: crosschecked (no commitment covers call frames; root frames are compared)"
BARE = "bare: structural (as its verify asks)"
REASON = "the hash is not that of an RLP header"


def lines(chain, verify="full", quorum=1):
    job = parse(JOB.format(chain=chain, verify=verify))
    return list(job_lines(job, Bounds(1000, 9000), lambda pool: quorum))


@pytest.fixture
def table(monkeypatch):
    """Have the table of chains name these chains."""
    chains = {
        5_000: Chain(5_000, "zk", header="other", open=(Open(Form("header"), REASON), Open(Form("receipts"), REASON))),
        5_001: Chain(5_001, "eras", open=(Open(Form("header"), "an old chain", end=3000),)),
    }
    monkeypatch.setattr(reachable, "chain_of", chains.__getitem__)


def test_a_chain_of_the_table_is_one_line_per_stream():
    assert lines(143) == ["blocks: full", "logs: full", FRAMES, BARE]


def test_an_unlisted_chain_says_what_an_unknown_form_does():
    first, *rest = lines(4_242)
    assert first.startswith("chain 4242 is not in the table of chains: standard forms are proven, unknown forms lower")
    assert rest == lines(143)


def test_without_a_commitment_in_reach_the_setting_of_a_quorum_is_named(table):
    assert lines(5_000) == [
        f"blocks: structural ({REASON})",
        f"logs: structural ({REASON})",
        f"frames: structural ({REASON})",
        BARE,
        "no commitment of the chain is in reach of blocks, frames: a quorum of endpoints is the honest level there:"
        " set TRACE_RPC_POOL_ONE_QUORUM=2 or more",
        "no commitment of the chain is in reach of logs: a quorum of endpoints is the honest level there:"
        " set TRACE_RPC_POOL_TWO_QUORUM=2 or more",
    ]
    assert lines(5_000, quorum=2) == lines(5_000)[:4]


@pytest.mark.parametrize(
    ("verify", "stops"), [("full", ""), ("require_full", "; `verify: require_full` stops the stream there")]
)
def test_an_era_below_is_named_and_require_full_says_that_it_stops(table, verify, stops):
    blocks, logs, *_ = lines(5_001, verify)
    assert blocks == f"blocks: full; blocks 1,000 to 2,999: structural (an old chain){stops}"
    assert logs == f"logs: full; blocks 1,000 to 2,999: crosschecked (an old chain){stops}"


def test_require_full_does_not_stop_at_what_no_commitment_covers():
    assert lines(143, "require_full")[2] == FRAMES


def test_off_says_so():
    assert lines(143, "off")[:2] == ["blocks: off (nothing is checked)", "logs: off (nothing is checked)"]
