"""The follower over nodes that lie, lag or are slow: it goes on, and it says why if it cannot."""

from __future__ import annotations

import pytest

from tests.support.following import (
    follow_job,
    follower_process,
    stored_chain,
)
from tests.support.nodes import serving
from trace_dagster.devchain.chain import DevChain

pytestmark = pytest.mark.integration


def chain_in(year, blocks):
    chain = DevChain(7)
    chain.clock = lambda: (year - 1970) * 31_556_952
    chain.grow(blocks)
    return chain


def test_another_endpoint_is_asked_if_a_block_lies_after_year_9999(postgres_url, database):
    chain = chain_in(2020, 60)
    with (
        serving(chain_in(10_500, 60)) as lying,
        serving(chain) as honest,
        follower_process(postgres_url, node=f"{lying},{honest}") as runtime,
    ):
        follow_job(database)
        said = runtime.followers.tick(10)
        assert stored_chain(database).get(59) == chain.blocks[-1].hash, said
