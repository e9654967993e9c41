"""Figures of the gateway for Prometheus."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class GatewayMetrics:
    """What one gateway process counts."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "galley_gateway_requests_total",
            "Requests of the API, by operation and status",
            ["operation", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "galley_gateway_request_seconds",
            "Time to answer a request of the API that does not wait for a task",
            ["operation"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.waits = Gauge(
            "galley_gateway_waits", "Requests that wait for tasks or follow something", registry=registry
        )

    def families(self) -> Iterable[Metric]:
        """Return the figures for OTLP."""
        return self._registry.collect()

    def page(self) -> bytes:
        """Return the page for Prometheus."""
        return generate_latest(self._registry)
