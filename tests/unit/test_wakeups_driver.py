"""Decoding of wake-ups: the queue's content is not trusted."""

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.wakeups.driver import MAX_BODY_BYTES, WakeUp, decode

TASK = UUID("0d9f0cf7-64ec-5863-990f-ec95ac577490")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def body(**changed):
    return json.dumps({"task_id": str(TASK), "wake_seq": 1, **changed})


@given(st.uuids(), st.integers(min_value=0, max_value=2**63 - 1))
def test_decoding_reverses_encoding(task_id, wake_seq):
    wake_up = WakeUp(task_id, wake_seq)
    assert decode(wake_up.encode()) == wake_up


def test_encoding_is_canonical():
    assert WakeUp(TASK, 7).encode() == f'{{"task_id":"{TASK}","wake_seq":7}}'


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")) | JSON.map(json.dumps))
def test_decoding_never_raises(text):
    assert decode(text) is None


@given(JSON, JSON)
def test_decoding_never_raises_on_the_right_keys(task_id, wake_seq):
    found = decode(json.dumps({"task_id": task_id, "wake_seq": wake_seq}))
    assert found is None or (str(found.task_id), found.wake_seq) == (str(UUID(task_id)), wake_seq)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"task_id"',
        "[" * MAX_BODY_BYTES,
        "9" * MAX_BODY_BYTES,
        body(extra=None),
        json.dumps({"task_id": str(TASK)}),
        json.dumps({"wake_seq": 1}),
        body(task_id=None),
        body(task_id=1),
        body(task_id="not a uuid"),
        body(task_id=[str(TASK)]),
        body(wake_seq=-1),
        body(wake_seq=True),
        body(wake_seq=False),
        body(wake_seq=1.0),
        body(wake_seq="1"),
        body(wake_seq=None),
        body(wake_seq=float("nan")),
        body() + "x",
        body() + " " * MAX_BODY_BYTES,
    ],
)
def test_any_other_text_is_not_a_wake_up(text):
    assert decode(text) is None


def test_the_longest_body_is_read():
    padded = body() + " " * (MAX_BODY_BYTES - len(body()))
    assert decode(padded) == WakeUp(TASK, 1)
    assert decode(padded + " ") is None


@given(st.text(min_size=1), JSON)
def test_another_key_is_refused(key, value):
    if key not in {"task_id", "wake_seq"}:
        assert decode(body(**{key: value})) is None
