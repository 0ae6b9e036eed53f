"""What one endpoint's blocks cannot give is asked of the others, once each, before a range ends with that error."""

import pytest

from trace_dagster.blocks import BlockRange
from trace_dagster.datasets.catalogue import dataset
from trace_dagster.engine.fake import FakeCryo
from trace_dagster.errors import ExtractionFailed
from trace_dagster.extraction.extractor import Extractor
from trace_dagster.extraction.request import RangeRequest
from trace_dagster.rpc.pools import RpcPool

POOL = RpcPool("dev", ("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"))
RANGE = BlockRange(0, 10)


class Unable(FakeCryo):
    """The fake engine, which cannot read the blocks of some endpoints."""

    def __init__(self, *names):
        self.asked = []
        self._names = names

    def extract(self, request):
        self.asked.append(request.endpoint.name)
        if request.endpoint.name in self._names:
            raise ExtractionFailed("a value does not fit into column gas_price")
        return super().extract(request)


def rows(engine):
    known = dataset("transactions")
    request = RangeRequest(known, RANGE, 1, known.stored_columns(), "off", POOL, None, {"timeout_seconds": 60})
    extractor = Extractor(engine, lambda pool, load: list(pool.endpoints))
    try:
        return sum(piece.table.num_rows for piece in extractor.start(request))
    finally:
        extractor.close()


def test_a_value_that_one_endpoint_shows_does_not_end_the_range():
    engine = Unable("dev#1", "dev#2")
    assert rows(engine) == rows(FakeCryo())
    assert engine.asked == ["dev#1", "dev#2", "dev#3"]


def test_a_value_that_all_endpoints_show_ends_it_without_a_second_try():
    engine = Unable("dev#1", "dev#2", "dev#3")
    with pytest.raises(ExtractionFailed, match="does not fit"):
        rows(engine)
    assert engine.asked == ["dev#1", "dev#2", "dev#3"]
