"""Answers that arrive in pieces: whole ones are read as they are, and one that breaks off never looks shorter."""

from __future__ import annotations

import datetime
import decimal
import sys

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.support import scripted_service as scripts
from tests.support.scripted_service import refusal, reply, scripted_service
from trace_dagster.client.lake import ConnectedLake
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import InvalidInput, TooLate, Unavailable

TABLE = pa.table({"n": range(3000), "text": ["é" * 20] * 3000})
ARROW = "application/vnd.apache.arrow.stream"
END = 8
"""Bytes of the mark at the end of an Arrow stream."""


def streamed(table=TABLE, rows=1000):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


WHOLE = streamed()


def pieces(data, size=4096):
    return [data[at : at + size] for at in range(0, len(data), size)]


def chunked(sent, *, form="vnd.apache.arrow.stream", **more):
    return scripts.chunked(
        sent, content_type=f"application/{form}" if form != "csv" else "text/csv; charset=utf-8", **more
    )


def lake(server):
    return ConnectedLake(ServiceHttp(server.url, None, timeout_seconds=5))


def of_queries(answer):
    return lambda asked: answer if asked.method == "POST" else reply(204)


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_a_whole_answer_is_a_table(size):
    with scripted_service(of_queries(chunked(pieces(WHOLE, size)))) as server:
        result = lake(server).sql("select 1")
        assert result.columns == ["n", "text"]
        assert result.arrow() == TABLE
        assert result.arrow() is result.arrow()
        assert [each.method for each in server.asked] == ["POST"], "a query that ended is not cancelled"


def test_the_same_rows_for_each_library():
    with scripted_service(of_queries(chunked([WHOLE]))) as server:
        asked = lake(server).sql
        assert asked("x").pl().equals(pl.from_arrow(TABLE))
        assert asked("x").df().equals(TABLE.to_pandas())
        assert pa.Table.from_batches(asked("x").batches()) == TABLE
        assert asked("x").reader().read_all() == TABLE
        assert pl.DataFrame(asked("x")).equals(pl.from_arrow(TABLE))


BIG, HUGE = 2**53 + 1, 2**64 - 1
"""Integers that no float is equal to."""


def as_frame(table):
    with scripted_service(of_queries(chunked([streamed(table)]))) as server:
        return lake(server).sql("x").df()


def test_integers_beside_nulls_stay_exact_in_pandas():
    table = pa.table(
        {
            "signed": pa.array([BIG, None]),
            "whole": [BIG, 1],
            "unsigned": pa.array([None, HUGE], pa.uint64()),
            "small": pa.array([7, None], pa.int8()),
            "text": ["a", None],
        }
    )
    frame = as_frame(table)
    assert list(frame.columns) == table.column_names
    assert [str(frame[name].dtype) for name in frame][:4] == ["Int64", "int64", "UInt64", "Int8"]
    assert frame["signed"].tolist() == [BIG, pd.NA]
    assert frame["unsigned"].tolist() == [pd.NA, HUGE]
    assert frame["signed"].sum() == BIG
    assert frame["whole"].tolist() == [BIG, 1]


