"""Tables in a pipe and in a terminal, and the sizes in them."""

import io

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from trace_dagster.cli import render
from trace_dagster.cli.answers import print_answer
from trace_dagster.cli.main import main, say
from trace_dagster.cli.render import counting
from trace_dagster.cli.tables import human_bytes, human_seconds, print_line, print_table
from trace_dagster.errors import InvalidInput, Unavailable, VerificationFailed
from trace_dagster.messages.printable import plain_markdown, printable, printable_lines
from trace_dagster.query.query_result import QueryResult
from trace_dagster.query.render import to_json

COLUMNS = [("name", "left"), ("blocks", "right")]
HOSTILE = "[red]x[/nope] \x1b[31m\x9b2J\x07 \u202eabc \n\t\r:warning: https://a.b"


def terminal(width=40):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system="truecolor")


def test_a_pipe_gets_one_line_per_row_without_rules(capsys):
    print_table(COLUMNS, [("a", "1"), ("b" * 500, "200"), ("c d", "")], title="the title")
    title, heading, *rows = capsys.readouterr().out.splitlines()
    assert title == "the title"
    assert heading.split() == ["name", "blocks"]
    assert [row.rstrip() for row in rows] == ["a" + " " * 506 + "1", "b" * 500 + "     200", "c d"]


def test_the_terminals_width_does_not_matter_in_a_pipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    print_table([("a", "left"), ("b", "left")], [("x y " * 300, "z" * 3000)], title="t " * 100)
    print_line("word " * 500)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_terminal_gets_rules_and_whole_values():
    console = terminal()
    print_table(COLUMNS, [("v" * 100, "1")], console=console)
    shown = console.file.getvalue()
    assert "┃" in shown
    assert shown.count("v") == 100


def test_text_from_outside_is_shown_and_not_interpreted(capsys):
    print_table([(HOSTILE, "left")], [(HOSTILE,)], title=HOSTILE)
    print_line(HOSTILE)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [printable(HOSTILE)] * 4
    assert lines[0].startswith("[red]x[/nope] \\x1b[31m\\x9b2J\\x07 \\u202eabc \\n\\t\\r:warning:")


def test_a_terminal_gets_no_escapes_from_outside():
    console = terminal(500)
    print_table([("a", "left")], [(HOSTILE,)], title=HOSTILE, console=console)
    shown = console.file.getvalue()
    assert shown.count("\\x1b[31m") == 2
    assert "\x1b[31m" not in shown
    assert not {"\x9b", "\x07", "\u202e", "\r"} & set(shown)


def test_query_results_are_not_interpreted(capsys):
    result = QueryResult(((HOSTILE, "VARCHAR"), ("n", "BIGINT")), [(HOSTILE, 7)], truncated=False)
    print_answer(to_json(result), as_json=False)
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.startswith(printable(HOSTILE))
    assert row.startswith(printable(HOSTILE))
    assert row.endswith("7")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        ("True", "True"),
        ('it\'s "so"', 'it\'s "so"'),
        (0.5, "0.5"),
        ([None, "x", 1, True], '[null, "x", 1, true]'),
        ({"k": False, "n": None}, '{"k": false, "n": null}'),
        ([{"é": ["∑"]}], '[{"é": ["∑"]}]'),
        (["\x1b[31m\x9b2J\x7f\u202e"], r'["\u001b[31m\x9b2J\x7f\u202e"]'),
    ],
)
def test_a_cell_is_a_text_or_json(capsys, value, shown):
    print_answer(to_json(QueryResult((("v", "JSON"),), [(value,)], truncated=False)), as_json=False)
    assert capsys.readouterr().out.splitlines()[1].rstrip() == shown


def test_messages_keep_their_lines_and_lose_their_escapes(capsys):
    say("error: one\ntwo \x1b[2J")
    assert capsys.readouterr().err == "error: one\ntwo \\x1b[2J\n"


@given(st.text())
def test_any_text_becomes_printable(text):
    assert printable(text).isprintable()
    assert printable_lines(text).count("\n") == text.count("\n")
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (12.4, "12 seconds"),
        (59.6, "1 minute"),
        (239, "3 minutes"),
        (3_600, "1 hour"),
        (3_900, "1 hour and 5 minutes"),
        (7_201, "2 hours"),
        (200_000, "2 days and 7 hours"),
    ],
)
def test_durations(seconds, text):
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 Bytes"), (1, "1 Byte"), (1536, "1.5 KiB"), (2**40, "1.0 TiB")])
def test_sizes(count, text):
    assert human_bytes(count) == text


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_markdown_shows_any_text_as_it_is(text):
    inline = MarkdownIt("gfm-like", {"linkify": False}).parse(f"x {plain_markdown(text)} x")[1]
    assert {each.type for each in inline.children} <= {"text", "text_special"}
    assert "".join(each.content for each in inline.children) == f"x {printable(text)} x"


@pytest.mark.parametrize("error", [Unavailable, VerificationFailed, InvalidInput])
@pytest.mark.parametrize("hostile", ["\x1b[31m", "\x9b2J", "\x00", "\u202e", "\ud800", "\r"])
def test_an_error_escapes_control_characters(error, hostile):
    found = error(f"the node said {hostile}", reason=hostile)
    assert str(found) == f"the node said {printable(hostile)} reason={printable(hostile)}"


def test_a_usage_error_escapes_what_was_typed():
    done = CliRunner().invoke(main, ["jobs", "jo\x1b[31mb"])
    assert done.exit_code == 2
    assert "\x1b" not in done.output
    assert "unexpected extra argument (jo\\x1b[31mb)" in done.output


def test_a_bars_description_is_not_interpreted(monkeypatch):
    console = terminal(200)
    monkeypatch.setattr(render, "Console", lambda **_: console)
    with counting(HOSTILE) as begin:
        begin(3)()
    assert "[red]x[/nope]" in console.file.getvalue()
