"""How a run names the steps of its ranges: the mapping key of the plan's dynamic output."""

from trace_dagster.blocks import BlockRange


def mapping_key(block_range: BlockRange) -> str:
    """``b{start}_{end}``: Dagster allows letters, digits and underscores."""
    return f"b{block_range.start}_{block_range.end}"


def range_of(key: str) -> BlockRange:
    """The range a mapping key stands for."""
    start, end = key.removeprefix("b").split("_")
    return BlockRange(int(start), int(end))
