"""What the follower remembers of its chain between two looks at the registry."""

from datetime import UTC, datetime
from uuid import UUID

from trace_dagster.blocks import BlockRange
from trace_dagster.follow.chain_memory import ChainMemory
from trace_dagster.registry.hot import HotBlock, HotRows, HotState

LOGS = UUID(int=1)


def hot_block(number, *, has_rows):
    rows = {LOGS: HotRows(("block_number",), [])} if has_rows else {}
    return HotBlock(number, bytes([number] * 32), bytes([number - 1] * 32), datetime.now(UTC), "full", rows)


def state(hot, committed):
    return HotState((), None, {LOGS: hot}, {LOGS: "hash"}, {LOGS: committed})


def test_a_block_without_rows_is_left_out_until_it_is_committed_and_wanted_if_that_is_undone():
    memory = ChainMemory()
    memory.add([hot_block(each, has_rows=each not in (4, 7)) for each in range(1, 9)], [LOGS])
    assert memory.left_out[LOGS] == [BlockRange(4, 5), BlockRange(7, 8)]
    hot = (BlockRange(6, 7), BlockRange(8, 9))
    memory.read(state(hot, (BlockRange(1, 6),)))
    assert memory.left_out[LOGS] == [BlockRange(7, 8)]
    memory.read(state(hot, ()))
    (wanted,) = memory.wanted({LOGS: 1})
    assert not any(4 in each for each in wanted.covered)
    assert any(7 in each for each in wanted.covered)