def test_integers_beside_nulls_within_other_values_stay_exact_in_pandas():
    table = pa.table(
        {
            "list": pa.array([[BIG, None], None]),
            "unsigned": pa.array([[HUGE], [None]], pa.list_(pa.uint64())),
            "lists": pa.array([[[BIG, None]], [None]]),
            "struct": pa.array([{"x": BIG}, {"x": None}]),
            "map": pa.array([[("k", BIG)], [("k", None)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    frame = as_frame(table)
    assert list(frame["list"][0]) == [BIG, None]
    assert [list(each) for each in frame["unsigned"]] == [[HUGE], [None]]
    assert list(frame["lists"][0][0]) == [BIG, None]
    assert frame["struct"].tolist() == [{"x": BIG}, {"x": None}]
    assert frame["map"].tolist() == [[("k", BIG)], [("k", None)]]


def test_columns_of_one_name_keep_their_places_in_pandas():
    columns = [pa.array([None, BIG]), pa.array([1, 2]), pa.array([BIG, None])]
    frame = as_frame(pa.table(columns, names=["n", "n", "n"]))
    assert list(frame.columns) == ["n", "n", "n"]
    assert frame.values.tolist() == [[pd.NA, 1, BIG], [BIG, 2, pd.NA]]


def test_only_integers_beside_nulls_are_a_frame_too():
    frame = as_frame(pa.table({"n": pa.array([None, BIG])}))
    assert frame["n"].tolist() == [pd.NA, BIG]
    assert list(frame.index) == [0, 1]


def test_an_answer_without_rows_has_its_columns():
    empty = TABLE.slice(0, 0)
    with scripted_service(of_queries(chunked([streamed(empty)]))) as server:
        assert lake(server).sql("x").arrow() == empty


def test_rows_can_be_read_once():
    with scripted_service(of_queries(chunked([WHOLE]))) as server:
        for read in (next, list):
            result = lake(server).sql("x")
            batches = result.batches()
            read(batches)
            with pytest.raises(InvalidInput, match="the rows of this result were read already"):
                result.arrow()


WAYS = {
    "arrow": lambda result: result.arrow(),
    "polars": lambda result: result.pl(),
    "pandas": lambda result: result.df(),
    "batches": lambda result: list(result.batches()),
    "reader": lambda result: result.reader().read_all(),
}
"""Ways to read a result."""


@pytest.mark.parametrize("first", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize(
    "answer",
    [chunked(pieces(WHOLE)[:-1], ended=False), chunked(pieces(WHOLE[:-END])), chunked([WHOLE, b"more"])],
    ids=["broken", "no mark", "more"],
)
def test_a_result_that_broke_off_raises_whenever_it_is_read(first, answer):
    with scripted_service(of_queries(answer)) as server:
        result = lake(server).sql("x")
        for read in (first, *WAYS.values()):
            with pytest.raises(Unavailable, match="broke off"):
                read(result)


@pytest.mark.parametrize(
    "of", [lambda result: result.batches(), lambda result: result.reader()], ids=["batches", "reader"]
)
def test_what_reads_a_broken_result_never_comes_to_its_end(of):
    with scripted_service(of_queries(chunked(pieces(WHOLE)[:-1], ended=False))) as server:
        batches = of(lake(server).sql("x"))
        for _ in range(3):
            with pytest.raises(Unavailable, match="broke off"):
                list(batches)


def test_another_library_that_takes_a_broken_result_raises_too():
    with scripted_service(of_queries(chunked(pieces(WHOLE)[:-1], ended=False))) as server:
        result = lake(server).sql("x")
        with pytest.raises(pa.ArrowInvalid, match="broke off"):
            pa.table(result)
        with pytest.raises(Unavailable, match="broke off"):
            pa.table(result)


@pytest.mark.parametrize("leave", [lambda result, _: result.close(), lambda _, batches: batches.clear()])
def test_a_result_that_was_closed_before_its_end_raises(leave):
    with scripted_service(of_queries(chunked(pieces(WHOLE)))) as server:
        result = lake(server).sql("x")
        batches = [result.batches()]
        next(batches[0])
        leave(result, batches)
        for read in (*(lambda _, left=each: list(left) for each in batches), *WAYS.values()):
            with pytest.raises(Unavailable, match="was closed before its end"):
                read(result)


def test_a_result_that_was_read_to_its_end_stays_readable_when_it_is_closed():
    with scripted_service(of_queries(chunked(pieces(WHOLE)))) as server:
        with lake(server).sql("x") as result:
            result.arrow()
        assert result.arrow() == TABLE
        assert pa.Table.from_batches(result.batches()) == TABLE


@pytest.mark.parametrize("ended", [True, False])
def test_rows_that_look_like_the_mark_of_the_end_are_not_the_end(ended):
    marks = pa.table({"n": [0xFFFFFFFF] * 1000})
    data = streamed(marks)[:-END]
    assert data.endswith(streamed(marks)[-END:])
    with scripted_service(of_queries(chunked(pieces(data), ended=ended))) as server:
        with pytest.raises(Unavailable, match="broke off"):
            lake(server).sql("x").arrow()
        result = lake(server).sql("x")
        batches = result.batches()
        next(batches)
        result.close()
        with pytest.raises(Unavailable, match="was closed before its end"):
            list(batches)


TRANSFER_WAYS = {"all": b"".join, "read": lambda transfer: transfer.read(10), "next": next}


@pytest.mark.parametrize("again", TRANSFER_WAYS.values(), ids=TRANSFER_WAYS.keys())
def test_a_transfer_that_broke_off_raises_whenever_it_is_read(again):
    with scripted_service(of_queries(chunked(pieces(WHOLE)[:-1], ended=False, form="csv"))) as server:
        transfer = lake(server).stream("x", "csv")
        for read in (b"".join, again, again):
            with pytest.raises(Unavailable, match="broke off"):
                read(transfer)
        transfer.close()
        with pytest.raises(Unavailable, match="broke off"):
            again(transfer)


@pytest.mark.parametrize("again", TRANSFER_WAYS.values(), ids=TRANSFER_WAYS.keys())
def test_a_transfer_that_was_closed_before_its_end_raises(again):
    with scripted_service(of_queries(chunked(pieces(WHOLE), form="csv"))) as server:
        with lake(server).stream("x", "csv") as transfer:
            assert transfer.read(10) == WHOLE[:10]
        for _ in range(2):
            with pytest.raises(Unavailable, match="was closed before its end"):
                again(transfer)


def test_a_whole_transfer_stays_at_its_end():
    with scripted_service(of_queries(chunked(pieces(WHOLE), form="csv"))) as server:
        with lake(server).stream("x", "csv") as transfer:
            assert b"".join(transfer) == WHOLE
        assert transfer.read(10) == b""
        assert list(transfer) == []


@pytest.mark.parametrize(
    "answer",
    [
        chunked([WHOLE], ended=False),
        chunked(pieces(WHOLE)[:-1], ended=False),
        chunked(pieces(WHOLE[:-END]), ended=False),
        chunked(pieces(WHOLE[:-END])),
        chunked(pieces(WHOLE[: len(WHOLE) // 2])),
        chunked([WHOLE, b"more"]),
        reply(200, WHOLE, content_type=ARROW)[:-1],
        reply(200, WHOLE[: -END - 1], content_type=ARROW),
        f"HTTP/1.1 200 OK\r\ncontent-type: {ARROW}\r\nconnection: close\r\n\r\n".encode() + WHOLE,
        f"HTTP/1.0 200 OK\r\ncontent-type: {ARROW}\r\n\r\n".encode() + WHOLE,
    ],
    ids=["no last chunk", "no last piece", "no mark, broken", "no mark", "half", "more", "length", "body",
         "no length", "http 1.0"],
)  # fmt: skip
def test_an_answer_that_breaks_off_raises(answer):
    def all_of(result):
        return result.arrow()

    def in_batches(result):
        return list(result.batches())

    for read in (all_of, in_batches):
        with scripted_service(of_queries(answer)) as server, pytest.raises(Unavailable, match="broke off"):
            read(lake(server).sql("x"))


def test_an_answer_that_is_cut_within_its_headers_raises():
    whole = chunked([WHOLE])
    for cut in range(whole.index(b"\r\n\r\n") + 4):
        with (
            scripted_service(of_queries(whole[:cut])) as server,
            pytest.raises(Unavailable, match=r"broke off|ended the connection"),
        ):
            lake(server).sql("x")


@pytest.mark.parametrize("cut", [0, 1, 8, 100])
def test_an_answer_that_breaks_off_before_its_columns_raises(cut):
    with scripted_service(of_queries(chunked([WHOLE[:cut]]))) as server, pytest.raises(Unavailable, match="broke off"):
        lake(server).sql("x")


def test_bytes_that_are_no_arrow_raise():
    with (
        scripted_service(of_queries(chunked([b"n,text\n1,2\n" * 100]))) as server,
        pytest.raises(Unavailable, match="broke off"),
    ):
        lake(server).sql("x")


def test_an_error_is_raised_at_once():
    with (
        scripted_service(lambda _: refusal(408, "too_late", "took too long")) as server,
        pytest.raises(TooLate, match="took too long"),
    ):
        lake(server).sql("x")


def test_a_result_that_is_closed_early_ends_its_query():
    with scripted_service(of_queries(chunked([WHOLE]))) as server:
        with lake(server).sql("x") as result:
            next(result.batches())
        post, delete = server.asked
        assert delete.method == "DELETE"
        assert delete.path == f"/v1/queries/{result.query_id}"
        assert post.headers["trace-query-id"] == result.query_id
        result.close()
        assert len(server.asked) == 2


def test_the_snapshot_is_that_of_the_header():
    with scripted_service(of_queries(chunked([WHOLE], trace_snapshot='{"cursor": "1-2-ab"}'))) as server:
        assert lake(server).sql("x").snapshot == {"cursor": "1-2-ab"}
    with scripted_service(of_queries(chunked([WHOLE], trace_snapshot="[oops"))) as server:
        assert lake(server).sql("x").snapshot == {}


def test_a_notebook_shows_columns_without_reading_rows():
    table = pa.table({"<b>&": [1], **{f"c{n}": [n] for n in range(50)}})
    with scripted_service(of_queries(chunked([streamed(table)]))) as server:
        result = lake(server).sql("x")
        shown = result._repr_html_()
        assert "&lt;b&gt;&amp;" in shown
        assert "<b>" not in shown
        assert "and 31 more" in repr(result)
        assert result.arrow() == table
        assert " of 1 rows" in repr(result)


def test_without_pandas_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with (
        scripted_service(of_queries(chunked([WHOLE]))) as server,
        pytest.raises(InvalidInput, match=r"pandas is not installed: install it, or take \.pl\(\) or \.arrow\(\)"),
    ):
        lake(server).sql("x").df()


def test_a_page_of_another_server_is_no_answer():
    with (
        scripted_service(of_queries(reply(200, b"<html>", content_type="text/html"))) as server,
        pytest.raises(InvalidInput, match="does not answer as a query service"),
    ):
        lake(server).sql("x")


@pytest.mark.parametrize(
    ("name", "form"), [("rows.parquet", "vnd.apache.parquet"), ("rows.csv", "csv"), ("ROWS.ARROW", ARROW[12:])]
)
def test_a_file_holds_exactly_the_bytes(tmp_path, name, form):
    path = tmp_path / name
    path.write_bytes(b"old")
    with scripted_service(of_queries(chunked(pieces(WHOLE), form=form))) as server:
        assert lake(server).save("x", path) == path
        assert f'"format": "{path.suffix[1:].lower()}"'.encode() in server.asked[0].body
    assert path.read_bytes() == WHOLE
    assert list(tmp_path.iterdir()) == [path]


def test_a_transfer_that_breaks_off_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"old")
    with (
        scripted_service(of_queries(chunked([WHOLE], ended=False, form="csv"))) as server,
        pytest.raises(Unavailable, match="broke off"),
    ):
        lake(server).save("x", path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named_and_its_query_ends(tmp_path):
    with scripted_service(of_queries(chunked([WHOLE], form="csv"))) as server:
        with pytest.raises(InvalidInput, match=r"missing/rows\.csv cannot be written: No such file or directory"):
            lake(server).save("x", tmp_path / "missing" / "rows.csv")
        assert [each.method for each in server.asked] == ["POST", "DELETE"]
        with pytest.raises(InvalidInput, match=r"must end in one of \.arrow, \.csv, \.parquet: 'rows\.xlsx'"):
            lake(server).save("x", tmp_path / "rows.xlsx")
        assert len(server.asked) == 2, "a wrong name is refused before the query"


def test_parameters_and_cuts_are_in_the_request():
    when = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    with scripted_service(of_queries(chunked([WHOLE]))) as server:
        lake(server).sql("x", {"a": decimal.Decimal("1.50")}, as_of=[7, when], finalized_only=True, limit=5).close()
        body = server.asked[0].body.decode()
    assert '"parameters": {"a": {"type": "decimal", "value": "1.50"}}' in body
    assert '"as_of": [7, "2024-05-01T12:00:00+00:00"]' in body
    assert '"finalized_only": true, "limit": 5' in body
