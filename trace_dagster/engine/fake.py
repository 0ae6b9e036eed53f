"""A made-up chain with Cryo's schemas and without RPC, for tests and for `TRACE_CRYO_MODE=fake`.

A value depends only on (chain_id, dataset, column, row key). So rows are the same in every process, and the same for
every way to cut a range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pyarrow as pa

from trace_dagster.blocks import BlockRange
from trace_dagster.engine.base import ExtractRequest

GENESIS_TIMESTAMP = 1_700_000_000

_Key = tuple[int, ...]
"""(block,), (block, transaction) or (block, transaction, item). Items count from 0 in each block."""


class FakeCryo:
    """The fake engine. Stateless and thread-safe."""

    name = "fake"
    version = "fake-1"

    def extract(self, request: ExtractRequest) -> pa.Table:
        """Return the made-up rows of the request's blocks, with ``request.schema``."""
        return _table(request, request.block_range)

    def made_up_times(self, piece: BlockRange) -> list[int]:
        """Return the timestamps of made-up blocks."""
        return [GENESIS_TIMESTAMP + block for block in range(piece.start, piece.end)]

    def close(self) -> None:
        """Do nothing: this engine starts no process."""


def transactions_in(chain_id: int, block: int) -> int:
    """Return the number of transactions in a made-up block: 0 to 4."""
    return _number(chain_id, "transactions", block) % 5


def logs_in(chain_id: int, block: int, transaction: int) -> int:
    """Return the number of logs of a made-up transaction: 0 to 2."""
    return _number(chain_id, "logs", block, transaction) % 3


def _table(request: ExtractRequest, piece: BlockRange) -> pa.Table:
    keys = list(_KEYS.get(request.dataset.name, _no_rows)(request.chain_id, piece))
    columns = [
        pa.array([_value(request.chain_id, request.dataset.name, field, key) for key in keys], field.type)
        for field in request.schema
    ]
    return pa.Table.from_arrays(columns, schema=request.schema)


def _no_rows(chain_id: int, piece: BlockRange) -> Iterator[_Key]:
    del chain_id, piece
    yield from ()


def _blocks(chain_id: int, piece: BlockRange) -> Iterator[_Key]:
    del chain_id
    yield from ((block,) for block in range(piece.start, piece.end))


def _transactions(chain_id: int, piece: BlockRange) -> Iterator[_Key]:
    for (block,) in _blocks(chain_id, piece):
        yield from ((block, index) for index in range(transactions_in(chain_id, block)))


def _logs(chain_id: int, piece: BlockRange) -> Iterator[_Key]:
    for (block,) in _blocks(chain_id, piece):
        item = 0
        for transaction in range(transactions_in(chain_id, block)):
            for _ in range(logs_in(chain_id, block, transaction)):
                yield block, transaction, item
                item += 1


_KEYS: dict[str, Callable[[int, BlockRange], Iterator[_Key]]] = {
    "blocks": _blocks,
    "transactions": _transactions,
    "logs": _logs,
    "erc20_transfers": _logs,
    "geth_calls": _transactions,
    "native_transfers": _transactions,
}

_COUNTS: dict[str, Callable[[bytes], int]] = {
    "n_input_bytes": len,
    "n_input_zero_bytes": lambda data: data.count(0),
    "n_input_nonzero_bytes": lambda data: len(data) - data.count(0),
}


def _value(chain_id: int, dataset: str, field: pa.Field, key: _Key) -> object:
    block = key[0]
    match field.name:
        case "block_number":
            return block
        case "chain_id":
            return chain_id
        case "timestamp" | "block_timestamp":
            return (GENESIS_TIMESTAMP + block) * (1_000_000 if pa.types.is_timestamp(field.type) else 1)
        case "block_hash":
            return _block_hash(chain_id, block)
        case "parent_hash":
            return _block_hash(chain_id, block - 1)
        case "transaction_hash":
            return _bytes(32, chain_id, "transaction_hash", *key[:2])
        case "transaction_index" | "transfer_index":
            return key[1]
        case "log_index":
            return key[2]
        case "trace_address" | "error":
            return "" if field.name == "trace_address" else None
    return _filler(chain_id, dataset, field, key)


def _filler(chain_id: int, dataset: str, field: pa.Field, key: _Key) -> object:
    if field.name in _COUNTS:
        return _COUNTS[field.name](_bytes(32, chain_id, dataset, "input", *key))
    base = field.name.removesuffix("_binary").removesuffix("_string").removesuffix("_f64")
    number = _number(chain_id, dataset, base, *key)
    if base != field.name:  # one of the three columns of a uint256
        columns = {"_binary": number.to_bytes(32, "big"), "_string": str(number), "_f64": float(number)}
        return columns[field.name.removeprefix(base)]
    if pa.types.is_boolean(field.type):
        return number % 10 != 0
    if pa.types.is_floating(field.type):
        return float(number)
    if pa.types.is_integer(field.type):
        return number % 2**16
    if pa.types.is_large_string(field.type):
        return f"{field.name}{number % 7}"
    return _bytes(
        20 if "address" in field.name or field.name in {"author", "erc20"} else 32,
        chain_id,
        dataset,
        field.name,
        *key,
    )


def _block_hash(chain_id: int, block: int) -> bytes:
    return _bytes(32, chain_id, "block_hash", max(block, -1))


def _bytes(length: int, *parts: object) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:length]


def _number(*parts: object) -> int:
    return int.from_bytes(_bytes(7, *parts), "big")
