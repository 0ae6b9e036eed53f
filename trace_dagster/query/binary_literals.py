"""Binary literals: ``0xab12``, as people write bytes in other databases of EVM data, and ``X'ab12'`` of standard SQL.

DuckDB has neither, and does not say so: it reads the first as ``0 AS xab12`` and the second as the text ``xab12``.
"""

from __future__ import annotations

import re
from itertools import pairwise

import duckdb

from trace_dagster.errors import InvalidInput
from trace_dagster.query.protocol import MAX_SQL_BYTES

_MAYBE = re.compile(r"0x|x'", re.IGNORECASE)
_UNQUOTED = re.compile(r"[xX]([0-9a-fA-F]*)(?![\w$]|[^\x00-\x7f\s])")
_QUOTED = re.compile(r"[xX]'((?:[^']|'')*)'")
_CALL = re.compile(r"unhex\('([0-9a-fA-F]*)'\)")
_DIGITS = re.compile(r"[0-9a-fA-F]*")


def with_unhex(sql: str) -> str:
    """Return SQL with ``unhex('ab12')`` in place of each binary literal.

    Raises InvalidInput for a literal with an odd number of digits, or with other characters than hex digits in quotes.
    """
    if len(sql) > MAX_SQL_BYTES or _MAYBE.search(sql) is None:
        return sql
    tokens = _tokens(sql)
    pieces: list[str] = []
    for before, token in zip(["", *tokens], tokens, strict=False):
        if before == "0" and (found := _UNQUOTED.match(token)):
            pieces[-1] = _unhex("0" + found[0], found[1]) + token[found.end() :]
        elif found := _QUOTED.match(token):
            pieces.append(_unhex(found[0], found[1]) + token[found.end() :])
        else:
            pieces.append(token)
    return "".join(pieces)


def without_unhex(name: str) -> str:
    """Return the name of an expression with ``0xab12`` in place of ``unhex('ab12')``."""
    return _CALL.sub(r"0x\1", name)


def _tokens(sql: str) -> list[str]:
    """Return DuckDB's tokens, each with the blanks and comments that follow; the whole text if it has none."""
    try:
        data = sql.encode()
        starts = [0, *(start for start, _ in duckdb.tokenize(sql)), len(data)]
        return [data[start:end].decode() for start, end in pairwise(starts)]
    except (duckdb.Error, UnicodeError):  # the parser says what is wrong
        return [sql]


def _unhex(literal: str, digits: str) -> str:
    if not _DIGITS.fullmatch(digits):
        raise InvalidInput(f"the binary literal {literal[:80]} has characters that are no hex digits")
    if len(digits) % 2:
        raise InvalidInput(f"the binary literal {literal[:80]} has an odd number of hex digits")
    return f"unhex('{digits}')"
