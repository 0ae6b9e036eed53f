"""Every command that an error, a note or a page names can be run as it stands there."""

import re
from pathlib import Path

import click
import pytest

import trace_dagster
from trace_dagster.cli.main import main

PACKAGE = Path(trace_dagster.__file__).parent
DOCS = PACKAGE.parent
_COMMAND = re.compile(r"`trace-lite ([a-z-]+)((?: [^`\n]*)?)`")
FILES = [*sorted(PACKAGE.rglob("*.py")), *sorted(DOCS.glob("docs/*.md")), DOCS / "README.md"]


def named():
    """Yield the file, the command and its arguments."""
    for file in FILES:
        text = re.sub(r'"\s*\n\s*f?"', "", file.read_text())  # a literal that goes on in the next line
        for command, arguments in _COMMAND.findall(text):
            yield str(file.relative_to(DOCS)), command, arguments


@pytest.mark.parametrize(("file", "command", "arguments"), sorted(set(named())))
def test_a_named_command_exists_with_its_options(file, command, arguments):
    known, arguments = main.commands[command], arguments.strip()
    if isinstance(known, click.Group) and arguments:
        name, _, arguments = arguments.partition(" ")
        known = known.commands[name]
    options = {name: param for param in known.params for name in param.opts}
    words = [word for word in re.sub(r"\{[^}]*\}", "X", arguments).split() if word not in ("...", "|")]
    takes_text = any(param.param_type_name == "argument" for param in known.params)
    place = 0
    while place < len(words):
        word = words[place].partition("=")[0].strip("[]")
        if word.startswith("-"):
            assert word in options, f"{file}: trace-lite {command} has no option {word}"
            place += 0 if options[word].is_flag else 1
        else:
            assert takes_text, f"{file}: trace-lite {command} takes no argument {word}"
        place += 1
