"""The figures of queues as Prometheus reads them, and how they are kept."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from docs.generate.metrics import EVERY
from galley.backlog import LaneBacklog, QueueBacklog, Totals, Usage
from galley.broker import counts
from galley.broker.counts import Counted, CountReader, Outbox
from galley.broker.signals import SignalReader
from galley.broker.stream_listing import LISTING_SECONDS
from galley.lanes import Lane
from galley.resources.queue_status import ScalingLimit
from galley.series import Kind, Series
from galley_gateway.metrics import SERIES, GatewayMetrics
from galley_operator import broker_figures, figures, operator, topic_figures
from galley_operator import metrics as operator_metrics
from galley_operator.figures import CountKeeper, FiguresOfQueues
from galley_operator.metrics import OperatorMetrics
from galley_worker import measures
from galley_worker.measures import Measures
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE = ("default", "images")
BACKLOG = QueueBacklog(
    (
        LaneBacklog(Lane.HIGH, 3, 1, NOW - timedelta(seconds=90)),
        LaneBacklog(Lane.NORMAL, 0, 2),
    ),
    later=7,
    usage=(Usage("backlog", 5, 1000),),
    paused=True,
    keyed=6,
    keyed_for="permit",
    totals=Totals(submitted=40, dead_letters=9, dead=4, counts=1),
)


def samples(shown: FiguresOfQueues) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(shown)
    return {
        sample.name + "".join(f" {sample.labels[name]}" for name in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_a_backlog_is_shown_by_lane() -> None:
    shown = FiguresOfQueues(lambda: NOW)
    shown.seen(QUEUE, BACKLOG)
    found = samples(shown)
    assert found["galley_queue_waiting_tasks high default images"] == 3
    assert found["galley_queue_running_tasks normal default images"] == 2
    assert found["galley_queue_oldest_wait_seconds high default images"] == 90
    assert found["galley_queue_oldest_wait_seconds normal default images"] == 0
    assert found["galley_queue_later_tasks default images"] == 7
    assert found["galley_queue_paused default images"] == 1
    assert found["galley_queue_waiting_for_key_tasks default images permit"] == 6
    assert found["galley_queue_dead_letters default images"] == 4
    assert found["galley_queue_dead_letters_total default images"] == 9
    assert found["galley_queue_submitted_total default images"] == 40
    assert found["galley_queue_limit backlog default images"] == 1000
    assert found["galley_queue_limit_used backlog default images"] == 5


def test_nothing_of_a_queue_is_shown_once_it_is_gone() -> None:
    """Who makes and deletes queues without end would fill the memory of the operator and of Prometheus."""
    metrics = OperatorMetrics()
    metrics.tasks.seen(QUEUE, BACKLOG)
    more = {"state": "ready", "limit": ScalingLimit.BUDGET, "direction": "in"}
    of_queues = [
        each for each in vars(metrics).values()
        if isinstance(each, MetricWrapperBase) and each._labelnames[:2] == ("namespace", "queue")
    ]  # fmt: skip
    assert len(of_queues) > 5
    for each in of_queues:
        each.labels(*QUEUE, *(more[name] for name in each._labelnames[2:]))
    assert b"images" in metrics.page()
    metrics.forget(*QUEUE)
    assert b"images" not in metrics.page()


def test_outcomes_begin_at_a_visible_zero() -> None:
    shown = FiguresOfQueues(lambda: NOW)
    shown.seen(QUEUE, BACKLOG)
    assert samples(shown)["galley_queue_outcomes_total normal default failed images"] == 0
    assert samples(shown)["galley_queue_wait_seconds_bucket normal +Inf default images"] == 0
    shown.counted(QUEUE, Counted({("normal", counts.FAILED): 2, ("low", counts.FAILED): 5}))
    found = samples(shown)
    assert found["galley_queue_outcomes_total normal default failed images"] == 2
    assert found["galley_queue_outcomes_total low default failed images"] == 5, "of a lane that is gone"


def test_totals_that_are_not_known_just_now_stay() -> None:
    shown = FiguresOfQueues(lambda: NOW)
    shown.seen(QUEUE, BACKLOG)
    shown.seen(QUEUE, replace(BACKLOG, totals=None))
    assert samples(shown)["galley_queue_dead_letters_total default images"] == 9


def test_a_queue_that_is_gone_is_not_shown() -> None:
    shown = FiguresOfQueues(lambda: NOW)
    shown.seen(QUEUE, BACKLOG)
    shown.forget(QUEUE)
    assert not samples(shown)


@pytest.mark.parametrize("series", EVERY, ids=lambda each: each.name)
def test_names_and_units_are_as_prometheus_wants_them(series: Series) -> None:
    assert series.name.endswith("_total") == (series.kind is Kind.COUNTER)
    assert not series.name.endswith(("_ms", "_milliseconds", "_minutes", "_kb", "_count", "_sum", "_bucket"))
    assert series.meaning.endswith(".")
    assert not {"id", "task", "worker", "pod", "job", "instance"} & set(series.labels)


def named_in(page: bytes) -> set[str]:
    served = {line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE galley_")}
    return {name.removesuffix("_created").removesuffix("_total") for name in served}


def test_the_operator_serves_what_the_tables_say() -> None:
    metrics = OperatorMetrics()
    metrics.tasks.seen(QUEUE, BACKLOG)
    metrics.tasks.counted(QUEUE, Counted({("normal", counts.FAILED): 2}))
    metrics.broker.take({"storage": 1, "limits": {"max_storage": 2}})
    own = named_in(metrics.page())
    # Further ones are read from other parts, which the running operator registers.
    registered = re.findall(r"figure\(series\.([A-Z_]+),", Path(operator.__file__).read_text("utf-8"))
    read = {getattr(operator_metrics, name).name.removesuffix("_total") for name in registered}
    assert not own & read
    told = (*figures.SERIES, *broker_figures.SERIES, *topic_figures.SERIES, *operator_metrics.SERIES)
    assert own | read == {each.name.removesuffix("_total") for each in told}


def test_the_worker_serves_what_the_tables_say() -> None:
    worker = Measures("default", "images", int, int)
    assert named_in(worker.text()) == {each.name.removesuffix("_total") for each in measures.SERIES}


def test_the_gateway_serves_what_the_tables_say() -> None:
    assert named_in(GatewayMetrics().page()) == {each.name.removesuffix("_total") for each in SERIES}


@dataclass
class Seen:
    """A keeper of the counts of the one queue of a bench."""

    bench: Bench
    shown: FiguresOfQueues
    reader: SignalReader = field(init=False)
    keeper: CountKeeper = field(init=False)
    backlogs: list[tuple[tuple[str, str], QueueBacklog]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = SignalReader(self.bench.producer)
        self.keeper = CountKeeper(CountReader(self.bench.producer), self.shown, lambda: self.backlogs)

    async def look(self) -> None:
        await self.bench.pass_time(LISTING_SECONDS)
        backlog = await self.reader.read(*QUEUE)
        assert isinstance(backlog, QueueBacklog)
        self.backlogs[:] = [(QUEUE, backlog)]
        await self.keeper.look()


@in_virtual_time
async def test_counts_are_read_when_they_changed_and_stay_while_the_broker_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        shown = FiguresOfQueues()
        seen = Seen(bench, shown)
        outbox = Outbox(bench.producer, QUEUE, "w1", lambda: 0.0)
        ended = ("normal", counts.SUCCEEDED)
        await outbox.hand_over(Counter({ended: 3}))
        await seen.look()
        name = "galley_queue_outcomes_total normal default succeeded images"
        assert samples(shown)[name] == 3
        await seen.look()
        await outbox.hand_over(Counter({ended: 5}))
        bench.producer.line.lose(to_server=lambda subject: "DIRECT.GET" in subject)
        await seen.look()
        assert samples(shown)[name] == 3
        assert "counts not read" in caplog.text
        bench.producer.line.lose()
        await seen.look()
        assert samples(shown)[name] == 5
        bench.server.streams.clear()
        bench.server.create(bench.layout)
        await seen.look()
        await Outbox(bench.producer, QUEUE, "w2", lambda: 0.0).hand_over(Counter({ended: 1}))
        await seen.look()
        assert samples(shown)[name] == 1, "the stream was made again"
