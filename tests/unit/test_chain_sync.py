"""Mistakes in a chain_sync file: each is one line with file, line and key, and repeats no value that may be secret."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dagster.config.chain_sync import ChainSync, FollowHead, parse, read
from trace_dagster.errors import InvalidInput
from trace_dagster.planning.bounds import resolve
from trace_dagster.registry.jobs import Bounds

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

GOOD = """\
kind: chain_sync
name: job
chain_id: 143
mode:
  kind: fixed_target
  from_block: 0
  to_block: 4000
defaults:
  rpc_pool: standard
streams:
  blocks: {cryo_dataset_name: blocks, chunk_size: 250}
  logs: {cryo_dataset_name: logs}
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path):
    assert read(path).streams


def test_defaults_reach_every_stream_and_streams_win():
    job = parse(GOOD)
    assert {s.rpc_pool for s in job.streams.values()} == {"standard"}
    assert (job.streams["blocks"].chunk_size, job.streams["logs"].chunk_size) == (250, 1000)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("name: job", "nmae: job", 1, "name: this key is required"),
        ("name: job", "name: ''", 2, "name: must match"),
        ("chain_id: 143", "chain_id: '143'", 3, "chain_id: input should be a valid integer"),
        ("chain_id: 143", "chain_id: 0", 3, "chain_id: input should be greater than or equal to 1"),
        ("chain_id: 143", "chain_id: 143\nchain_id: 1", 4, "chain_id: this key is written twice"),
        ("  kind: fixed_target", "  kind: fixed", 4, "mode: kind must be fixed_target or follow_head"),
        ("to_block: 4000", "to_block: 0", 7, "mode.to_block: must be greater than from_block"),
        (
            "to_block: 4000",
            "to_block: 9223372036854775808",
            7,
            "mode.to_block: must be a block number or finalized",
        ),
        ("to_block: 4000", "to_block: 4000\n  tail_lag: 3", 8, "mode.tail_lag: belongs to mode follow_head"),
        ("from_block: 0", "from_block: latest", 6, "mode.from_block: must be a block number or latest-N"),
        ("from_block: 0", "from_block: -1", 6, "mode.from_block: must be a block number or latest-N"),
        (
            "rpc_pool: standard",
            "rpc_pool: https://k:hunter2@node/x",
            9,
            "defaults.rpc_pool: must be the NAME",
        ),
        ("chunk_size: 250", "chunk_sise: 250", 11, "unknown key; did you mean 'chunk_size'?"),
        ("chunk_size: 250", "chunk_size: 0", 11, "streams.blocks.chunk_size: input should be greater"),
        (
            "chunk_size: 250",
            "chunk_size: true",
            11,
            "streams.blocks.chunk_size: input should be a valid integer",
        ),
        (
            "name: logs}",
            "name: lgos}",
            12,
            "streams.logs.cryo_dataset_name: the engine knows no dataset 'lgos'",
        ),
        (
            "name: logs}",
            "name: logs, columns: [x]}",
            12,
            "streams.logs.columns: dataset logs has no column of this name (not shown); known: ",
        ),
        ("name: logs}", "name: logs, verify: maybe}", 12, "streams.logs.verify: input should be"),
        ("  logs:", "  Logs:", 12, "streams.Logs: must match"),
        (
            "name: logs}",
            "name: logs, columns: [topic_0]}",
            12,
            "streams.logs.columns: dataset logs has no column 'topic_0'; did you mean 'topic0'?",
        ),
        ("defaults:", "typo: 1\ndefaults:", 8, "(key not shown): unknown key; known: chain_id, "),
        ("chain_id: 143", "chain_id: 0143", 3, "a number that starts with 0 is octal in YAML"),
        ("to_block: 4000", "to_block: 1:40", 7, "a number with colons is of base 60 in YAML"),
        (
            "rpc_pool: standard",
            "rpcpool: standard",
            9,
            "defaults.rpcpool: unknown key; did you mean 'rpc_pool'?",
        ),
        ("streams:", "streams: [", 12, "not valid YAML"),
        ("chain_id: 143", "chain_id: &a 143\nx: *a", 4, "aliases are not used"),
    ],
)
def test_each_mistake_is_reported_at_its_line(old, new, line, reason):
    with pytest.raises(InvalidInput) as caught:
        parse(GOOD.replace(old, new), "job.yaml")
    lines = str(caught.value).splitlines()
    assert any(text.startswith(f"job.yaml:{line}: ") and reason in text for text in lines), lines
    assert "hunter2" not in str(caught.value)


FOLLOWING = GOOD.replace("kind: fixed_target", "kind: follow_head").replace("  to_block: 4000\n", "")


