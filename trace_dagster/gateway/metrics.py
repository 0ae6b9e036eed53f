"""What a gateway shows of itself: JSON for people's tools, Prometheus text for scrapers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from itertools import accumulate
from typing import Any

from trace_dagster.gateway.counters import BUCKETS, Counts, Histogram
from trace_dagster.gateway.upstream import Upstream

_COUNTERS = tuple(field.name for field in fields(Counts) if field.name != "latency")
_GAUGES = ("rate", "limit", "under_way", "queued", "batch_size", "is_down")
_PREFIX = "trace_gateway"


def status_of(upstreams: Iterable[Upstream], kept_bytes: int) -> dict[str, Any]:
    """Plain JSON values; ``rate`` and ``limit`` in calls a second, null where there is none."""
    endpoints = {
        upstream.name: _counters(upstream) | _gauges(upstream) | {"seconds_in_all": _seconds(upstream)}
        for upstream in upstreams
    }
    return {"kept_bytes": kept_bytes, "endpoints": endpoints}


def metrics_of(upstreams: Iterable[Upstream], kept_bytes: int) -> str:
    """Prometheus's text format."""
    upstreams = list(upstreams)
    lines = [f"# TYPE {_PREFIX}_kept_bytes gauge", f"{_PREFIX}_kept_bytes {kept_bytes}"]
    for name in _COUNTERS:
        lines.append(f"# TYPE {_PREFIX}_{name}_total counter")
        lines += [f"{_PREFIX}_{name}_total{_label(each)} {_counters(each)[name]}" for each in upstreams]
    for name in _GAUGES:
        lines.append(f"# TYPE {_PREFIX}_{name} gauge")
        values = [(each, _gauges(each)[name]) for each in upstreams]
        lines += [f"{_PREFIX}_{name}{_label(each)} {float(value)}" for each, value in values if value is not None]
    lines.append(f"# TYPE {_PREFIX}_request_seconds histogram")
    for each in upstreams:
        lines += _histogram(each.name, each.counts.latency)
    return "\n".join(lines) + "\n"


def _counters(upstream: Upstream) -> dict[str, int]:
    return {name: getattr(upstream.counts, name) for name in _COUNTERS}


def _gauges(upstream: Upstream) -> dict[str, Any]:
    return {
        "rate": upstream.pace.rate,
        "limit": upstream.pace.limit,
        "under_way": upstream.under_way,
        "queued": upstream.queued,
        "batch_size": upstream.batch_size,
        "is_down": upstream.is_down,
    }


def _seconds(upstream: Upstream) -> float:
    return round(upstream.counts.latency.total_seconds, 3)


def _label(upstream: Upstream) -> str:
    return f'{{endpoint="{upstream.name}"}}'


def _histogram(name: str, histogram: Histogram) -> list[str]:
    bounds = [*map(str, BUCKETS), "+Inf"]
    running = list(accumulate(histogram.counts))
    label = f'endpoint="{name}"'
    return [
        *(
            f'{_PREFIX}_request_seconds_bucket{{{label},le="{bound}"}} {count}'
            for bound, count in zip(bounds, running, strict=True)
        ),
        f"{_PREFIX}_request_seconds_sum{{{label}}} {histogram.total_seconds}",
        f"{_PREFIX}_request_seconds_count{{{label}}} {running[-1]}",
    ]
