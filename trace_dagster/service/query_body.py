"""The body of ``POST /v1/query``, and in which format its answer comes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from trace_dagster.query.as_of import parse_as_of
from trace_dagster.query.protocol import DEFAULT_ROWS, MAX_ROWS, MAX_SQL_BYTES
from trace_dagster.registry.as_of import AsOf
from trace_dagster.service.bodies import read_json
from trace_dagster.service.errors import HttpRefusal

Format = Literal["json", "arrow", "csv", "parquet"]

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv; charset=utf-8; header=present",
    "parquet": "application/vnd.apache.parquet",
}
_MOST_ROWS = 2**63 - 1
_Point = Annotated[int, Field(ge=0, le=_MOST_ROWS)] | Annotated[str, Field(max_length=100)]


class QueryBody(BaseModel):
    """A query and how to answer it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sql: str = Field(min_length=1, description=f"One SELECT, at most {MAX_SQL_BYTES} bytes.")
    parameters: dict[str, Any] | list[Any] | None = Field(
        None, description="Values of `$name` by name, or of `?` in their order. A number with a point is exact."
    )
    limit: int | None = Field(
        None,
        ge=1,
        le=_MOST_ROWS,
        description=f"Most rows. JSON has at most {MAX_ROWS}, and {DEFAULT_ROWS} without it; others have all rows"
        " without it.",
    )
    as_of: _Point | Annotated[list[_Point], Field(max_length=10, json_schema_extra={"minItems": 1})] | None = Field(
        None, description="A block, a time such as `2024-05-01T12:00:00Z`, `common`, or a list of them."
    )
    finalized_only: bool = Field(False, description="Whether only rows of final blocks count.")
    format: Format | None = Field(None, description="Without it the Accept header decides, else it is json.")

    def cut(self) -> AsOf:
        """Return which state of the chain is asked for. Raises InvalidInput for a text that is none."""
        given = [] if self.as_of is None else self.as_of if isinstance(self.as_of, list) else [self.as_of]
        return parse_as_of(map(str, given), finalized_only=self.finalized_only)


async def read_query(request: Request) -> tuple[QueryBody, Format]:
    """Return the query that a request holds and the format of its answer. Raises HttpRefusal."""
    body = await read_json(request, QueryBody)
    if len(body.sql.encode()) > MAX_SQL_BYTES:
        raise HttpRefusal(413, "sql_too_large", f"the SQL is larger than {MAX_SQL_BYTES} bytes: use parameters")
    form = body.format or _accepted(request.headers.get("accept", ""))
    if form == "json" and body.limit is not None and body.limit > MAX_ROWS:
        raise HttpRefusal(
            422, "wrong_form", f"the body has a wrong form: 'limit' is at most {MAX_ROWS} for json; take arrow, csv or"
            " parquet for more rows"
        )  # fmt: skip
    if body.as_of == []:  # pydantic would report one error for each type that as_of may have
        raise HttpRefusal(
            422, "wrong_form", "the body has a wrong form: 'as_of': an empty list is no cut: leave it out, or give a"
            " block or a time"
        )  # fmt: skip
    if form != "json" and request.scope["http_version"] == "1.0":
        raise HttpRefusal(505, "http_version", "HTTP/1.0 cannot tell a broken stream from a whole one: use HTTP/1.1")
    return body, form


def _accepted(header: str) -> Format:
    """Return the format that an Accept header prefers; json if it names none of them."""
    types = {kind.partition(";")[0]: form for form, kind in MEDIA_TYPES.items()}
    best: tuple[float, Format] = (0.0, "json")
    for entry in header[:1000].split(","):
        name, *details = (part.strip().lower() for part in entry.split(";"))
        weight = next((_weight(detail[2:]) for detail in details if detail.startswith("q=")), 1.0)
        if name in types and weight > best[0]:
            best = weight, types[name]
    return best[1]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
