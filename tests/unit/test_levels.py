"""What a stream's ``verify`` asks for."""

from typing import get_args

import pytest

from trace_dagster.config.chain_sync import Stream
from trace_dagster.datasets.levels import Verify, check_level
from trace_dagster.verify.check import LEVELS


@pytest.mark.parametrize(
    ("verify", "level", "is_proven", "requires_full"),
    [
        ("full", "full", True, False),
        ("require_full", "full", True, True),
        ("structural", "structural", False, False),
        ("off", "off", False, False),
    ],
)
def test_a_stream_asks_for_a_level_and_whether_it_may_be_lowered(verify, level, is_proven, requires_full):
    stream = Stream(cryo_dataset_name="logs", rpc_pool="one", verify=verify)
    assert (stream.check_level, stream.is_proven, stream.requires_full) == (level, is_proven, requires_full)


def test_every_level_asked_for_is_one_of_the_checks():
    assert {check_level(each) for each in get_args(Verify)} <= set(LEVELS)
