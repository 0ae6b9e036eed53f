"""Which report on a shared stderr belongs to which call, and what Cryo's texts say."""

from __future__ import annotations

import random

import pytest

from trace_dagster.engine.call_output import CallOutput
from trace_dagster.engine.cryo_text import reason_in
from trace_dagster.engine.worker import MARK

HEADLINE = b"thread 'tokio-runtime-worker' panicked at crates/python/rust/collect_adapter.rs:213:19:"
NOTE = b"note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"


def begun(call):
    return MARK + b"begun %d" % call


def done(call):
    return MARK + b"done %d" % call


def failed(call):
    return MARK + b"failed %d" % call


def report(text):
    return [b"", HEADLINE, text]


def told(lines, *calls):
    """Return the reports of failed calls, asked in this order after all lines were read."""
    output = CallOutput()
    for line in lines:
        output.feed(line + b"\n")
    return [output.report_of(call, 0) for call in calls]


def test_a_call_that_runs_alone_gets_its_report():
    assert told([begun(0), *report(b"why"), NOTE, failed(0)], 0) == ["why"]


def test_an_earlier_and_a_later_call_do_not_share_a_report():
    lines = [begun(0), *report(b"one"), failed(0), begun(1), *report(b"two"), failed(1)]
    assert told(lines, 0, 1) == ["one", "two"]
    assert told([begun(0), done(0), begun(1), *report(b"two"), failed(1)], 1) == ["two"]


def test_the_order_of_ends_tells_overlapping_calls_apart():
    """The first report must be that of the call that ended before the second was printed."""
    lines = [begun(0), begun(1), *report(b"one"), failed(0), *report(b"two"), failed(1)]
    assert told(lines, 0, 1) == ["one", "two"]


def test_a_report_that_may_be_another_calls_is_not_used():
    lines = [begun(0), begun(1), *report(b"one"), *report(b"two"), failed(0), failed(1)]
    assert told(lines, 0, 1) == ["", ""]
    assert told(lines, 1, 0) == ["", ""]


def test_reports_with_one_text_are_the_same_for_both():
    lines = [begun(0), begun(1), *report(b"one"), *report(b"one"), failed(0), failed(1)]
    assert told(lines, 0, 1) == ["one", "one"]


def test_a_call_that_never_failed_takes_no_report_from_others():
    lines = [begun(0), begun(1), *report(b"one"), done(0), failed(1)]
    assert told(lines, 1) == ["one"]


def test_what_is_printed_after_a_call_is_not_its_own():
    assert told([begun(0), failed(0), *report(b"late")], 0) == [""]
    assert told([begun(0), HEADLINE, failed(0), b"late"], 0) == [""]


def test_a_mark_inside_of_a_report_does_not_break_it():
    line = b"error collecting one"
    lines = [begun(0), begun(1), HEADLINE, line[:9] + done(1), line[9:], failed(0)]
    assert told(lines, 0) == [line.decode()]
    lines = [begun(0), HEADLINE[:20] + begun(1), HEADLINE[20:], done(1), line, failed(0)]
    assert told(lines, 0) == [line.decode()]


def test_other_output_is_no_report():
    assert told([begun(0), b"warning: something", b"", b"else", failed(0)], 0) == [""]


def test_an_unknown_or_unfinished_call_has_none():
    assert told([begun(0), *report(b"one")], 0, 7) == ["", ""]


def test_nothing_is_kept_of_calls_that_ended():
    output = CallOutput()
    for call in range(50):
        for line in [begun(call), *report(b"x"), failed(call) if call % 2 else done(call)]:
            output.feed(line + b"\n")
        if call % 2:
            output.report_of(call, 0)
    assert output._calls == {}


@pytest.mark.parametrize("seed", range(200))
def test_no_order_of_calls_gives_one_the_report_of_another(seed):
    """Run calls at random, each of which prints its report before it ends; ask for them in another order."""
    chance = random.Random(seed)
    waiting = [
        [begun(call), *([done(call)] if chance.random() < 0.3 else [HEADLINE, b"of %d" % call, failed(call)])]
        for call in range(chance.randint(1, 8))
    ]
    failing = [call for call, lines in enumerate(waiting) if len(lines) > 2]
    lines = []
    while any(waiting):
        each = chance.choice([lines for lines in waiting if lines])
        lines.append(each.pop(0))
        if lines[-1] == HEADLINE:  # one panic prints its report as a whole, but for marks
            lines.append(each.pop(0))
    chance.shuffle(failing)
    assert all(text in {"", f"of {call}"} for call, text in zip(failing, told(lines, *failing), strict=True))


OPAQUE = "RustPanic: rust future panicked: unknown error"
JSON_RPC = (
    "RustPanic: rust future panicked: unknown error error collecting ProviderError(JsonRpcClientError(JsonRpcError("
    'JsonRpcError { code: -32001, message: "rpc \\"method\\" is not whitelisted", data: None })))'
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (JSON_RPC, 'code -32001: rpc "method" is not whitelisted'),
        (
            'SerdeJson { err: Error("missing field `v`", line: 1), text: "{}" }',
            "the answer cannot be read: missing field `v`",
        ),
        ('SerdeJson { err: Error("expected value", line: 1), text: "<html>no" }', "the answer is not JSON: no"),
        (f"{OPAQUE} Integer overflow when casting to u32", "Integer overflow when casting to u32"),
        (OPAQUE, ""),
        ("", ""),
    ],
)
def test_reasons_are_words(text, reason):
    assert reason_in(text) == reason


def test_a_long_reason_is_cut_at_a_word():
    found = reason_in('JsonRpcError { code: -32000, message: "' + "many words " * 60 + '", data: None }')
    assert len(found) <= 200
    assert found.endswith((" many...", " words..."))
