"""The cache of hot rows: what it finds is what was added, and it stays within its size."""

import random
from uuid import UUID

import pyarrow as pa

from trace_dagster.registry.hot_rows import BlockCache, _joined

KEY = (UUID(int=1), "config", ("block_number", "data"))
OTHER = (UUID(int=1), "config", ("block_number",))


def hash_of(number, fork=0):
    return bytes([fork]) * 16 + number.to_bytes(16)


def rows_of(numbers, fork=0):
    """Return as many rows of each block as its number has odd digits, so that some blocks have none."""
    rows = [(number, f"{fork}") for number in numbers for digit in str(number) if int(digit) % 2]
    return pa.table(
        {"block_number": [row[0] for row in rows], "data": [row[1] for row in rows]},
        schema=pa.schema({"block_number": pa.int64(), "data": pa.string()}),
    )


def test_rows_are_found_by_the_hash_of_their_block():
    cache = BlockCache(1 << 20)
    cache.add(KEY, {number: hash_of(number) for number in range(10, 20)}, rows_of(range(10, 20)))
    cache.add(KEY, {number: hash_of(number, 1) for number in range(15, 25)}, rows_of(range(15, 25), 1))
    wanted = {**{number: hash_of(number) for number in range(9, 17)}, **{n: hash_of(n, 1) for n in range(17, 26)}}
    found = dict(cache.find(KEY, wanted))
    assert [number for number, place in found.items() if place is None] == [9, 25]
    parts = list(_joined(place for place in found.values() if place is not None))
    assert len(parts) == 2  # neighbours within a page are one slice
    assert pa.concat_tables(parts).equals(pa.concat_tables([rows_of(range(10, 17)), rows_of(range(17, 25), 1)]))
    assert all(place is None for _, place in cache.find(OTHER, wanted))


def test_pages_that_were_not_used_for_longest_leave():
    cache = BlockCache(20_000)
    source = random.Random(2)
    last = {}
    for turn in range(400):
        first = source.randrange(50)
        numbers = range(first, first + source.randrange(1, 6))
        key = source.choice([KEY, OTHER])
        hashes = {number: hash_of(number, turn % 3) for number in numbers}
        cache.add(key, hashes, rows_of(numbers, turn % 3))
        last[key] = hashes
        assert cache._bytes <= 20_000
        assert cache._bytes == sum(page.bytes for page in cache._pages)
        for number, place in cache.find(key, hashes):
            assert place is not None
            found = place.page.rows.slice(place.start, place.end - place.start)
            assert found.equals(rows_of([number], turn % 3))
    assert {place.page for places in cache._places.values() for place in places.values()} <= set(cache._pages)
    cache.add(KEY, {1: b"x" * 32}, rows_of([1] * 5000))
    assert dict(cache.find(KEY, {1: b"x" * 32})) == {1: None}  # larger than the whole cache