@pytest.mark.parametrize(
    ("keys", "line", "reason"),
    [
        ("cold_cron: '61 * * * *'", 7, "mode.cold_cron: the minute must lie between 0 and 59"),
        ("cold_cron: 0 3 * *", 7, "mode.cold_cron: must have five fields"),
        ("cold_cron: 0 3 * * *\n  cold_after_blocks: 500", 7, "mode.cold_cron: excludes cold_after_blocks"),
        ("backfill: sideways", 7, "mode.backfill: input should be 'newest_first' or 'oldest_first'"),
        ("hot_max_blocks: 999", 12, "streams.logs.chunk_size: 1000 blocks do not fit into hot_max_blocks (999)"),
        ("hot_max_blocks: 1000\n  tail_lag: 1", 13, "streams.logs.chunk_size: 1000 blocks and 1 above them"),
        ("cold_after_blocks: 50001", 7, "mode.cold_after_blocks: 50001 blocks do not fit into hot_max_blocks (50000)"),
        (
            "max_cold_lag: 501",
            7,
            "mode.max_cold_lag: has no effect: it must be at most half of a chunk_size (largest: 1000)",
        ),
    ],
)
def test_settings_of_the_tip_that_cannot_work_name_their_line(keys, line, reason):
    with pytest.raises(InvalidInput) as caught:
        parse(FOLLOWING.replace("from_block: 0\n", f"from_block: 0\n  {keys}\n"), "job.yaml")
    lines = str(caught.value).splitlines()
    assert any(text.startswith(f"job.yaml:{line}: {reason}") for text in lines), lines


@pytest.mark.parametrize(
    "keys",
    [
        "max_cold_lag: 500",
        "max_cold_lag: 501\n  cold_cron: 0  3 * * *",
        "max_cold_lag: 501\n  cold_after_blocks: 900",
        "hot_max_blocks: 1000",
        "hot_max_blocks: 1001\n  tail_lag: 1",
        "backfill: oldest_first\n  cold_after_blocks: 50000",
    ],
)
def test_settings_of_the_tip_that_work(keys):
    assert parse(FOLLOWING.replace("from_block: 0\n", f"from_block: 0\n  {keys}\n")).streams


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        (
            "chunk_size: 250",
            "chunk_size: 9",
            10,
            "streams.blocks.chunk_size: must be at least 10 in a job that follows",
        ),
        ("from_block: 0", "from_block: 999", 6, "mode.from_block: the first range [999, 1000) at chunk_size 250 would"),
        (
            "from_block: 0",
            "from_block: 4241",
            6,
            "mode.from_block: the first range [4241, 4250) at chunk_size 250 would",
        ),
    ],
)
def test_ranges_of_a_job_that_follows_the_head_have_ten_blocks(old, new, line, reason):
    with pytest.raises(InvalidInput) as caught:
        parse(FOLLOWING.replace(old, new), "job.yaml")
    (first, *_) = str(caught.value).splitlines()
    assert first.startswith(f"job.yaml:{line}: {reason}")
    assert parse(GOOD.replace(old, new).replace("to_block: 4000", "to_block: 5000")), "a fixed target may have them"


@pytest.mark.parametrize("block", [0, 990, 1000, 4240, 4250])
def test_a_first_range_of_ten_blocks_is_long_enough(block):
    assert parse(FOLLOWING.replace("from_block: 0", f"from_block: {block}"))


def test_hot_blocks_that_are_not_final_must_fit_too():
    text = FOLLOWING.replace("from_block: 0\n", "from_block: 0\n  hot_max_blocks: 1500\n")
    assert parse(f"finality_blocks: 500\n{text}").streams
    with pytest.raises(InvalidInput, match="and 501 above them that are not final do not fit"):
        parse(f"finality_blocks: 501\n{text}")
    with pytest.raises(InvalidInput, match="and 14400 above them that are not final"):
        parse(text.replace("chain_id: 143", "chain_id: 42161"))


@pytest.mark.parametrize(
    "key", ["backfill: oldest_first", "cold_cron: 0 3 * * *", "max_cold_lag: 100", "hot_max_blocks: 500"]
)
def test_settings_of_the_tip_belong_to_follow_head(key):
    with pytest.raises(InvalidInput, match=f"mode.{key.partition(':')[0]}: belongs to mode follow_head"):
        parse(GOOD.replace("from_block: 0\n", f"from_block: 0\n  {key}\n"))


def test_keys_of_the_other_mode_are_reported():
    text = GOOD.replace("kind: fixed_target", "kind: follow_head")
    with pytest.raises(InvalidInput, match="to_block: belongs to mode fixed_target"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["", "[]", "- a", "\x00", "{" * 3000, "? [a]\n: b", "a: !!python/name:os.system", "\ufeff"]
)
def test_hostile_text_is_one_error(text):
    with pytest.raises(InvalidInput):
        parse(text)


