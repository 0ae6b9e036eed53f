"""The counters of a gateway: JSON for the command line, Prometheus text for scrapers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from trace_dagster.gateway.counters import BUCKETS, CallCounters
from trace_dagster.gateway.endpoint_client import EndpointClient

_COUNTERS = tuple(field.name for field in fields(CallCounters) if field.name != "latency")
_GAUGES = ("rate", "limit", "under_way", "queued", "batch_size", "is_down", "is_subscribed")
_PREFIX = "trace_gateway"
_LABELS = ("endpoint",)


def status_of(clients: Iterable[EndpointClient], cache_bytes: int) -> dict[str, Any]:
    """Return plain JSON values; ``rate`` and ``limit`` in calls per second, null if there is no limit."""
    endpoints = {
        client.name: _counters(client) | _gauges(client) | {"seconds_in_all": _seconds(client)} for client in clients
    }
    return {"kept_bytes": cache_bytes, "endpoints": endpoints}


class GatewayCollector(Collector):
    """Reads a gateway's counters when Prometheus scrapes them. Endpoints are labelled by name, never by URL."""

    def __init__(self, clients: Callable[[], Iterable[EndpointClient]], cache_bytes: Callable[[], int]) -> None:
        self._clients = clients
        self._cache_bytes = cache_bytes

    def collect(self) -> Iterator[Metric]:
        """Yield ``trace_gateway_*``: counters, gauges, and the latency histogram, each labelled by endpoint."""
        clients = list(self._clients())
        yield GaugeMetricFamily(f"{_PREFIX}_kept_bytes", "Bytes of answers in the cache.", self._cache_bytes())
        for name in _COUNTERS:
            counter = CounterMetricFamily(f"{_PREFIX}_{name}", _words(name), labels=_LABELS)
            for client in clients:
                counter.add_metric([client.name], _counters(client)[name])
            yield counter
        for name in _GAUGES:
            gauge = GaugeMetricFamily(f"{_PREFIX}_{name}", _words(name), labels=_LABELS)
            for client in clients:
                if (value := _gauges(client)[name]) is not None:
                    gauge.add_metric([client.name], float(value))
            yield gauge
        yield _latency(clients)


def exposition(collector: GatewayCollector) -> bytes:
    """Return the collector's metrics in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _counters(client: EndpointClient) -> dict[str, int]:
    return {name: getattr(client.counters, name) for name in _COUNTERS}


def _gauges(client: EndpointClient) -> dict[str, Any]:
    return {
        "rate": client.rate_limiter.rate,
        "limit": client.rate_limiter.limit,
        "under_way": client.under_way,
        "queued": client.queued,
        "batch_size": client.batch_size,
        "is_down": client.is_down,
        "is_subscribed": client.is_subscribed,
    }


def _latency(clients: Iterable[EndpointClient]) -> Metric:
    family = HistogramMetricFamily(
        f"{_PREFIX}_request_seconds", "Latency of HTTP requests that were answered.", labels=_LABELS
    )
    bounds = [*map(str, BUCKETS), "+Inf"]
    for client in clients:
        histogram = client.counters.latency
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric([client.name], buckets, histogram.total_seconds)
    return family


def _seconds(client: EndpointClient) -> float:
    return round(client.counters.latency.total_seconds, 3)


def _words(name: str) -> str:
    return f"{name.replace('_', ' ').capitalize()}, see docs/operations.md."
