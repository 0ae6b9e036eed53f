"""Datasets of the lake, as the service describes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any

from trace_dagster.client.json_shape import Shape

DATASET: Shape = {
    "name": str,
    "short_name": (str, None),
    "chain_id": int,
    "kind": str,
    "columns": [{"name": str, "type": str, "description": (str, None)}],
    "rows": int,
    "coverage": {
        "first_block": (int, None),
        "last_block": (int, None),
        "hot_from": (int, None),
        "missing_blocks": int,
    },
    "freshness": {"last_block_time": (str, None), "age_seconds": (int, float, None)},
}
"""One dataset of ``GET /v1/datasets``."""


@dataclass(frozen=True, slots=True)
class DatasetColumn:
    """One column of a dataset."""

    name: str
    type: str
    """Its type in SQL."""
    description: str | None


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One dataset: its columns, and what it has now."""

    name: str
    """Its full name in SQL."""
    short_name: str | None
    """Its name without the chain, if no other chain has such a dataset."""
    chain_id: int
    kind: str
    """``stream`` or ``derived``."""
    columns: tuple[DatasetColumn, ...]
    rows: int
    """Committed rows; hot ones are not counted."""
    first_block: int | None
    last_block: int | None
    """The newest block, committed or hot; None if there is none."""
    hot_from: int | None
    """The first hot block; None if all are committed."""
    missing_blocks: int
    last_block_time: datetime | None
    age_seconds: float | None
    """Age of the newest block when the service answered."""
    raw: dict[str, Any] = field(repr=False)
    """Everything that the service said, such as the gaps (docs/service.md)."""

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> DatasetInfo:
        """Read one dataset of ``GET /v1/datasets``."""
        coverage, freshness = given["coverage"], given["freshness"]
        time = freshness["last_block_time"]
        return cls(
            name=given["name"],
            short_name=given["short_name"],
            chain_id=given["chain_id"],
            kind=given["kind"],
            columns=tuple(DatasetColumn(each["name"], each["type"], each["description"]) for each in given["columns"]),
            rows=given["rows"],
            first_block=coverage["first_block"],
            last_block=coverage["last_block"],
            hot_from=coverage["hot_from"],
            missing_blocks=coverage["missing_blocks"],
            last_block_time=None if time is None else datetime.fromisoformat(time),
            age_seconds=freshness["age_seconds"],
            raw=given,
        )

    def _repr_html_(self) -> str:
        rows = [(each.name, each.type, each.description or "") for each in self.columns]
        return f"<p>{escape(_line(self))}</p>{_table(('column', 'type', 'meaning'), rows)}"


class DatasetInfos(tuple[DatasetInfo, ...]):
    """Datasets in the order of their names. A notebook shows them as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(_line(each) for each in self) or "no dataset"

    def _repr_html_(self) -> str:
        rows = [
            (each.name, _blocks(each), f"{each.rows:,}", f"{each.missing_blocks:,}", _age(each.age_seconds))
            for each in self
        ]
        return _table(("dataset", "blocks", "committed rows", "missing blocks", "newest block"), rows)


def _line(each: DatasetInfo) -> str:
    return f"{each.name}: blocks {_blocks(each)}, {each.rows:,} committed rows, {len(each.columns)} columns"


def _blocks(each: DatasetInfo) -> str:
    return "none" if each.first_block is None else f"{each.first_block:,} to {each.last_block:,}"


def _age(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.0f} s ago"


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
