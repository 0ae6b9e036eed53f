"""The key ``compact``: what it means where it is written, and one clear error for each mistake in it."""

import random

import pytest
from dagster._utils.schedules import is_valid_cron_schedule

from tests.unit.test_chain_sync import GOOD
from trace_dagster.config.chain_sync import ChainSync, parse
from trace_dagster.config.compact import Compact
from trace_dagster.config.cron import cron
from trace_dagster.errors import InvalidInput


def with_stream(compact: str) -> str:
    return GOOD.replace("name: logs}", f"name: logs, compact: {compact}}}")


def with_defaults(compact: str, text: str = GOOD) -> str:
    return text.replace("rpc_pool: standard", f"rpc_pool: standard\n  compact: {compact}")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (GOOD, Compact()),
        (with_stream("{}"), Compact()),
        (with_stream("off"), "off"),
        (with_stream("false"), "off"),
        (with_stream("'off'"), "off"),
        (with_stream("{after_files: 7}"), Compact(after_files=7)),
        (with_defaults("{after_files: 7}"), Compact(after_files=7)),
        (with_defaults("off"), "off"),
        (with_defaults("{after_files: 7}", with_stream("off")), "off"),
        (with_defaults("off", with_stream("{after_files: 7}")), Compact(after_files=7)),
        (
            with_defaults("{after_files: 7, cron: '0 3 * * *'}", with_stream("{after_files: 9}")),
            Compact(after_files=9, cron="0 3 * * *"),
        ),
    ],
)
def test_settings_of_a_stream_win_over_defaults_key_by_key(text, settings):
    job = parse(text)
    assert job.streams["logs"].compact == settings
    assert ChainSync.model_validate(job.model_dump(mode="json")) == job, "the registry stores the job as JSON"


def test_a_window_holds_the_files_of_the_threshold():
    assert Compact(after_files=100).window_blocks(5000) == 500_000


ONE_OF = "must be off, or a mapping of after_files, cron and target_bytes"


@pytest.mark.parametrize(
    ("compact", "key", "reason"),
    [
        ("on", "", ONE_OF),
        ("", "", ONE_OF),
        ("[1]", "", ONE_OF),
        ("100", "", ONE_OF),
        ("{after_flies: 5}", ".after_flies", "unknown key; did you mean 'after_files'?"),
        ("{chunk_size: 5}", ".chunk_size", "unknown key; known: after_files, cron, target_bytes"),
        ("{sk-live: 5}", ".(key not shown)", "unknown key; known: after_files, cron, target_bytes"),
        ("{after_files: 1}", ".after_files", "input should be greater than or equal to 2"),
        ("{after_files: '9'}", ".after_files", "input should be a valid integer"),
        ("{target_bytes: 1000}", ".target_bytes", "input should be greater than or equal to 1048576"),
        ("{target_bytes: 1000000000000}", ".target_bytes", "input should be less than or equal to 4294967296"),
        ("{cron: 5}", ".cron", "input should be a valid string"),
        ("{cron: daily}", ".cron", "must have five fields"),
        ("{cron: '61 * * * *'}", ".cron", "the minute must lie between 0 and 59"),
    ],
)
def test_each_mistake_is_one_line_at_its_key(compact, key, reason):
    for text, line, parent in ((with_stream(compact), 12, "streams.logs"), (with_defaults(compact), 10, "defaults")):
        with pytest.raises(InvalidInput) as refused:
            parse(text, "job.yaml")
        (shown,) = {*str(refused.value).splitlines()}
        assert shown.startswith(f"job.yaml:{line}: {parent}.compact{key}: {reason}"), shown


def test_an_unknown_key_of_a_stream_called_compact_is_named_among_the_streams_keys():
    text = GOOD + "  compact: {cryo_dataset_name: logs, chunk_sise: 5}\n"
    with pytest.raises(InvalidInput, match="did you mean 'chunk_size'"):
        parse(text)


@pytest.mark.parametrize("text", ["* * * * *", "0 3 * * *", "*/15 0-6/2 1,15 * 1-5", "5/10 4 29 2 *", "0 0 31 1 1"])
def test_cron_expressions(text):
    assert cron(f"  {text}  ") == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "* * * * * *", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7"),
        *("5-1 * * * *", "5-5 * * * *", "*/0 * * * *", "a * * * *", "1, * * * *", "0 0 31 2,4 *", "0 0 30-31 2 1"),
    ],
)
def test_expressions_that_are_never_due_are_refused(text):
    with pytest.raises(ValueError, match=r"must|such a day"):
        cron(text)


def test_dagster_accepts_every_expression_that_a_file_may_hold():
    drawn = random.Random(1)

    def field(least: int, most: int) -> str:
        first = drawn.randint(least, most)
        last = drawn.randint(first, most)
        step = f"/{drawn.randint(1, 12)}" if drawn.random() < 0.4 else ""
        return drawn.choice([f"*{step}", f"{first}{step}", f"{first}-{last}{step}", f"{first},{last}"])

    accepted = 0
    for _ in range(2000):
        text = " ".join(field(*span) for span in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6)))
        try:
            cron(text)
        except ValueError:
            continue
        accepted += 1
        assert is_valid_cron_schedule(text), text
    assert accepted > 1000
