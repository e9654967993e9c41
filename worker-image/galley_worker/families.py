"""The metrics of a worker as families of Prometheus's library."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from galley.broker.counts import Times
from galley.series import Series

SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Upper bounds of the buckets of batch sizes."""


class Families:
    """Makes families of one queue.

    Args:
        queue: the namespace and the name, which all samples begin with.
    """

    def __init__(self, queue: tuple[str, str]) -> None:
        self._queue = queue

    def counter(self, series: Series, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        """Return a counter with its values by labels."""
        name = series.name.removesuffix("_total")
        counter = CounterMetricFamily(name, series.meaning, labels=series.labels)
        for labels, value in samples:
            counter.add_metric((*self._queue, *labels), value)
        return counter

    def gauge(self, series: Series, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        """Return a gauge with its values by labels."""
        gauge = GaugeMetricFamily(series.name, series.meaning, labels=series.labels)
        for labels, value in samples:
            gauge.add_metric((*self._queue, *labels), value)
        return gauge

    def sizes(self, series: Series, handlers: Mapping[str, Counter[int]]) -> Metric:
        """Return a histogram of how often each size of a batch occurred, by handler."""
        histogram = HistogramMetricFamily(series.name, series.meaning, labels=series.labels)
        for handler, sizes in handlers.items():
            buckets: list[tuple[str, float]] = [
                (str(edge), sum(count for size, count in sizes.items() if size <= edge)) for edge in SIZES
            ]
            tasks = sum(size * count for size, count in sizes.items())
            histogram.add_metric((*self._queue, handler), [*buckets, ("+Inf", sizes.total())], tasks)
        return histogram

    def histogram(self, series: Series, lanes: Mapping[str, Times]) -> Metric:
        """Return a histogram of times, by lane or another label."""
        histogram = HistogramMetricFamily(series.name, series.meaning, labels=series.labels)
        for lane, times in lanes.items():
            histogram.add_metric((*self._queue, lane), times.buckets, times.seconds)
        return histogram


class _Collected(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


def text_of(collect: Callable[[], Iterable[Metric]]) -> bytes:
    """Return metrics, with those of this process, in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Collected(collect))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
