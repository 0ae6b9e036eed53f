"""The service while its registry or its object store is away: which part it names, how soon, and that it recovers."""

import re
import time
from dataclasses import replace

import pytest

from tests.conftest import cloned_database, fresh_bucket
from tests.support.events import EventClient
from tests.support.service import running_service
from tests.support.tcp_door import Door
from trace_dagster.registry.connection import Database

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(postgres, template_database, s3_server):
    """Return a service whose registry and object store are behind doors."""
    with cloned_database(*postgres, template_database) as url, fresh_bucket(s3_server) as access:
        port = int(re.search(r":(\d+)/", url)[1])
        registry, store = Door(port), Door(access.port)
        behind = replace(access, endpoint=f"http://127.0.0.1:{store.port}")
        with running_service(url.replace(f":{port}/", f":{registry.port}/"), behind) as service:
            service.registry, service.store, service.direct = registry, store, Database(url)
            yield service
            service.direct.close()
        registry.close()
        store.close()


def health(served):
    answer = served.ask("/healthz", token=None)
    return answer.status, answer.json()["away"]


def eventually_ok(served):
    end = time.monotonic() + 30
    while (found := health(served)) != (200, []):
        assert time.monotonic() < end, found
        time.sleep(0.3)


@pytest.mark.parametrize("state", ["refused", "silent"])
@pytest.mark.parametrize("part", ["registry", "store"])
def test_the_part_that_is_away_is_named_soon_and_found_again(served, part, state):
    eventually_ok(served)
    getattr(served, part).take_away(state)
    time.sleep(1.1)  # an answer is kept for a second
    begun = time.monotonic()
    assert health(served) == (503, ["registry" if part == "registry" else "object_store"])
    assert time.monotonic() - begun < 6
    getattr(served, part).bring_back()
    eventually_ok(served)


def test_without_a_registry_routes_say_so_and_streams_end(served):
    eventually_ok(served)
    with EventClient(served, "after=now") as client:
        next(client.events())
        served.registry.take_away("refused")
        *_, last = client.events(20)
        assert client.is_whole
        assert last.comment.startswith("the stream ends")
    for path in ("/v1/datasets", "/v1/datasets/logs/files", "/v1/changes", "/metrics"):
        answer = served.ask(path)
        assert (answer.status, answer.error["code"]) == (503, "unavailable")
    served.registry.bring_back()
    eventually_ok(served)
    assert served.ask("/v1/changes?after=now").status == 200


def test_processes_that_do_not_start_are_named_until_they_do(served, monkeypatch):
    eventually_ok(served)
    pool = served.parts.runner.pool

    def refused(*_):
        raise OSError("no process can be made")

    monkeypatch.setattr(pool, "_start", refused)
    served.rows("select 1")  # by a process that waited; it is not replaced
    time.sleep(1.1)
    assert health(served) == (503, ["processes"])
    monkeypatch.undo()
    eventually_ok(served)
    numbers = served.ask("/metrics").body.decode()
    assert f"trace_query_processes_started {float(pool.started)}" in numbers
    assert f"trace_query_processes_ready {float(pool.ready)}" in numbers
