"""The lake behind a query service: SQL, datasets, files and changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from trace_dagster.client.changes import ChangeFeed
from trace_dagster.client.datasets import DATASET, DatasetInfo, DatasetInfos
from trace_dagster.client.json_shape import Shape, checked
from trace_dagster.client.result import Result
from trace_dagster.client.saving import format_of, save
from trace_dagster.client.service_errors import expected_form
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.client.transfer import MEDIA_TYPES, Transfer
from trace_dagster.client.wire import AsOfPart, wire_as_of, wire_integer, wire_parameters
from trace_dagster.errors import InvalidInput

Params = Mapping[str, Any] | Sequence[Any]
AsOfGiven = AsOfPart | Sequence[AsOfPart]

_OLDEST = "0"
_ROWS: Shape = {
    "query_id": str,
    "columns": [{"name": str, "type": str}],
    "rows": [list],
    "truncated": bool,
    "snapshot": (dict, None),
}
_FILES: Shape = {
    "cursor": str,
    "dataset": str,
    "from_block": int,
    "to_block": int,
    "hot_from": (int, None),
    "last_committed": (int, None),
    "files": [dict],
}


class ConnectedLake:
    """A lake that a query service shows. Thread-safe."""

    def __init__(self, http: ServiceHttp) -> None:
        self._http = http

    def sql(
        self,
        sql: str,
        params: Params | None = None,
        *,
        as_of: AsOfGiven | None = None,
        finalized_only: bool = False,
        limit: int | None = None,
    ) -> Result:
        """Run one SELECT and return its rows, as many as there are. They arrive while the result is read.

        :param params: values of ``$name`` by name, or of ``?`` in their order.
        :param as_of: rows up to a block, up to a time, or ``common`` (docs/queries.md); or a list of these.
        :param finalized_only: rows up to the last final block of each chain.
        :param limit: the most rows; without it there is no limit.

        Raises InvalidInput if the SQL or a value is refused, NoAccess, TooLate, TooMany, or Unavailable.
        """
        return Result(self.stream(sql, "arrow", params, as_of=as_of, finalized_only=finalized_only, limit=limit))

    def save(
        self,
        sql: str,
        path: str | Path,
        params: Params | None = None,
        *,
        as_of: AsOfGiven | None = None,
        finalized_only: bool = False,
        limit: int | None = None,
    ) -> Path:
        """Run one SELECT and save its rows in a file, whose name ends in .parquet, .csv or .arrow. Return its path.

        An older file is replaced when the answer has arrived whole. Raises what :meth:`sql` raises.
        """
        path = Path(path)
        name = format_of(path)
        with self.stream(sql, name, params, as_of=as_of, finalized_only=finalized_only, limit=limit) as transfer:
            save(transfer, path)
        return path

    def json(
        self,
        sql: str,
        params: Params | None = None,
        *,
        as_of: AsOfGiven | None = None,
        finalized_only: bool = False,
        limit: int = 1000,
    ) -> dict[str, Any]:
        """Run one SELECT and return its answer as JSON values: columns, rows, truncated, snapshot, query_id.

        It has at most ``limit`` rows, and up to 10,000. Raises what :meth:`sql` raises.
        """
        body = _body(sql, "json", params, as_of, finalized_only=finalized_only, limit=limit)
        names = _QueryNames()
        try:
            answer = self._http.json("POST", "/v1/query", body, headers=names)
        except KeyboardInterrupt:
            self._http.cancel(names.last)
            raise
        with expected_form(self._http.host):
            return _checked_rows(answer)

    def stream(
        self,
        sql: str,
        form: str,
        params: Params | None = None,
        *,
        as_of: AsOfGiven | None = None,
        finalized_only: bool = False,
        limit: int | None = None,
    ) -> Transfer:
        """Run one SELECT and return the bytes of its answer: ``arrow``, ``csv`` or ``parquet``.

        The caller closes it. Raises what :meth:`sql` raises.
        """
        if form not in MEDIA_TYPES:
            raise InvalidInput(f"an answer is streamed as {', '.join(MEDIA_TYPES)}, not as {form!r}; see also .json()")
        body = _body(sql, form, params, as_of, finalized_only=finalized_only, limit=limit)
        names = _QueryNames()
        try:
            answer = self._http.open("POST", "/v1/query", body, headers=names)
        except KeyboardInterrupt:
            self._http.cancel(names.last)
            raise
        return Transfer(self._http, answer, form, names.last)

    def datasets(self) -> DatasetInfos:
        """Return the datasets that the token may see."""
        found = self._http.json("GET", "/v1/datasets")
        with expected_form(self._http.host):
            return DatasetInfos(map(DatasetInfo.from_json, checked(found, {"datasets": [DATASET]})["datasets"]))

    def dataset(self, name: str) -> DatasetInfo:
        """Return one dataset by its name in SQL. Raises InvalidInput if there is none."""
        found = self._http.json("GET", f"/v1/datasets/{quote(name, safe='')}")
        with expected_form(self._http.host):
            return DatasetInfo.from_json(checked(found, DATASET))

    def files(self, name: str, from_block: int | None = None, to_block: int | None = None) -> dict[str, Any]:
        """Return the Parquet files of one dataset, of one moment, as JSON values (docs/service.md).

        Hot rows are in no file.

        :param from_block: only files with blocks from this one on.
        :param to_block: only files with blocks before this one.
        """
        asked = {"from_block": from_block, "to_block": to_block}
        query = "&".join(f"{key}={wire_integer(value, key)}" for key, value in asked.items() if value is not None)
        found = self._http.json("GET", f"/v1/datasets/{quote(name, safe='')}/files?{query}")
        with expected_form(self._http.host):
            listed: dict[str, Any] = checked(found, _FILES)
            return listed

    def changes(self, after: str | None = None, *, follow: bool = False) -> ChangeFeed:
        """Return the changes after a cursor, in their order; without one, from the oldest that is kept.

        :param after: the cursor of a change, of :meth:`cursor`, or of ``result.snapshot``.
        :param follow: wait for more, without an end.
        """
        return ChangeFeed(self._http, _OLDEST if after is None else after, follow=follow)

    def cursor(self) -> str:
        """Return the cursor of this moment: what is read from now on has every change up to it."""
        found = self._http.json("GET", "/v1/changes?after=now")
        with expected_form(self._http.host):
            cursor: str = checked(found, {"cursor": str})["cursor"]
            return cursor

    def __repr__(self) -> str:
        return f"<lake at {self._http.host}: .sql() .save() .datasets() .files() .changes()>"


class _QueryNames:
    """Names each try of a query: the service may still know the one before."""

    last = ""

    def __call__(self) -> dict[str, str]:
        self.last = str(uuid4())
        return {"trace-query-id": self.last}


def _checked_rows(answer: Any) -> dict[str, Any]:
    """Return the answer to a query. Raises ValueError if it has another shape, or a row has another width."""
    rows: dict[str, Any] = checked(answer, _ROWS)
    width = len(rows["columns"])
    if any(len(row) != width for row in rows["rows"]):
        raise ValueError("a row has another number of values than there are columns")
    return rows


def _body(
    sql: str,
    form: str,
    params: Params | None,
    as_of: AsOfGiven | None,
    *,
    finalized_only: bool,
    limit: int | None,
) -> dict[str, Any]:
    if not isinstance(sql, str):
        raise InvalidInput(f"the SQL is a text, not {type(sql).__name__}")
    body: dict[str, Any] = {"sql": sql, "format": form}
    if params is not None:
        body["parameters"] = wire_parameters(params)
    if as_of is not None:
        body["as_of"] = wire_as_of(as_of)
    if finalized_only:
        body["finalized_only"] = True
    if limit is not None:
        body["limit"] = wire_integer(limit, "limit")
    return body
