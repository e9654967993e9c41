"""The figures of topics for Prometheus: what queues missed."""

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from galley.missed import Missed
from galley.series import Kind, Series

MISSED: Final = Series(
    "galley_topic_missed_events_total", Kind.COUNTER,
    "Events of a topic that a queue missed, by reason: `failed` became dead letters, and the retention of "
    "`expired` ended before they were copied.",
    ("namespace", "topic", "queue", "reason"),
)  # fmt: skip

SERIES: Final = (MISSED,)


class TopicFigures(Collector):
    """What is known of the topics of all namespaces."""

    def __init__(self) -> None:
        self._missed: dict[str, Mapping[tuple[str, str], Missed]] = {}

    def take(self, namespace: str, missed: Mapping[tuple[str, str], Missed]) -> None:
        """Take in what was missed of the topics of a namespace, by topic and queue."""
        self._missed[namespace] = missed

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics for the library."""
        counter = CounterMetricFamily(
            MISSED.name.removesuffix("_total"), MISSED.meaning, labels=MISSED.labels
        )
        for namespace, missed in self._missed.items():
            for (topic, queue), each in missed.items():
                counter.add_metric((namespace, topic, queue, "failed"), each.failed)
                counter.add_metric((namespace, topic, queue, "expired"), each.expired)
        yield counter
