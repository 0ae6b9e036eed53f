"""Column-wise comparison of rows with proven rows.

It only confirms equality; on a difference, ``rowwise.py`` finds the row and raises.

The tables must have passed the structural checks. So the columns of a uint256 agree with each other, and the
``n_input_*`` columns agree with ``input``; only one of them is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from trace_dagster.verify.model import Evidence, Header, ProvenRows
from trace_dagster.verify.rows.arrow import plain
from trace_dagster.verify.rows.calls import UNPROVEN, created_address
from trace_dagster.verify.rows.comparison import Comparison
from trace_dagster.verify.rows.shared_columns import BELONGS, BLOCK_HASH
from trace_dagster.verify.rows.uint256_columns import INPUT_COUNTS, SUFFIXES

_Columns = dict[str, pa.ChunkedArray]
_VALUE = {f"value{face}" for face in SUFFIXES}
_TRANSACTION_COLUMNS = {"block_number", "transaction_index", "transaction_type", "success", "gas_used"}
_LOG_COLUMNS = {
    "block_number", "transaction_index", "log_index", "address", "topic0", "topic1", "topic2", "topic3", "data",
}  # fmt: skip


def compare_proven_rows(name: str, table: pa.Table, evidence: Evidence, *, deep: bool) -> Comparison | None:
    """Return the result that ``rowwise.py`` would return, if the rows equal the proven rows.

    ``name`` is the dataset. None if rows differ, if a needed column is missing, or if the dataset is not one of
    transactions, logs and geth_calls.
    """
    if evidence.rows is None or name not in _DATASETS:
        return None
    try:
        return _DATASETS[name](table, evidence, evidence.rows, deep)
    except (pa.ArrowException, KeyError):  # other rows or blocks than proven, or a column of another type
        return None


def _transactions(table: pa.Table, evidence: Evidence, rows: ProvenRows, deep: bool) -> Comparison | None:
    given, proven = set(table.column_names), rows.transactions
    expected = {name: proven[name] for name in proven.column_names} | _of_blocks(evidence, rows.transaction_ends, given)
    derived = _derived(given, "value_binary", _VALUE) | _derived(given, "input", set(INPUT_COUNTS))
    if not given >= _TRANSACTION_COLUMNS or (_VALUE | set(INPUT_COUNTS)) & given - expected.keys() - derived:
        return None
    if not same_values(table, expected):
        return None
    senders = set() if deep else {"from_address"}
    covered = (expected.keys() | derived) & given - senders
    return Comparison(["transactions root", "rows equal the transactions", "receipts root from rows"], covered)


def _logs(table: pa.Table, evidence: Evidence, rows: ProvenRows, deep: bool) -> Comparison | None:
    given = set(table.column_names)
    expected = {name: rows.logs[name] for name in rows.logs.column_names} | _of_blocks(evidence, rows.log_ends, given)
    if not given >= _LOG_COLUMNS or not same_values(table, expected):
        return None
    done = Comparison(["logs bloom from rows", "receipts root from rows"], set(_LOG_COLUMNS))
    if "block_hash" in given:
        done.checks.append(BLOCK_HASH)
        done.covered.add("block_hash")
    if "transaction_hash" in given:
        done.checks.append(BELONGS)
        done.covered |= {"transaction_hash"} if evidence.transactions is not None else set()
    return done


def _calls(table: pa.Table, evidence: Evidence, rows: ProvenRows, deep: bool) -> Comparison | None:
    given, proven = set(table.column_names), rows.transactions
    roots = table.filter(pc.equal(plain(table, "trace_address"), ""))
    expected = {
        name: proven[name] for name in ("block_number", "transaction_index", "input", "value_binary", "from_address")
    }
    expected["typ"] = pc.if_else(pc.is_null(proven["to_address"]), "CREATE", "CALL")
    if (
        "transaction_hash" not in given
        or "block_hash" in given
        or _VALUE & given - _derived(given, "value_binary", _VALUE) - {"value_binary"}
        or proven["from_address"].null_count
        or not expected.keys() <= given
        or not same_values(roots, expected)
        or not pc.all(pc.equal(pc.is_null(plain(roots, "error")), proven["success"]), min_count=0).as_py()
        or not _targets(plain(roots, "to_address"), proven)
        or not _hashes_belong(table, evidence.headers, rows)
    ):
        return None
    covered = {"block_number", "transaction_hash", "transaction_index"}
    return Comparison(["root frames equal the transactions", BELONGS], covered, list(UNPROVEN))


def _targets(found: pa.ChunkedArray, proven: pa.Table) -> bool:
    """Return whether each call has its transaction's target, and each successful creation the derived address."""
    targets = proven["to_address"]
    if not pc.all(pc.or_(pc.is_null(targets), pc.fill_null(pc.equal(found, targets), False)), min_count=0).as_py():
        return False
    creations = pc.and_(pc.is_null(targets), proven["success"])
    made = proven.select(["from_address", "nonce"]).filter(creations)
    addresses = [
        created_address(sender, nonce)
        for sender, nonce in zip(made["from_address"].to_pylist(), made["nonce"].to_pylist(), strict=True)
    ]
    return addresses == list(found.filter(creations).to_pylist())


