"""Metrics by OTLP arrive at a receiver as they are shown to Prometheus."""

import asyncio
import logging
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary

from galley import otlp_metrics
from galley.otlp_metrics import metrics_sent


class Receiver:
    """A receiver of OTLP over HTTP, in this process."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.status = 200
        receiver = self

        class Receive(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status == 200:
                    receiver.requests.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receive)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def last(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the attributes of the process, and the metrics by name."""
        [resource] = self.requests[-1].resource_metrics
        about = {each.key: each.value.string_value for each in resource.resource.attributes}
        return about, {each.name: each for scope in resource.scope_metrics for each in scope.metrics}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the last figures more time than a busy machine takes."""
    monkeypatch.setattr(otlp_metrics, "_LAST_SECONDS", 60.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Counter("galley_tasks", "Tasks", ["lane"], registry=found).labels("high").inc(7)
    Gauge("galley_waiting", "Waiting", registry=found).set(3)
    seconds = Histogram("galley_seconds", "Seconds", ["lane"], buckets=(0.1, 1), registry=found)
    for value in (0.05, 0.5, 0.6, 5):
        seconds.labels("low").observe(value)
    Info("galley_build", "Build", registry=found).info({"version": "1"})
    Summary("galley_left_out", "OTLP has no such thing", registry=found).observe(1)
    return found


async def test_each_kind_of_figure_arrives_with_its_labels(
    receiver: Receiver, registry: CollectorRegistry
) -> None:
    async with metrics_sent(
        {"OTEL_METRICS_EXPORTER": "otlp"}, registry.collect, service_name="galley-worker"
    ):
        assert receiver.requests == []
    about, found = receiver.last()
    assert about["service.name"] == "galley-worker"
    assert set(found) == {"galley_tasks", "galley_waiting", "galley_seconds", "galley_build"}
    [tasks] = found["galley_tasks"].sum.data_points
    assert (tasks.as_double, tasks.attributes[0].value.string_value) == (7, "high")
    assert found["galley_tasks"].sum.is_monotonic
    assert found["galley_waiting"].gauge.data_points[0].as_double == 3
    [seconds] = found["galley_seconds"].histogram.data_points
    assert (list(seconds.bucket_counts), list(seconds.explicit_bounds)) == ([1, 2, 1], [0.1, 1])
    assert (seconds.count, math.isclose(seconds.sum, 6.15)) == (4, True)
    assert found["galley_build"].gauge.data_points[0].attributes[0].value.string_value == "1"


async def test_they_are_sent_again_and_again(receiver: Receiver, registry: CollectorRegistry) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "set", "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }  # fmt: skip
    async with asyncio.timeout(30), metrics_sent(environment, registry.collect):
        while len(receiver.requests) < 2:  # noqa: ASYNC110 - it does not tell
            await asyncio.sleep(0.01)


async def test_metrics_that_cannot_be_collected_cost_neither_the_next_ones_nor_the_process(
    receiver: Receiver, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "set", "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }  # fmt: skip
    broken = True

    def families() -> Any:
        return 1 / 0 if broken else registry.collect()

    async with asyncio.timeout(30), metrics_sent(environment, families):
        while "ZeroDivisionError" not in caplog.text:  # noqa: ASYNC110 - it does not tell
            await asyncio.sleep(0.01)
        broken = False
        while not receiver.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        broken = True


@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_METRICS_EXPORTER": "none"}, {"OTEL_METRICS_EXPORTER": "x"}]
)
async def test_without_being_asked_for_nothing_is_sent(
    receiver: Receiver, registry: CollectorRegistry, environment: dict[str, str]
) -> None:
    async with metrics_sent(environment, registry.collect):
        pass
    assert receiver.requests == []


async def test_a_collector_that_refuses_or_is_away_is_in_the_log(
    receiver: Receiver,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "wrong"}
    caplog.set_level(logging.WARNING, "galley.otlp_metrics")
    receiver.status = 400
    async with metrics_sent(environment, registry.collect):
        pass
    monkeypatch.setattr(otlp_metrics, "_LAST_SECONDS", 0.3)
    receiver.status = 503  # it is asked again, until the time is over
    async with metrics_sent(environment, registry.collect):
        pass
    said = [
        str(record.__dict__["error"]) for record in caplog.records if record.name == "galley.otlp_metrics"
    ]
    assert said[0] == "the collector did not take them"
    assert len(said) == 2


async def test_without_the_package_it_is_said_what_to_install(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    async with metrics_sent({"OTEL_METRICS_EXPORTER": "otlp"}, registry.collect):
        pass
    assert caplog.records[-1].__dict__["hint"] == "install galley-tasks[otel]"
