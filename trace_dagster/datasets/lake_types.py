"""The Arrow types of stored columns. They follow from Cryo's types by rule; byte columns of fixed size are listed.

Other engines read these types: Iceberg and Athena have no unsigned numbers, and fees may have more than 64 bits.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

FEE_DIGITS = 38
FEES = frozenset({"gas_price", "max_fee_per_gas", "max_priority_fee_per_gas", "base_fee_per_gas"})
"""Columns of amounts in wei per gas: decimal numbers of up to 38 digits."""

TIME_TYPE = "timestamp[us, tz=UTC]"

UNSIGNED = ("uint32", "uint64")
"""Cryo's types of numbers. The lake stores them as int64, except for fees."""

_ADDRESSES = frozenset(
    {
        "action_from", "action_to", "address", "author", "contract_address", "deployer", "erc20", "factory",
        "from_address", "result_address", "to_address",
    }
)  # fmt: skip
"""Columns of 20 bytes, in every dataset that has them."""

_WORDS = frozenset(
    {
        "block_hash", "code_hash", "init_code_hash", "parent_hash", "receipts_root", "slot", "state_root",
        "storage_key", "storage_val", "topic0", "topic1", "topic2", "topic3", "transaction_hash", "transactions_root",
    }
)  # fmt: skip
"""Columns of 32 bytes, in every dataset that has them, like those that end in ``_binary``."""

_SLOT_VALUES = {
    "geth_storage_diffs": frozenset({"from_value", "to_value"}),
    "storage_diffs": frozenset({"from_value", "to_value"}),
    "storage_reads": frozenset({"value"}),
}
"""Columns of 32 bytes in these datasets only. ``code_diffs`` has a ``from_value`` of any length."""


def lake_type(dataset: str, column: str, engine_type: str) -> str:
    """Return the stored type of a column, as Arrow prints it. ``engine_type`` is Cryo's."""
    if engine_type in UNSIGNED:
        return f"decimal128({FEE_DIGITS}, 0)" if column in FEES else "int64"
    if engine_type == "large_binary" and (size := byte_size(dataset, column)):
        return f"fixed_size_binary[{size}]"
    return engine_type


def byte_size(dataset: str, column: str) -> int | None:
    """Return the size of every value of a binary column, or None if values have any length."""
    if column in _ADDRESSES:
        return 20
    is_word = column in _WORDS or column.endswith("_binary") or column in _SLOT_VALUES.get(dataset, ())
    return 32 if is_word else None


@cache
def arrow_types() -> dict[str, pa.DataType]:
    """Return the types of Cryo's and of stored columns by the text that Arrow prints for them."""
    import pyarrow as pa  # most users of this module do not need Arrow

    types = (
        pa.bool_(), pa.float64(), pa.large_binary(), pa.large_string(), pa.uint32(), pa.uint64(), pa.int64(),
        pa.decimal128(FEE_DIGITS, 0), pa.binary(20), pa.binary(32), pa.timestamp("us", "UTC"),
    )  # fmt: skip
    return {str(each): each for each in types}
