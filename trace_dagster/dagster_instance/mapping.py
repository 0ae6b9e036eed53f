"""Conversion between a block range and the mapping key of the plan's dynamic output."""

from trace_dagster.blocks import BlockRange


def mapping_key(block_range: BlockRange) -> str:
    """Return ``b{start}_{end}``: Dagster allows letters, digits and underscores."""
    return f"b{block_range.start}_{block_range.end}"


def range_of(key: str) -> BlockRange:
    """Return the block range of a mapping key."""
    start, end = key.removeprefix("b").split("_")
    return BlockRange(int(start), int(end))
