"""YAML with the line of each key: values equal PyYAML's, and hostile text ends in an error quickly."""

import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance.jobs import JOB
from tests.support.registry import job_text
from trace_dagster.config.chain_sync import MAX_FILE_BYTES, ChainSync, Stream, parse
from trace_dagster.config.yaml_positions import MAX_DEPTH, MAX_SCALAR_CHARACTERS, MAX_VALUES, read_document
from trace_dagster.errors import InvalidInput

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "examples").glob("*.yaml"))
FENCED = re.compile(r"^```yaml\n(kind: chain_sync.*?)^```", re.MULTILINE | re.DOTALL)
TEXTS = {
    **{path.name: path.read_text() for path in FILES},
    "README": FENCED.findall((ROOT / "README.md").read_text())[0],
    "registry tests": job_text(),
    "acceptance tests": JOB.format(
        name="job", chain=1, start=0, end=9, pool="p", chunk=3, compact="off", streams="  a: {}"
    ),
}


def marked(text):
    return read_document(text, "job.yaml")


@pytest.mark.parametrize("name", TEXTS)
def test_a_job_is_read_as_pyyaml_reads_it(name):
    text = TEXTS[name]
    assert marked(text).value == yaml.safe_load(text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_becomes_the_model_of_its_plain_values(path):
    """Only the defaults of streams are added to the values in the file."""
    plain = yaml.safe_load(path.read_text())
    defaults = plain.pop("defaults", {})
    plain["streams"] = {key: {**defaults, **stream} for key, stream in plain["streams"].items()}
    assert parse(path.read_text()) == ChainSync.model_validate(plain)


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 0x1f, 0o17, 1_000, 1.5, -3, 0, +7, 0.5, .inf, yes, off, ~, null, 2026-11-29, 'yes', \"\\u00e9\", '']",
        "a: |\n  two\n  lines\nb: >-\n  folded\n  text\n",
        "? e\n: - - f\n    - {}\n'<<': g\n",
        "",
        "# nothing\n",
    ],
)
def test_values_of_every_kind_are_those_of_pyyaml(text):
    assert marked(text).value == yaml.safe_load(text)


@given(st.text(alphabet=" \n:-[]{},*&!|>'\"%#?<~0129abyn.", max_size=60))
def test_any_text_has_pyyamls_value_or_is_an_error(text):
    try:
        found = marked(text).value
    except InvalidInput:
        return
    plain = yaml.safe_load(text)
    assert found == plain or found != found


def test_each_key_has_its_line_and_a_missing_one_that_of_its_parent():
    document = marked("a:\n  b: 1\n\n  c:\n    - x: 1\n    - x: 2\n'd': {e: 1,\n  f: 2}\n")
    assert document.lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 4,
        ("a", "c", 0, "x"): 5,
        ("a", "c", 1, "x"): 6,
        ("d",): 7,
        ("d", "e"): 7,
        ("d", "f"): 8,
    }
    assert [document.line(path) for path in ((), ("a", "z"), ("a", "c", 1, "y"), ("z",))] == [1, 1, 4, 1]
    assert str(document.error(("a", "b"), "wrong")) == "job.yaml:2: a.b: wrong"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a: this key is written twice"),
        ("a:\n  - {b: 1, b: 2}", 2, "a.0.b: this key is written twice"),
        ("a: 1\n1: 2", 2, "keys are plain text, not int"),
        ("a: 1\n~: 2", 2, "keys are plain text, not null"),
        ("off: 2", 1, "keys are plain text, not bool"),
        ("? [a]\n: b", 1, "keys are plain text, not seq"),
        ("? {a: b}\n: b", 1, "keys are plain text, not map"),
        ("a: &a {b: 1}\nc:\n  <<: *a", 3, "aliases are not used"),
        ("a: 1\n<<: {b: 1}", 2, "keys are plain text, not merge"),
        ("a: &a\n  b: *a", 2, "aliases are not used"),
        ("a: 1\nb: !!python/name:os.system", 2, "tags are not used"),
        ("a: !!set {b, c}", 1, "tags are not used"),
        ("a: !own 1", 1, "tags are not used"),
        ("a: !!str 1", 1, "tags are not used"),
        ("a: 1\nb: 2026-13-01", 2, "not valid YAML: month must be in 1..12"),
        ("a: 1\nb: 0100", 2, "a number that starts with 0 is octal in YAML: write it without the 0"),
        ("a: [-017]", 1, "is octal in YAML"),
        ("a: {b: 0_17}", 1, "is octal in YAML"),
        ("a: 00", 1, "is octal in YAML"),
        ("a: 01.5", 1, "is octal in YAML"),
        ("a: 1\nb: 1:40", 2, "a number with colons is of base 60 in YAML: write it in decimal"),
        ("a: [-1:40:00]", 1, "is of base 60 in YAML"),
        ("a: 1:40.5", 1, "is of base 60 in YAML"),
        ("a: =", 1, "not valid YAML: could not determine a constructor"),
        ("a: 1\n---\na: 2", 2, "not valid YAML: expected a single document in the stream, but found another document"),
        ("a: 1\n b: 2", 2, "not valid YAML: mapping values are not allowed here"),
        ("a: 'x", 1, "not valid YAML: found unexpected end of stream"),
    ],
)
def test_text_that_is_not_allowed_is_an_error_with_its_line(text, line, reason):
    with pytest.raises(InvalidInput) as raised:
        marked(text)
    place, _, found = str(raised.value).partition(": ")
    assert place == f"job.yaml:{line}"
    assert reason in found


