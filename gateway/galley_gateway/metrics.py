"""Figures of the gateway for Prometheus."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from galley.logs import tracebacks
from galley.series import Kind, Series

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS: Final = Series(
    "galley_gateway_requests_total", Kind.COUNTER, "Requests of the API, by operation and status.",
    ("operation", "status"),
)  # fmt: skip
SECONDS: Final = Series(
    "galley_gateway_request_seconds", Kind.HISTOGRAM,
    "Time to answer a request of the API that does not wait for a task.", ("operation",),
)  # fmt: skip
WAITS: Final = Series(
    "galley_gateway_waits", Kind.GAUGE, "Requests that wait for tasks or follow something, now."
)
DROPPED: Final = Series(
    "galley_gateway_events_dropped_total", Kind.COUNTER,
    "Events of topics that came faster than they were read from a stream.",
)  # fmt: skip
UNEXPECTED: Final = Series(
    "galley_gateway_unexpected_errors_total", Kind.COUNTER,
    "Exceptions logged with a traceback, by the part that raised them, or the logger: each is a bug.",
    ("where",),
)  # fmt: skip
SERIES: Final = (REQUESTS, SECONDS, WAITS, DROPPED, UNEXPECTED)


class _Unexpected(Collector):
    """The exceptions in the log of this process, in whichever part of it."""

    def collect(self) -> Iterable[Metric]:
        found = CounterMetricFamily(
            UNEXPECTED.name.removesuffix("_total"), UNEXPECTED.meaning, labels=UNEXPECTED.labels
        )
        for where, count in tracebacks().items():
            found.add_metric([where], count)
        yield found


class GatewayMetrics:
    """What one gateway process counts."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(REQUESTS.name, REQUESTS.meaning, REQUESTS.labels, registry=registry)
        self.seconds = Histogram(
            SECONDS.name, SECONDS.meaning, SECONDS.labels, buckets=_SECONDS, registry=registry
        )
        self.waits = Gauge(WAITS.name, WAITS.meaning, registry=registry)
        self.dropped = Counter(DROPPED.name, DROPPED.meaning, registry=registry)
        registry.register(_Unexpected())

    def families(self) -> Iterable[Metric]:
        """Return the figures for OTLP."""
        return self._registry.collect()

    def page(self) -> bytes:
        """Return the page for Prometheus."""
        return generate_latest(self._registry)
