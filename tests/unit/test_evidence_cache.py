"""How long the cache keeps evidence that several datasets need."""

from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.blocks import BlockRange
from trace_dagster.evidence.cache import EvidenceCache, batches_of
from trace_dagster.evidence.parts import EvidenceParts

CHAIN = 143
WHOLE = BlockRange(30, 270)
DATASETS = ("blocks", "transactions", "logs")


class Asking:
    """Datasets that use the evidence of one range, with the list of batches that they fetched."""

    def __init__(self, room=10**6):
        self.cache, self.fetched = EvidenceCache(room, least_batches=1), []
        for dataset in DATASETS:
            self.cache.expect(CHAIN, dataset)

    @property
    def kept(self):
        return sorted(batch.start for batch in self.cache.batches())

    def batches(self, piece):
        return batches_of(piece, WHOLE, "node", CHAIN, self.cache.shared_needs(CHAIN))

    def fetch(self, batches):
        for batch in batches:
            self.fetched.append(batch.start)
            yield EvidenceParts(), 1

    def go(self, piece, lacks=True):
        batches = self.batches(piece)
        if lacks:
            self.cache.get(batches, self.fetch)
        self.cache.mark_used(batches, piece)


@st.composite
def passages(draw):
    """Draw the pieces of each dataset, cut anywhere, in any order, and whether the dataset lacks some evidence."""
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
    order.sort(
        key=lambda each: not each[1]
    )  # another dataset already proved the rows because of which this dataset needs no evidence
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
    asking.cache.mark_used(asking.batches(BlockRange(50, 100)), BlockRange(50, 100))
    assert asking.kept == [100, 150]
