"""The numbers of the query service, as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from trace_dagster.service.metrics import QueryMetrics


def samples(metrics):
    """Return the value of each sample by its name and the sorted values of its labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(each.name, *sorted(each.labels.values())): each.value for family in families for each in family.samples}


def test_queries_are_counted_by_outcome_and_format():
    metrics = QueryMetrics()
    metrics.ended("done", "arrow", 0.2, 1000, 64_000)
    metrics.ended("done", "arrow", 40, 10, 640)
    metrics.ended("refused", "json", 0.01)
    metrics.first_byte("arrow", 0.07)
    found = samples(metrics)
    assert found["trace_query_queries_total", "arrow", "done"] == 2
    assert found["trace_query_queries_total", "json", "refused"] == 1
    assert found["trace_query_rows_total", "arrow"] == 1010
    assert found["trace_query_bytes_total", "arrow"] == 64_640
    assert found["trace_query_seconds_bucket", "0.25", "arrow"] == 1
    assert found["trace_query_seconds_sum", "arrow"] == 40.2
    assert found["trace_query_first_byte_seconds_count", "arrow"] == 1


def test_gauges_are_read_when_they_are_asked_for():
    metrics = QueryMetrics()
    waiting = [1, 2, 3]
    metrics.watch("waiting", "Queries that wait.", lambda: len(waiting))
    assert samples(metrics)["trace_query_waiting",] == 3
    waiting.clear()
    assert samples(metrics)["trace_query_waiting",] == 0


def test_denials_are_counted_by_reason():
    metrics = QueryMetrics()
    metrics.denied("token")
    metrics.denied("token")
    assert samples(metrics)["trace_query_denials_total", "token"] == 2


def test_two_services_in_one_process_count_apart():
    one, other = QueryMetrics(), QueryMetrics()
    one.denied("rights")
    assert ("trace_query_denials_total", "rights") not in samples(other)
