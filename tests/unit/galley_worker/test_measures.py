"""A worker's metrics, read as Prometheus reads them."""

from collections import Counter

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from galley.lanes import Lane
from galley_worker.measures import Measures

QUEUE = {"namespace": "default", "queue": "images"}
EACH = {
    "galley_events": "counter",
    "galley_events_held_back": "counter",
    "galley_attempts": "counter",
    "galley_attempt_seconds": "histogram",
    "galley_wait_seconds": "histogram",
    "galley_leases_lost": "counter",
    "galley_counts_given_up": "counter",
    "galley_retries_delayed": "counter",
    "galley_circuit_opened": "counter",
    "galley_circuit_open": "gauge",
    "galley_workflows_ended": "counter",
    "galley_workflow_seconds": "histogram",
    "galley_joins": "counter",
    "galley_batch_size": "histogram",
    "galley_life_events_missed": "counter",
    "galley_notes_dropped": "counter",
    "galley_cache_hits": "counter",
    "galley_cache_fetches": "counter",
    "galley_cache_fetched_bytes": "counter",
    "galley_attempts_failed_internally": "counter",
    "galley_worker_unexpected_errors": "counter",
    "galley_schedule_ticks": "counter",
    "galley_schedule_late_seconds": "gauge",
    "galley_slots": "gauge",
    "galley_slots_busy": "gauge",
}


@pytest.fixture
def busy() -> list[str]:
    """The attempts under way."""
    return []


@pytest.fixture
def measures(busy: list[str]) -> Measures:
    return Measures("default", "images", lambda: 4, lambda: len(busy))


def families(measures: Measures) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(measures.text().decode())}


def value(measures: Measures, sample: str, **labels: str) -> float | None:
    """Return the value of the one sample with exactly these labels, or None if there is none."""
    found = [
        given.value
        for family in families(measures).values()
        for given in family.samples
        if given.name == sample and given.labels == {**QUEUE, **labels}
    ]
    assert len(found) <= 1
    return found[0] if found else None


def test_each_metric_is_of_its_type_and_says_what_it_is(measures: Measures) -> None:
    measures.settled("Succeed", 0.1, Lane.NORMAL)
    found = families(measures)
    own = {name: family for name, family in found.items() if name.startswith("galley_")}
    assert {name: family.type for name, family in own.items()} == EACH
    for family in own.values():
        assert family.documentation.endswith("."), f"{family.name}: {family.documentation!r} is no sentence"


def test_every_sample_names_namespace_and_queue(measures: Measures) -> None:
    measures.settled("Succeed", 0.1, Lane.NORMAL)
    measures.lost(Lane.NORMAL)
    for name, family in families(measures).items():
        for sample in family.samples if name.startswith("galley_") else ():
            assert {**sample.labels, **QUEUE} == sample.labels


def test_attempts_are_counted_by_lane_and_verdict(measures: Measures) -> None:
    for lane, verdict, times in (
        (Lane.HIGH, "Succeed", 3), (Lane.HIGH, "RetryAt", 2), (Lane.LOW, "Succeed", 1),
    ):  # fmt: skip
        for _ in range(times):
            measures.settled(verdict, 0.1, lane)
    assert value(measures, "galley_attempts_total", lane="high", verdict="Succeed") == 3
    assert value(measures, "galley_attempts_total", lane="high", verdict="RetryAt") == 2
    assert value(measures, "galley_attempts_total", lane="low", verdict="Succeed") == 1
    assert value(measures, "galley_attempts_total", lane="low", verdict="RetryAt") is None


def test_durations_are_summed_and_sorted_into_buckets_by_lane(measures: Measures) -> None:
    for seconds in (0.004, 0.02, 40.0):
        measures.settled("Succeed", seconds, Lane.NORMAL)
    measures.settled("Succeed", 9000.0, Lane.LOW)
    name = "galley_attempt_seconds"
    assert value(measures, f"{name}_count", lane="normal") == 3
    assert value(measures, f"{name}_sum", lane="normal") == pytest.approx(40.024)
    for bound, count in (("0.005", 1), ("0.025", 2), ("15.0", 2), ("60.0", 3), ("+Inf", 3)):
        assert value(measures, f"{name}_bucket", lane="normal", le=bound) == count
    assert value(measures, f"{name}_bucket", lane="low", le="7200.0") == 0, "longer than two hours"
    assert value(measures, f"{name}_count", lane="low") == 1


def test_batches_are_sorted_by_their_size_for_each_handler(measures: Measures) -> None:
    measures.batch_sizes = lambda: {"store": Counter({1: 2, 40: 1, 1000: 1})}
    name = "galley_batch_size"
    for bound, count in (("1", 2), ("20", 2), ("50", 3), ("500", 3), ("+Inf", 4)):
        assert value(measures, f"{name}_bucket", handler="store", le=bound) == count
    assert value(measures, f"{name}_sum", handler="store") == 1042


def test_slots_are_read_when_asked_for(measures: Measures, busy: list[str]) -> None:
    assert value(measures, "galley_slots") == 4
    assert value(measures, "galley_slots_busy") == 0
    busy.append("t1")
    assert value(measures, "galley_slots_busy") == 1


def test_lost_leases_are_counted_from_a_visible_zero(measures: Measures) -> None:
    assert value(measures, "galley_leases_lost_total") == 0
    measures.lost(Lane.NORMAL)
    assert value(measures, "galley_leases_lost_total") == 1


def test_two_workers_in_one_process_do_not_share_their_counts(measures: Measures) -> None:
    Measures("default", "images", lambda: 1, lambda: 0).lost(Lane.NORMAL)
    assert value(measures, "galley_leases_lost_total") == 0
