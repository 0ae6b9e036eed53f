"""Summaries of the values in layout files: Bloom filters that Postgres tests, so that a query opens few files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping

from trace_dagster.registry.connection import Session
from trace_dagster.registry.layouts import FileSummary

SUMMARIZED_COLUMNS = ("address", "topic0")
MAX_BYTES = 64 * 1024
MAX_VALUES = 300_000
"""With more values, a summary of 64 KiB could not tell every second absent value from a present one."""

_BITS_PER_VALUE = 12
_MIN_BYTES = 8
_MOST_HASHES = 16


def summary_of(column: str, values: Collection[bytes]) -> FileSummary | None:
    """Return a summary of a file's distinct values; None if there are more than MAX_VALUES.

    Up to 43,000 values it has 12 bits per value, and one of 300 absent values seems present. Beyond that it stays at
    64 KiB: one of 12 with 100,000 values.
    """
    if len(values) > MAX_VALUES:
        return None
    count = max(1, len(values))
    size = max(_MIN_BYTES, min(MAX_BYTES, -(-count * _BITS_PER_VALUE // 8)))
    hashes = max(1, min(_MOST_HASHES, round(8 * size / count * math.log(2))))
    return FileSummary(column, hashes, _filled(bytearray(size), hashes, values))


def may_contain(found: FileSummary, value: bytes) -> bool:
    """Return what ``trace.may_contain`` returns in Postgres."""
    places = _places(value, found.hashes, 8 * len(found.summary))
    return all(found.summary[place >> 3] >> (place & 7) & 1 for place in places)


def files_that_may_contain(session: Session, keys: Iterable[str], wanted: Mapping[str, Collection[bytes]]) -> list[str]:
    """Return those of the files that may have one of the wanted values in each of the columns, in the given order.

    Files without a summary of a column are returned, and no other columns than ``SUMMARIZED_COLUMNS`` are tested.
    """
    left = list(keys)
    for column, values in wanted.items():
        if not left or column not in SUMMARIZED_COLUMNS:
            continue
        hashes = [value_hashes(value) for value in values]
        rows = session.all(
            "files_without_values",
            file_keys=left,
            column_name=column,
            first_hashes=[first for first, _ in hashes],
            second_hashes=[second for _, second in hashes],
        )
        absent = {row["file_key"] for row in rows}
        left = [key for key in left if key not in absent]
    return left


def value_hashes(value: bytes) -> tuple[int, int]:
    """Return two independent hashes of a value, each 0 to 2^32 - 1, the second one odd."""
    digest = hashlib.blake2b(value, digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little") | 1


def _filled(summary: bytearray, hashes: int, values: Iterable[bytes]) -> bytes:
    """Set the bits of all values. This is the inner loop of a compaction, so it does not use :func:`_places`."""
    bits = 8 * len(summary)
    for value in values:
        place, second = value_hashes(value)
        for _ in range(hashes):
            bit = place % bits
            summary[bit >> 3] |= 1 << (bit & 7)
            place += second
    return bytes(summary)


def _places(value: bytes, hashes: int, bits: int) -> Iterator[int]:
    first, second = value_hashes(value)
    return ((first + number * second) % bits for number in range(hashes))
