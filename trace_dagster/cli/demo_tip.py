"""The part of the demo that is about the tip: a job that follows the growing devchain, and questions at its head."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trace_dagster.cli.commands import apply_file, opened, read_status, run_query
from trace_dagster.config.settings import Settings
from trace_dagster.config.shipped_files import shipped_file
from trace_dagster.devchain.constants import CHAIN_ID
from trace_dagster.errors import Unavailable
from trace_dagster.query.render import to_json
from trace_dagster.registry.tip_status import ChainTip, chain_tips
from trace_dagster.rpc.client import call

Say = Callable[[str], None]

QUERIES = {
    "at the tip": "select b.block_number, b.block_timestamp, b.gas_used, count(t.transaction_hash) as transactions"
    " from tip_blocks b left join tip_transactions t using (block_number)"
    " group by all order by block_number desc limit 3",
    "over hot and cold": "select count(*) as blocks, min(block_number) as first, max(block_number) as newest,"
    " count(*) = max(block_number) - min(block_number) + 1 as each_block_once from tip_blocks",
    "heads": "select label, number, hash, block_timestamp from heads order by number desc",
}
_REORG = [2, 3]
"""Blocks to replace, and blocks that replace them: above the final block."""

_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.2


def follow_devchain(settings: Settings, say: Say) -> float:
    """Apply the job that follows the devchain; return the seconds until its newest block was in SQL."""
    started = time.monotonic()
    apply_file(shipped_file("examples/devchain_tip.yaml"), settings, say)
    _wait(settings, lambda tip: tip.head is not None)
    newest = run_query("select max(block_number) from tip_blocks", settings, 1).rows[0][0]
    seconds = time.monotonic() - started
    say(f"block {newest} of the growing chain is in SQL {seconds:.1f} s after the job was given")
    return seconds


def reorganise(settings: Settings, say: Say) -> float:
    """Have the devchain replace its newest blocks; return the seconds until the hot rows are those of the new ones."""
    started = time.monotonic()
    call(settings.pool("devchain").endpoints[0], "dev_reorg", _REORG)
    found = _wait(settings, lambda tip: tip.last_reorg is not None).last_reorg
    seconds = time.monotonic() - started
    fork_block = found.fork_block if found else None
    say(f"the chain replaced its blocks from {fork_block} on: the rows were replaced {seconds:.1f} s later")
    return seconds


def ask_at_the_tip(settings: Settings) -> dict[str, Any]:
    """Return the answers about the tip, by title, when some of the followed blocks are committed and others are hot."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not all(stream.committed_blocks for stream in read_status(settings, "devchain_tip")[0].streams):
        _require_time(deadline, "no followed block was committed in time")
    return {title: to_json(run_query(sql, settings, 100)) for title, sql in QUERIES.items()}


def _wait(settings: Settings, is_reached: Callable[[ChainTip], bool]) -> ChainTip:
    """Return the devchain's tip when it is as wanted."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with opened(settings) as runtime:
        while True:
            for tip in chain_tips(runtime.database):
                if tip.chain_id == CHAIN_ID and is_reached(tip):
                    return tip
            _require_time(deadline, "the tip did not move in time: see `trace-lite status`")


def _require_time(deadline: float, otherwise: str) -> None:
    """Wait a moment. Raises Unavailable with ``otherwise`` after the deadline."""
    if time.monotonic() > deadline:
        raise Unavailable(otherwise)
    time.sleep(_POLL_SECONDS)