def test_an_unreadable_file_is_one_error(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        read(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read(tmp_path / "binary.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(InvalidInput, match="at most"):
        read(tmp_path / "large.yaml")


@given(st.text(max_size=200))
def test_any_text_is_read_or_raises_invalid_input(text):
    try:
        parse(text)
    except InvalidInput:
        pass


def test_symbolic_bounds_are_resolved_with_the_final_head():
    job = parse(
        GOOD.replace("from_block: 0", "from_block: latest-500").replace("to_block: 4000", "to_block: finalized")
    )
    assert resolve(job, lambda: 9_999) == Bounds(9_500, 10_000)
    assert resolve(job, lambda: 99) == Bounds(0, 100)


def test_numeric_bounds_need_no_node():
    def never() -> int:
        raise AssertionError("the node was called")

    assert resolve(parse(GOOD), never) == Bounds(0, 4000)


def test_bounds_without_a_block_between_them_are_an_error():
    job = parse(GOOD.replace("from_block: 0", "from_block: 50").replace("to_block: 4000", "to_block: finalized"))
    with pytest.raises(InvalidInput, match="no blocks lie between"):
        resolve(job, lambda: 40)


def test_the_model_is_frozen_and_follow_head_has_its_defaults():
    job = parse(GOOD.replace("kind: fixed_target", "kind: follow_head").replace("  to_block: 4000\n", ""))
    assert isinstance(job, ChainSync)
    assert isinstance(job.mode, FollowHead)
    with pytest.raises(ValueError, match="frozen"):
        job.name = "other"


SECRET = "sk-live-4f3a2b1c"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: job", f"name: {SECRET}"),
        ("name: job", f"name: job\n{SECRET}: 1"),
        ("name: job", f"name: job\n{SECRET}: 1\n{SECRET}: 2"),
        ("name: job", f"name: job\nhttps://node.example/{SECRET}: 1"),
        ("chain_id: 143", f"chain_id: {SECRET}"),
        ("  kind: fixed_target", f"  kind: {SECRET}"),
        ("kind: chain_sync", f"kind: {SECRET}"),
        ("from_block: 0", f"from_block: {SECRET}"),
        ("from_block: 0", f"{SECRET}: 0"),
        ("to_block: 4000", f"to_block: {SECRET}"),
        ("to_block: 4000", f"to_block: {{{SECRET}: {SECRET}}}"),
        ("rpc_pool: standard", f"rpc_pool: {SECRET}"),
        ("rpc_pool: standard", f"{SECRET}: standard"),
        ("chunk_size: 250", f"chunk_size: {SECRET}"),
        ("chunk_size: 250", f"{SECRET}: 250"),
        ("chunk_size: 250", f"chunk_size: [{SECRET}]"),
        ("chunk_size: 250", f"chunk_size: 250, {SECRET}: {{{SECRET}: 1}}"),
        ("name: logs}", f"name: {SECRET}}}"),
        ("name: logs}", f"name: logs, columns: [{SECRET}]}}"),
        ("name: logs}", f"name: logs, columns: [{{{SECRET}: 1}}]}}"),
        ("name: logs}", f"name: logs, columns: {SECRET}}}"),
        ("name: logs}", f"name: logs, verify: {SECRET}}}"),
        ("  logs:", f"  {SECRET}:"),
        ("streams:", f"streams: {SECRET}\nx:"),
        ("defaults:", f"defaults: {SECRET}\nx:"),
    ],
)
def test_no_error_repeats_a_key_or_value_that_might_be_a_secret(old, new):
    text = GOOD.replace(old, new, 1)
    assert SECRET in text
    with pytest.raises(InvalidInput) as caught:
        parse(text, "job.yaml")
    assert "4f3a2b1c" not in str(caught.value)
    assert str(caught.value).startswith("job.yaml:")


def test_a_file_with_thousands_of_mistakes_gets_a_short_answer():
    wrong = "".join(f"  x{number}: 1\n" for number in range(5000))
    with pytest.raises(InvalidInput) as caught:
        parse(GOOD.replace("streams:\n", f"streams:\n{wrong}"), "job.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) <= 21


NATIVE = "  {key}: {{cryo_dataset_name: {name}, engine: native{more}}}\n"


@pytest.mark.parametrize("name", ["blocks", "transactions", "logs", "geth_calls"])
def test_rows_may_be_built_natively(name):
    job = parse(GOOD + NATIVE.format(key="x", name=name, more=""))
    assert (job.streams["x"].engine, job.streams["blocks"].engine) == ("native", "cryo")


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("traces", "", "native builds rows of blocks, transactions, logs, geth_calls only: use cryo for traces"),
        (
            "logs",
            ", verify: structural",
            "native builds rows from what is proven: it needs verify: full, not structural",
        ),
        ("logs", ", verify: off", "native builds rows from what is proven: it needs verify: full, not off"),
        (
            "transactions",
            ", columns: [n_rlp_bytes]",
            "native has no column n_rlp_bytes: use cryo, or leave the column out",
        ),
    ],
)
def test_what_cannot_be_built_natively_is_said_at_the_key(name, more, reason):
    with pytest.raises(InvalidInput) as refused:
        parse(GOOD + NATIVE.format(key="x", name=name, more=more), "job.yaml")
    assert str(refused.value) == f"job.yaml:13: streams.x.engine: {reason}"


def test_a_native_default_is_refused_where_it_stands():
    text = (
        GOOD.replace("rpc_pool: standard", "rpc_pool: standard\n  engine: native")
        + "  t: {cryo_dataset_name: traces}\n"
    )
    with pytest.raises(
        InvalidInput, match=r"^<text>:10: defaults.engine: native builds rows of .* use cryo for traces"
    ):
        parse(text)