@pytest.mark.parametrize("text", ["a: '0100'", 'a: "1:40"', "a: 0100z", "a: 0x10", "a: 1:80", "a: |\n  0100"])
def test_text_that_looks_like_such_a_number_is_text(text):
    assert marked(text).value == yaml.safe_load(text)


SECRET = "sk-live-4f3a2b1c"


@pytest.mark.parametrize(
    "text",
    [
        f"a: &{SECRET} 1\nb: &{SECRET} 2",
        f"a: *{SECRET}",
        f"a: !{SECRET} 1",
        f"a: !{SECRET}!b 1",
        f"%TAG !{SECRET}! x\n%TAG !{SECRET}! y\n---\na: 1",
        f"%{SECRET} 1\n---\na: *b",
        f"a: [{SECRET}",
        f"a: {SECRET}: b",
        f"{SECRET}\na: b",
        f"a: '{SECRET}",
        f'a: "{SECRET}\\q"',
        f"? [{SECRET}]\n: 1",
        f"a: {SECRET}\x00",
        f"a: |x{SECRET}",
        f"@{SECRET}: 1",
        f"`{SECRET}`: 1",
    ],
)
def test_an_error_repeats_nothing_that_might_be_a_secret(text):
    with pytest.raises(InvalidInput) as raised:
        marked(text)
    assert SECRET not in str(raised.value)
    assert "4f3a" not in str(raised.value)


def nested(levels):
    return "".join(f"{' ' * level}a:\n" for level in range(levels))


def test_the_limits_are_those_that_are_named():
    assert marked(nested(MAX_DEPTH - 1)).line(("a",) * (MAX_DEPTH - 1)) == MAX_DEPTH - 1
    with pytest.raises(InvalidInput, match=f"job.yaml:{MAX_DEPTH}: more than {MAX_DEPTH} levels"):
        marked(nested(MAX_DEPTH))
    count = (MAX_VALUES - 1) // 2
    full = "".join(f"a{number}: 1\n" for number in range(count))
    assert len(marked(full).value) == count
    with pytest.raises(InvalidInput, match="keys and values"):
        marked(full + "b: 1\n")
    assert marked("a: " + "x" * MAX_SCALAR_CHARACTERS).value
    with pytest.raises(InvalidInput, match="characters"):
        marked("a: " + "x" * (MAX_SCALAR_CHARACTERS + 1))


def test_the_largest_job_is_within_the_limits():
    keys = {
        "columns": "[block_number, block_hash, timestamp]",
        "cryo_dataset_name": "blocks",
        "rpc_pool": "p",
        "engine": "cryo",
        "compact": "{after_files: 1000, target_bytes: 268435456}",
    }
    stream = ", ".join(f"{key}: {keys.get(key, 1)}" for key in Stream.model_fields if key != "verify")
    text = (
        "kind: chain_sync\nname: job\nchain_id: 1\nmode: {kind: fixed_target, from_block: 0, to_block: 9}\nstreams:\n"
    )
    assert len(parse(text + "".join(f"  s{number}: {{{stream}}}\n" for number in range(64))).streams) == 64


@pytest.mark.parametrize(
    "text",
    [
        "[" * 900_000,
        "{a: " * 200_000,
        nested(1_300),
        "a: 1\n" * 200_000,
        "[" + "1," * 450_000 + "]",
        "a: " + "x" * 990_000,
        "a: " + "9" * 990_000,
        "a: " + "1:" * 400_000 + "1",
        "- " * 400_000,
        "? " * 400_000,
        "#\n" * 490_000 + "]",
        '"' + "\\n" * 490_000 + '"',
        "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a, *a, *a]\n" for n in range(1000)),
    ],
    ids=lambda text: text[:8].strip(),
)
def test_a_large_hostile_text_is_an_error_within_seconds(text):
    assert len(text) <= MAX_FILE_BYTES
    started = time.monotonic()
    with pytest.raises(InvalidInput) as raised:
        marked(text)
    assert time.monotonic() - started < 10
    assert len(str(raised.value)) < 200