def _hashes_belong(table: pa.Table, headers: Sequence[Header], rows: ProvenRows) -> bool:
    """Return whether each row's transaction_hash is the hash of the transaction at its transaction_index."""
    positions = plain(table, "transaction_index").cast(pa.int64())
    blocks = pc.subtract(plain(table, "block_number").cast(pa.int64()), headers[0].number)
    ends = pa.array(rows.transaction_ends, pa.int64())
    firsts = pa.array([0, *rows.transaction_ends[:-1]], pa.int64())
    places = pc.add(pc.take(firsts, blocks), positions)
    inside = pc.and_(pc.greater_equal(positions, 0), pc.less(places, pc.take(ends, blocks)))
    if places.null_count or not pc.all(inside, min_count=0).as_py():
        return False
    return same_values(table, {"transaction_hash": pc.take(rows.transactions["transaction_hash"], places)})


def _of_blocks(evidence: Evidence, ends: Sequence[int], given: set[str]) -> _Columns:
    """Return the columns block_hash and timestamp, if given: for each row the value of its block."""
    values: dict[str, Callable[[Header], object]] = {
        "block_hash": lambda header: header.hash,
        "timestamp": lambda header: header.timestamp,
    }
    counts = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    blocks = pa.array([block for block, count in enumerate(counts) for _ in range(count)], pa.int64())
    return {
        name: pa.chunked_array([pa.array([value(header) for header in evidence.headers]).take(blocks)])
        for name, value in values.items()
        if name in given
    }


def _derived(given: set[str], base: str, names: set[str]) -> set[str]:
    """Return the given columns that the structural checks compared with ``base``, if ``base`` is given."""
    return names & given if base in given else set()


def same_values(table: pa.Table, expected: Mapping[str, pa.ChunkedArray]) -> bool:
    """Return whether the columns of ``expected`` that the table has are equal to the expected values."""
    for name in expected.keys() & set(table.column_names):
        values = plain(table, name)
        if not _alike(values.type, expected[name].type) or not values.equals(expected[name].cast(values.type)):
            return False
    return True


def _alike(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether two types are of one kind. Without this, Arrow would cast a number to text and compare that."""
    return any(is_kind(one) and is_kind(other) for is_kind in _KINDS)


_KINDS = (
    lambda kind: pa.types.is_integer(kind) or pa.types.is_decimal(kind),
    pa.types.is_boolean,
    lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
)
_DATASETS: dict[str, Callable[[pa.Table, Evidence, ProvenRows, bool], Comparison | None]] = {
    "transactions": _transactions,
    "logs": _logs,
    "geth_calls": _calls,
}
