"""How long evidence that several datasets need is kept."""

from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange
from trace_dagster.evidence.cache import Parts, Shared, batches_of

CHAIN = 143
WHOLE = BlockRange(30, 270)
DATASETS = ("blocks", "transactions", "logs")


class Asking:
    """Datasets that go through one range, and what they fetched."""

    def __init__(self, room=10**6):
        self.shared, self.fetched = Shared(room, batches=1), []
        for dataset in DATASETS:
            self.shared.expect(CHAIN, dataset)

    @property
    def kept(self):
        return sorted(batch.start for batch in self.shared._kept._futures)

    def batches(self, piece):
        return batches_of(piece, WHOLE, "node", CHAIN, self.shared.wanted(CHAIN))

    def fetch(self, batches):
        for batch in batches:
            self.fetched.append(batch.start)
            yield Parts(), 1

    def go(self, piece, lacks=True):
        batches = self.batches(piece)
        if lacks:
            self.shared.get(batches, self.fetch)
        self.shared.passed(batches, piece)


@st.composite
def passages(draw):
    """The pieces of each dataset, cut anywhere, in any order; whether it lacks something that rows do not tell."""
    pieces = []
    for place in range(len(DATASETS)):
        inner = draw(st.sets(st.integers(WHOLE.start + 1, WHOLE.end - 1), max_size=5))
        cuts = [WHOLE.start, *sorted(inner), WHOLE.end]
        lacks = place == 0 or draw(st.booleans())
        pieces += [(BlockRange(*ends), lacks) for ends in zip(cuts, cuts[1:], strict=False)]
    return draw(st.permutations(pieces))


@given(passages())
def test_each_batch_is_fetched_once_and_kept_no_longer_than_until_all_are_through(order):
    asking = Asking()
    for piece, _ in order:
        asking.go(piece)
    assert sorted(asking.fetched) == [30, 50, 100, 150, 200, 250]
    assert asking.kept == []


@given(passages())
def test_whoever_lacks_nothing_passes_too_and_nobody_is_without(order):
    asking = Asking()
    order.sort(key=lambda each: not each[1])  # rows that spare a dataset its evidence were proven by another before
    for piece, lacks in order:
        asking.go(piece, lacks)
    assert sorted(asking.fetched) == [30, 50, 100, 150, 200, 250]
    assert asking.kept == []


def test_evidence_waits_for_the_last_dataset():
    asking, piece = Asking(), BlockRange(50, 100)
    asking.go(piece)
    asking.go(piece)
    asking.go(BlockRange(50, 90))
    assert asking.kept == [50]
    asking.go(BlockRange(90, 100))
    assert asking.kept == []
    assert asking.fetched == [50]


def test_what_nobody_comes_for_any_more_goes_when_the_room_is_needed():
    asking = Asking(room=2)
    for start in (50, 100, 150):
        asking.go(BlockRange(start, start + 50))
    assert asking.kept == [100, 150]
    asking.shared.passed(asking.batches(BlockRange(50, 100)), BlockRange(50, 100))
    assert asking.kept == [100, 150]
