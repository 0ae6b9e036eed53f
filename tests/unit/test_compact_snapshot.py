"""The header of an answer as one line of HTTP: short, in ASCII, and open about what it leaves out."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange
from trace_dagster.registry.snapshot_header import (
    COMPACT_BYTES,
    MOST_GAPS,
    Cut,
    LabelledHead,
    RelationInSnapshot,
    SnapshotHeader,
)

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
FAR = 2**62


def relation(number, gaps):
    found = tuple(BlockRange(FAR + 10 * at, FAR + 10 * at + 5) for at in range(gaps))
    return RelationInSnapshot(UUID(int=1), 1, f"logs_{number}", 0, 0, FAR, FAR, None, found, 5 * gaps, None)


def header(chains=1, relations=1, gaps=0):
    heads = {
        chain: tuple(LabelledHead(chain, tag, FAR, b"\x01" * 32, NOON, 0.31) for tag in ("latest", "safe", "finalized"))
        for chain in range(1, chains + 1)
    }
    cuts = {chain: Cut(FAR, NOON) for chain in heads}
    return SnapshotHeader(heads, cuts, tuple(relation(number, gaps) for number in range(relations)), "7-1-c0ffee")


def test_a_small_header_is_whole():
    found = header(gaps=4)
    assert json.loads(found.compact()) == found.to_json()


def test_the_newest_gaps_stay():
    found = json.loads(header(gaps=MOST_GAPS).compact())
    assert found["shortened"]
    (shown,) = found["relations"]
    assert shown["gaps"] == header(gaps=MOST_GAPS).to_json()["relations"][0]["gaps"][-10:]
    assert shown["missing_blocks"] == 5 * MOST_GAPS
    shown = json.loads(header(relations=12, gaps=MOST_GAPS).compact())["relations"]
    assert [len(each["gaps"]) for each in shown] == [3] * 12


@pytest.mark.parametrize(
    ("chains", "relations", "left"),
    [
        (1, 17, {"cursor", "heads", "cuts", "relations"}),
        (1, 100, {"cursor", "heads", "cuts"}),
        (100, 1, {"cursor"}),
    ],
)
def test_what_does_not_fit_is_dropped_by_kind(chains, relations, left):
    found = json.loads(header(chains, relations, MOST_GAPS).compact())
    assert set(found) == left | {"shortened"}
    assert all(not each["gaps"] for each in found.get("relations", ()))


@given(st.integers(0, 30), st.integers(0, 60), st.integers(0, MOST_GAPS))
def test_it_is_always_short_enough_for_a_line_of_http(chains, relations, gaps):
    text = header(chains, relations, gaps).compact()
    assert len(text.encode("ascii")) <= COMPACT_BYTES
    assert text.isprintable()
    assert json.loads(text)["cursor"] == "7-1-c0ffee"
