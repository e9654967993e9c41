"""Metrics by OTLP over HTTP: what a process shows to Prometheus, sent to a collector instead."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

log = logging.getLogger(__name__)

_EXPORTER: Final = "OTEL_METRICS_EXPORTER"
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
_USUAL_SECONDS: Final = 60.0
_LEAST_SECONDS: Final = 0.1
_SEND_SECONDS: Final = 10.0
_LAST_SECONDS: Final = 2.0
"""How long sending the last figures may take: a collector that is away must not hold up the end."""


@asynccontextmanager
async def metrics_sent(
    environment: Mapping[str, str], families: Callable[[], Iterable[Any]], **about: str
) -> AsyncIterator[None]:
    """Send metrics for the duration of the block, if the environment says so, and once more at its end.

    Args:
        environment: of OpenTelemetry's SDK: `OTEL_METRICS_EXPORTER=otlp`, or an endpoint for metrics.
        families: collects the metric families of `prometheus_client`; called in this event loop.
        about: attributes of the process, with `_` for the dots in their names.
    """
    if environment.get(_EXPORTER, "none" if not environment.get(_ENDPOINT) else "otlp") != "otlp":
        yield
        return
    try:
        sender = _Sender({name.replace("_", "."): text for name, text in about.items()})
    except ImportError as error:
        log.warning("metrics not sent", extra={"error": str(error), "hint": "install galley-tasks[otel]"})
        yield
        return
    sending = asyncio.create_task(_send(sender, families, _seconds(environment)), name="metrics by OTLP")
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        await sender.send(families, _LAST_SECONDS)


def _seconds(environment: Mapping[str, str]) -> float:
    try:
        return max(_LEAST_SECONDS, int(environment.get(_INTERVAL, "")) / 1000)
    except ValueError:
        return _USUAL_SECONDS


async def _send(sender: "_Sender", families: Callable[[], Iterable[Any]], seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await sender.send(families, _SEND_SECONDS)


class _Sender:
    """Turns families of `prometheus_client` into data of OTLP, and sends them."""

    def __init__(self, about: Mapping[str, str]) -> None:
        """Args: about: attributes of the process.

        Raises:
            ImportError: OpenTelemetry's SDK is not installed.
        """
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - the extra `otel`
            OTLPMetricExporter,
        )
        from opentelemetry.sdk.metrics import export  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        self._otel, self._exporter = export, OTLPMetricExporter()
        self._resource, self._scope = Resource.create(dict(about)), InstrumentationScope("galley")
        self._began = time.time_ns()

    async def send(self, families: Callable[[], Iterable[Any]], seconds: float) -> None:
        """Send what the families are now; what cannot be sent is in the log, and goes with the next."""
        otel = self._otel
        try:
            data = self._data(families())
            async with asyncio.timeout(seconds):
                done = await asyncio.to_thread(self._exporter.export, data, timeout_millis=seconds * 1000)
        except TimeoutError:
            log.warning("metrics not sent", extra={"error": f"no answer within {seconds:g} s"})
        except Exception:  # whatever it is costs these metrics, neither the next ones nor the process
            log.exception("metrics not sent")
        else:
            if done is not otel.MetricExportResult.SUCCESS:
                log.warning("metrics not sent", extra={"error": "the collector did not take them"})

    def _data(self, families: Iterable[Any]) -> Any:
        otel, now = self._otel, time.time_ns()
        found = [metric for family in families if (metric := self._metric(family, now)) is not None]
        scope = otel.ScopeMetrics(self._scope, found, "")
        return otel.MetricsData([otel.ResourceMetrics(self._resource, [scope], "")])

    def _metric(self, family: Any, now: int) -> Any:
        otel, data = self._otel, None
        cumulative = otel.AggregationTemporality.CUMULATIVE
        if family.type == "histogram":
            data = otel.Histogram(self._histograms(family, now), cumulative)
        elif family.type == "counter":
            points = self._points(family, now, f"{family.name}_total")
            data = otel.Sum(points, cumulative, is_monotonic=True)
        elif family.type in {"gauge", "unknown", "info"}:
            data = otel.Gauge(self._points(family, now, f"{family.name}{'_info' * (family.type == 'info')}"))
        return otel.Metric(family.name, family.documentation, family.unit, data) if data else None

    def _points(self, family: Any, now: int, name: str) -> list[Any]:
        return [
            self._otel.NumberDataPoint(dict(sample.labels), self._began, now, sample.value)
            for sample in family.samples
            if sample.name == name
        ]

    def _histograms(self, family: Any, now: int) -> list[Any]:
        """Return a point for each set of labels; buckets of Prometheus count all below, those of OTLP not."""
        by_labels: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            key = sample.labels.get("le", sample.name.removeprefix(family.name))
            by_labels.setdefault(tuple(labels.items()), {})[key] = sample.value
        points = []
        for labels_of, values in by_labels.items():
            buckets = sorted((float(key), count) for key, count in values.items() if not key.startswith("_"))
            bounds, below = [bound for bound, _ in buckets], [count for _, count in buckets]
            each = [int(count - before) for count, before in zip(below, [0.0, *below[:-1]], strict=True)]
            total = int(below[-1]) if below else int(values.get("_count", 0))
            points.append(
                self._otel.HistogramDataPoint(
                    dict(labels_of), self._began, now, total, values.get("_sum", 0.0), each,
                    [bound for bound in bounds if bound != float("inf")], float("nan"), float("nan"),
                )
            )  # fmt: skip
        return points
