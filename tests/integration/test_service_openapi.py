"""The service answers as its OpenAPI document says: requests that the document allows, and such that it does not."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.service import running_service, small_lake

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
EXAMPLES = int(os.environ.get("TRACE_FAULTS_EXAMPLES", "25"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
OPERATIONS = [
    "POST /v1/query",
    "GET /v1/queries/{query_id}",
    "DELETE /v1/queries/{query_id}",
    "GET /v1/datasets",
    "GET /v1/datasets/{key}",
    "GET /v1/datasets/{key}/files",
    "GET /v1/changes",
    "GET /healthz",
    "GET /metrics",
    "POST /v1/login",
    "POST /v1/logout",
]


MODES = [(name, mode) for name in OPERATIONS for mode in ("positive", "negative")]
NOTHING_TO_GET_WRONG = {"GET /v1/datasets", "GET /healthz", "GET /metrics", "POST /v1/logout"}
"""They take neither a body nor a parameter."""


@pytest.fixture(scope="module")
def service(postgres, template_database, s3_server):
    with small_lake(postgres, template_database, s3_server, 40) as lake, running_service(*lake) as running:
        yield running


@pytest.fixture(scope="module")
def document(service):
    config = schemathesis.Config.from_dict({"generation": {"allow-x00": True}})
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=config)


def test_the_document_has_these_operations(document):
    found = [f"{each.ok().method.upper()} {each.ok().path}" for each in document.get_all_operations()]
    assert sorted(found) == sorted(OPERATIONS)


@pytest.mark.parametrize(
    ("name", "mode"), [each for each in MODES if each[1] == "positive" or each[0] not in NOTHING_TO_GET_WRONG]
)
def test_every_answer_is_a_documented_one(service, document, name, mode):
    method, _, path = name.partition(" ")
    operation = document[path][method]
    statuses: Counter[int] = Counter()
    cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=cases)
    def ask(case):
        if "wait" in (case.query or {}):
            case.query["wait"] = 0
        if name == "POST /v1/query" and mode == "positive" and statuses.total() % 2:
            case.body["sql"] = "select block_number, block_hash from blocks"  # random text is no SQL
        if "{key}" in path and mode == "positive" and statuses.total() % 2:
            case.path_parameters["key"] = "blocks"
        headers = {} if statuses.total() % 7 == 6 else service.authorization()
        response = case.call(headers=headers, timeout=60)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()
    print(f"{name}, {mode}: {dict(statuses)}")
    assert statuses
    if name == "POST /v1/query" and mode == "positive":
        assert statuses[200], "no query ran"
