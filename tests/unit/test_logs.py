"""Process logs: their two formats, their levels, the redaction of secrets, and the list of events in the docs."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from pathlib import Path

import pytest

import trace_dagster
from trace_dagster.blocks import BlockRange
from trace_dagster.messages import redaction
from trace_dagster.messages.logs import component_log, configure_logs


@pytest.fixture
def written(monkeypatch):
    """Configure logs into memory: yield the function that does it, and restore the configuration afterwards."""
    root = logging.getLogger("trace_dagster")
    before = (root.handlers, root.level, root.propagate)
    monkeypatch.setattr(redaction, "_known", redaction._KnownSecrets())

    def configure(*arguments) -> io.StringIO:
        stream = io.StringIO()
        configure_logs(*arguments, stream=stream)
        return stream

    yield configure
    root.handlers, root.level, root.propagate = before


def test_a_line_has_time_level_component_event_and_facts(written):
    stream = written()
    component_log("ingest").event("committed", block_range=BlockRange(0, 10), rows=3, seconds=0.25, lease=None)
    time, *rest = stream.getvalue().split(" ", 4)
    assert time.endswith("Z")
    assert rest == ["info", "ingest", "committed", 'block_range="[0, 10)" rows=3 seconds=0.25\n']


def test_json_is_one_object_per_line_and_keeps_numbers(written):
    stream = written("json")
    log = component_log("gateway")
    log.warning("rate_limited", endpoint="standard#1", seconds=1.5, event="not the event")
    log.event("recovered", text="two\nlines")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert {name: first[name] for name in ("level", "component", "event", "endpoint", "seconds")} == {
        "level": "warning",
        "component": "gateway",
        "event": "rate_limited",
        "endpoint": "standard#1",
        "seconds": 1.5,
    }
    assert second["text"] == "two\nlines"


@pytest.mark.parametrize("text", ['with "quotes"', "a b", "two\nlines", "k=v", "tab\t", "", "\x1b[2J", "\u202e"])
def test_text_that_is_not_one_word_is_quoted(written, text):
    stream = written()
    component_log("x").event("e", reason=text)
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert json.loads(line.partition("reason=")[2]) == text


@pytest.mark.parametrize("format_name", ["text", "json"])
@pytest.mark.parametrize("secret", ["s3cr3t-key", 's3cr3t"quoted\\key', "s3cr3t-kéy"])
def test_no_secret_passes(written, format_name, secret):
    stream = written(format_name)
    redaction.protect([secret, "https://user:passw0rd@node.example/v2/anotherkey1"])
    component_log("x").event("e", a=f"told {secret}", b="https://other.example/path", c="passw0rd and anotherkey1")
    for hidden in ("s3cr3t", "other.example", "passw0rd", "anotherkey1", "node.example"):
        assert hidden not in stream.getvalue()


def test_details_are_shown_on_request_only(written):
    quiet, loud = written("text", "info"), None
    component_log("x").debug("detail")
    assert quiet.getvalue() == ""
    loud = written("text", "debug")
    component_log("x").debug("detail")
    assert " debug x detail" in loud.getvalue()


def test_an_unconfigured_process_prints_warnings_only(capfd):
    """The command line prints its own messages, so components only log warnings and errors there."""
    root = logging.getLogger("trace_dagster")
    assert root.level in {logging.NOTSET, logging.WARNING}
    component_log("x").event("quiet")
    assert capfd.readouterr().err == ""


def _logged_events():
    """Return (component, event) of every log call in the package, with every event name that the call may pass."""
    found = set()
    for path in Path(trace_dagster.__file__).parent.rglob("*.py"):
        if component := re.search(r'^_log = component_log\("(\w+)"\)', path.read_text(), re.MULTILINE):
            found |= {(component[1], event) for event in _event_names(ast.parse(path.read_text()))}
    return found


def _event_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_log_method(node.func):
            yield from (each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "event":
            yield from (each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant) and each.value)


def _is_log_method(function):
    is_direct = isinstance(function, ast.Attribute) and getattr(function.value, "id", "") == "_log"
    return is_direct or getattr(function, "id", "") in {"log", "write"}


def test_the_operations_page_lists_every_event_and_no_other():
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    table = page.partition("| component | event |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if "`" in line]
    listed = {(component.strip(), event) for component, events in rows for event in re.findall(r"`(\w+)`", events)}
    assert listed == _logged_events()
