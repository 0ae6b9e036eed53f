"""Text of others, as a terminal or a page can show it safely."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"[!#$()*+<>\[\\\]_`{|}~&:-]")


def printable(text: str) -> str:
    """Return the text with every control and formatting character as an escape such as ``\\x1b``.

    Text from a chain or a server may hold terminal escapes. Line breaks are escaped too: one value stays on one line.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_lines(text: str) -> str:
    """Return the text as :func:`printable` does, but with its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def plain_markdown(text: str) -> str:
    """Return the text for Markdown, in which it shows as it is: no link, image, HTML or table of its own."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))
