"""Keys of maps follow the rules of values."""

import pytest

from trace_dagster.query.render import value


@pytest.mark.parametrize(("key", "shown"), [(b"\xab", "0xab"), (5, "5"), ("k", "k"), (2**60, str(2**60))])
def test_a_key_is_the_text_of_its_value(key, shown):
    assert value({key: 1}) == {shown: 1}
