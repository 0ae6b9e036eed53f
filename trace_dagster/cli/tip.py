"""The tip of followed chains: the table of ``trace-lite status``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trace_dagster.cli.commands import opened
from trace_dagster.cli.tables import Column, chain_title, human_seconds, number_of, print_line, print_table
from trace_dagster.registry.tip_status import ChainTip, chain_tips

if TYPE_CHECKING:
    from trace_dagster.config.settings import Settings
    from trace_dagster.registry.status import JobStatus

_COLUMNS: list[Column] = [
    ("chain", "left"),
    ("head", "right"),
    ("behind", "right"),
    ("age", "right"),
    ("finalized", "right"),
    ("hot blocks", "right"),
    ("followed by", "left"),
    ("last reorganisation", "left"),
]


def read_tips(settings: Settings, jobs: Sequence[JobStatus]) -> list[ChainTip]:
    """Return the tip of every followed chain of these jobs."""
    wanted = {job.chain_id for job in jobs}
    with opened(settings) as runtime:
        return [tip for tip in chain_tips(runtime.database) if tip.chain_id in wanted]


def tip_table(tips: Sequence[ChainTip]) -> None:
    """Print the tip of each followed chain, and below it why one is not followed; nothing without followed chains."""
    if not tips:
        return
    print_table(_COLUMNS, map(_cells, tips), title="tip")
    for tip in tips:
        if line := tip.stopped_line():
            print_line(f"{chain_title(tip.chain_id)}: {line}")


def _cells(tip: ChainTip) -> list[str]:
    return [
        chain_title(tip.chain_id),
        "-" if tip.head is None else f"{tip.head:,} {tip.head_label}",
        "-" if tip.lag_blocks is None else number_of(tip.lag_blocks, "block"),
        "-" if tip.lag_seconds is None else human_seconds(max(0.0, tip.lag_seconds)),
        _number(tip.finalized),
        f"{tip.hot_blocks:,}",
        tip.followed_by or "-",
        _last_reorg(tip),
    ]


def _number(block: int | None) -> str:
    return "-" if block is None else f"{block:,}"


def _last_reorg(tip: ChainTip) -> str:
    found = tip.last_reorg
    if found is None:
        return "none"
    return f"{number_of(found.depth, 'block')} from {found.fork_block:,}, {human_seconds(found.age_seconds)} ago"
