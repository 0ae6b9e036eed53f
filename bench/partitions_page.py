"""Loading the code location and an asset's partitions page in a real Dagster web server, relative to stock Dagster.

Stock means plain ``@asset``s over the same partition keys, with as many materializations, in the same storage. The page
is the query that the UI sends for it, taken from the web server's own bundle.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from dagster import AssetKey, AssetMaterialization, DagsterInstance

from trace_dagster.defs.materializations import materialization
from trace_dagster.defs.streams import asset_key
from trace_dagster.lite.ports import HOST, Ports
from trace_dagster.lite.processes import Child, Service
from trace_dagster.registry.publications import Publication
from trace_dagster.registry.streams import StreamRow

OURS, STOCK = "trace_dagster", "stock"
STOCK_MODULE = """
from dagster import AssetsDefinition, Definitions, DynamicPartitionsDefinition, asset

def made(number: int) -> AssetsDefinition:
    @asset(name=f"stock_{{number}}", partitions_def=DynamicPartitionsDefinition(name={partitions!r}))
    def stock() -> None: ...
    return stock

defs = Definitions(assets=[made(number) for number in range({assets})])
"""
PAGE = """
query PartitionHealthQuery($assetKey: AssetKeyInput!) {
  assetNodeOrError(assetKey: $assetKey) { ... on AssetNode {
    id
    partitionKeysByDimension { name type partitionKeys }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
      materializedPartitions materializingPartitions failedPartitions } } } }
}
"""
RELOAD = """
mutation Reload($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } } }
}
"""
_COPY_EVENTS = """
insert into dagster.event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
select e.run_id, replace(e.event, e.partition, p.partition), e.dagster_event_type, e.timestamp, e.step_key, e.asset_key,
       p.partition
from dagster.event_logs e
join dagster.dynamic_partitions p on p.partitions_def_name = %(partitions)s and p.partition <> e.partition
where e.asset_key = %(asset_key)s order by p.id
"""


def materialize_all(
    url: str, instance: DagsterInstance, stream: StreamRow, partitions: str, published: Publication
) -> None:
    """Store one real event for our asset and for stock's, then a copy of each for every partition."""
    ours = asset_key(stream.chain_id, stream.dataset_key)
    stock = AssetKey(["stock_0"])
    instance.report_runless_asset_event(materialization(ours, published))
    instance.report_runless_asset_event(AssetMaterialization(stock, partition=published.block_range.key))
    with psycopg.connect(url, autocommit=True) as connection:
        for key in (ours, stock):
            connection.execute(_COPY_EVENTS, {"partitions": partitions, "asset_key": key.to_string()})
        connection.execute("vacuum analyze")


def paired(
    home: Path, environment: Mapping[str, str], stream: StreamRow, partitions: str, assets: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return ``(our seconds, stock's seconds)`` of each step in ``rounds``, in alternating order."""
    (home / "stock.py").write_text(STOCK_MODULE.format(partitions=partitions, assets=assets))
    pages = {OURS: asset_key(stream.chain_id, stream.dataset_key).path, STOCK: ["stock_0"]}
    steps: dict[str, dict[str, list[float]]] = {}
    with web_server(home, environment) as url:
        for number in range(rounds + 1):
            for name, path in sorted(pages.items(), reverse=number % 2 == 0):  # the sides alternate in who is first
                times = {
                    "load the code location": _timed(url, RELOAD, {"name": name}, '"RepositoryLocation"'),
                    "the asset's partitions page": _timed(
                        url, PAGE, {"assetKey": {"path": path}}, '"materializedPartitions":["'
                    ),
                }
                for step, seconds in times.items():
                    if number:  # the first round fills caches
                        steps.setdefault(step, {}).setdefault(name, []).append(seconds)
    return {step: list(zip(found[OURS], found[STOCK], strict=True)) for step, found in steps.items()}


@contextmanager
def web_server(home: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a web server over both locations; yield its address."""
    locations = [
        {"python_module": {"module_name": "trace_dagster.definitions", "location_name": OURS}},
        {"python_file": {"relative_path": str(home / "stock.py"), "location_name": STOCK}},
    ]
    (home / "workspace.yaml").write_text(json.dumps({"load_from": locations}))
    port = Ports({}).take()
    url = f"http://{HOST}:{port}/graphql"
    service = Service(
        name="web-server",
        command=[sys.executable, "-m", "dagster_webserver", "-h", HOST, "-p", str(port), "-w", "workspace.yaml"],
        environment={**os.environ, **environment, "DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore"},
        healthy=lambda: _answers(url),
        folder=home,
        start_seconds=120.0,
    )
    child = Child(service, home / "web-server.log")
    try:
        child.wait_healthy()
        yield url
    finally:
        child.signal_stop()
        child.wait_stopped(30)


def _answers(url: str) -> bool:
    try:
        return "version" in _ask(url, "{ version }", {})
    except OSError:
        return False


def _timed(url: str, query: str, variables: Mapping[str, Any], expected: str) -> float:
    started = time.perf_counter()
    answer = _ask(url, query, variables)
    seconds = time.perf_counter() - started
    if expected not in answer or '"errors"' in answer:
        sys.exit(f"error: the web server answers {answer[:500]}")
    return seconds


def _ask(url: str, query: str, variables: Mapping[str, Any]) -> str:
    request = urllib.request.Request(
        url, json.dumps({"query": query, "variables": variables}).encode(), {"content-type": "application/json"}
    )
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # an HTTP proxy cannot reach this machine's loopback
    with direct.open(request, timeout=300) as answer:
        return str(answer.read().decode())
