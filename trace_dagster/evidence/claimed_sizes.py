"""Adds the members of a block's answer that are in no header to proven headers: its size and total difficulty.

They are what the node claims. Only rows of ``blocks`` that are built from evidence need them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from trace_dagster.errors import VerificationFailed
from trace_dagster.verify.commitments.hex import number
from trace_dagster.verify.commitments.rpc_json import Json
from trace_dagster.verify.model import Header


class _Sizes(msgspec.Struct, rename="camel", gc=False):
    size: str | None = None
    total_difficulty: str | None = None


_SIZES = msgspec.json.Decoder(_Sizes)


def with_sizes(headers: Sequence[Header], answers: Sequence[Json]) -> list[Header]:
    """Return the headers with what the blocks' answers claim. Raises VerificationFailed if a claim is no number."""
    return [_sized(header, answer) for header, answer in zip(headers, answers, strict=True)]


def _sized(header: Header, answer: Json) -> Header:
    try:
        found = _SIZES.decode(answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise VerificationFailed("a block's size or totalDifficulty is no text", block=header.number) from None
    return replace(
        header,
        size=None if found.size is None else number(found.size, header.number),
        total_difficulty=None if found.total_difficulty is None else number(found.total_difficulty, header.number),
    )
