"""JSON of another shape behind the URL: the client names it, whatever is missing in it or has a wrong type."""

from __future__ import annotations

import copy
import json

import pytest

from tests.support.scripted_service import reply, scripted_service
from tests.unit.test_client_changes import change
from trace_dagster.cli.query import Question, ask_service
from trace_dagster.client.lake import ConnectedLake
from trace_dagster.client.service_http import ServiceHttp
from trace_dagster.errors import InvalidInput

DATASET = {
    "name": "chain_1.blocks",
    "short_name": None,
    "chain_id": 1,
    "kind": "stream",
    "columns": [{"name": "block_number", "type": "BIGINT", "description": None}],
    "rows": 2,
    "coverage": {"first_block": 0, "last_block": 1, "hot_from": None, "missing_blocks": 0},
    "freshness": {"last_block_time": "2024-05-01T12:00:00+00:00", "age_seconds": 0.5},
}
ANSWERS = {
    "json": {"query_id": "q", "columns": [{"name": "a", "type": "BIGINT"}], "rows": [[1], [2]], "truncated": False},
    "dataset": DATASET,
    "datasets": {"datasets": [DATASET]},
    "files": {
        "cursor": "1-0-ab",
        "dataset": "chain_1.blocks",
        "from_block": 0,
        "to_block": 2,
        "hot_from": None,
        "last_committed": 1,
        "files": [{"uri": "s3://lake/file"}],
    },
    "changes": {"changes": [change(1)], "cursor": "0"},
    "cursor": {"cursor": "1-0-ab"},
}
ASK = {
    "json": lambda lake: lake.json("select 1"),
    "dataset": lambda lake: lake.dataset("blocks"),
    "datasets": lambda lake: lake.datasets(),
    "files": lambda lake: lake.files("blocks"),
    "changes": lambda lake: list(lake.changes()),
    "cursor": lambda lake: lake.cursor(),
}
NULLABLE = {
    *("short_name", "description", "first_block", "last_block", "last_block_time", "age_seconds", "hot_from"),
    *("last_committed", "generation", "dataset_version", "layout_id", "block_hash", "reason"),
}
UNREAD = {"a_later_member", "uri"}


def answering(document):
    return scripted_service(lambda _: reply(200, json.dumps(document).encode()))


def refused():
    return pytest.raises(InvalidInput, match="does not answer as a query service")


def lake(server):
    return ConnectedLake(ServiceHttp(server.url, None, timeout_seconds=5))


def places(document, path=()):
    """Yield the path and value of each member and item within a JSON value."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*path, key), value
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def put(document, path, value):
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def damaged():
    """Yield each answer with one value of another type, or null in its place."""
    for name, document in ANSWERS.items():
        for path, value in places(document):
            if path[-1] in UNREAD or (path[0] == "rows" and len(path) == 3):
                continue
            others = ["text" if isinstance(value, int | float) else True]
            for other in others if path[-1] in NULLABLE else [*others, None]:
                yield pytest.param(name, put(document, path, other), id=f"{name} {path} {other}")


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answers_that_are_damaged_here_are_well_otherwise(name):
    with answering(ANSWERS[name]) as server:
        ASK[name](lake(server))


@pytest.mark.parametrize(("name", "document"), list(damaged()))
def test_each_value_of_another_type_is_noticed(name, document):
    with answering(document) as server, refused():
        ASK[name](lake(server))


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize(
    "document",
    [
        {"a": 1},
        {"columns": 5, "rows": 7, "truncated": False},
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "invalid request"}},
        [],
        [1],
        None,
        7,
        "text",
    ],
    ids=str,
)
def test_another_document_is_noticed(name, document):
    with answering(document) as server, refused():
        ASK[name](lake(server))


@pytest.mark.parametrize("rows", [[[1], [2, 3]], [[]], [1], [{"a": 1}]])
def test_rows_of_another_width_are_noticed(rows):
    with answering(ANSWERS["json"] | {"rows": rows}) as server, refused():
        lake(server).json("select 1")


@pytest.mark.parametrize("snapshot", [5, "text", []])
def test_a_snapshot_is_an_object_if_there_is_one(snapshot):
    with answering(ANSWERS["json"] | {"snapshot": snapshot}) as server, refused():
        lake(server).json("select 1")


def test_an_answer_without_a_snapshot_is_printed(capsys):
    question = Question("select 1", "table", None, {}, (), False, None)
    with answering(ANSWERS["json"] | {"snapshot": None}) as server:
        ask_service(lake(server), question)
    assert "BIGINT" not in capsys.readouterr().err
