"""What a TaskQueue's status says of its scaling, and what an operator that restarts takes from it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galley.backlog import QueueBacklog, Unknown
from galley.broker.control import Pause, Supply
from galley.resources import TaskQueue, TaskQueueStatus
from galley.resources.condition import Truth, condition
from galley.resources.queue_status import ScalingLimit
from galley_operator.autoscaler.decide import Decision, decide
from galley_operator.autoscaler.explain import supply_of
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.fleet.fleet import Workforce
from galley_operator.queues.conditions import CIRCUIT_CLOSED, SCALING_ACTIVE, Situation, conditions_of
from galley_operator.queues.scaled_queue import remembered
from galley_operator.queues.status import occurrences, scaling_of, status_of
from galley_operator.tasks.known_queues import QueueObject
from tests.unit.galley_operator.autoscaler.queues import NOON, SILENT, a_backlog, at, workers


def a_queue(**scaling: Any) -> TaskQueue:
    spec = {"worker": {"modules": ["thumbs"]}, "scaling": scaling}
    return TaskQueue.model_validate({"metadata": {"name": "images", "namespace": "shop"}, "spec": spec})


def with_spec(queue: TaskQueue, **changes: Any) -> TaskQueue:
    document = queue.model_dump(by_alias=True, mode="json", exclude_unset=True)
    return TaskQueue.model_validate({**document, "spec": {**document["spec"], **changes}})


def decided(queue: TaskQueue, backlog: QueueBacklog | Unknown, learned: Learned | None = None) -> Decision:
    memory = Memory(learned=learned or Learned())
    return decide(Signals(backlog, workers("ready:1")), ScalingPolicy.of(queue), memory, NOON)


def status(queue: TaskQueue, decision: Decision | None) -> TaskQueueStatus:
    situation = Situation(1, workforce=Workforce(), queue=queue, decision=decision)
    return status_of("images", situation, None, decision, None, TaskQueueStatus(), NOON)


QUICK = Learned.remembered(rate=2.0, task_seconds=30.0, start_seconds=4.0)


@pytest.mark.parametrize(
    ("scaling", "backlog", "truth", "reason", "says"),
    [
        ({"maxWorkers": 99}, a_backlog(1), Truth.TRUE, "Scaling", "follows the work"),
        ({"maxWorkers": 2}, a_backlog(400), Truth.TRUE, "MaxWorkers", "raise it"),
        ({"workers": 2}, a_backlog(400), Truth.FALSE, "Fixed", "set it to null"),
        ({"workers": 0}, a_backlog(400), Truth.FALSE, "Paused", "spec.scaling.workers is 0"),
        (
            {"maxWorkers": 99, "targetWaitSeconds": 1},
            a_backlog(1),
            Truth.TRUE,
            "TargetShort",
            "below the 30 s",
        ),
        (
            {"maxWorkers": 99, "lanes": [{"name": "high", "targetWaitSeconds": 1}]},
            a_backlog(1),
            Truth.TRUE,
            "TargetShort",
            "lanes[high].targetWaitSeconds is 1",
        ),
        ({}, SILENT, Truth.FALSE, "SignalsMissing", "is not known since 12:00:00"),
    ],
)
def test_a_condition_says_whether_the_number_follows_the_work(
    scaling: dict[str, Any], backlog: QueueBacklog | Unknown, truth: Truth, reason: str, says: str
) -> None:
    queue = a_queue(**scaling)
    found = condition(status(queue, decided(queue, backlog, QUICK)).conditions, SCALING_ACTIVE)
    assert found is not None
    assert (found.status, found.reason) == (truth, reason)
    assert says in found.message


def test_before_the_first_decision_nothing_is_said_of_it() -> None:
    found = status(a_queue(), None)
    assert found.scaling is None
    active = condition(found.conditions, SCALING_ACTIVE)
    assert active is not None
    assert active.status is Truth.UNKNOWN


def test_an_autoscaler_that_sees_nothing_is_worth_one_warning_and_its_end_an_event() -> None:
    queue = a_queue()
    seeing, blind = status(queue, decided(queue, a_backlog(1))), status(queue, decided(queue, SILENT))
    about = QueueObject("shop", "images", "uid-1", 1, queue)
    [warning] = occurrences(about, blind, seeing)
    assert (warning.reason, warning.warning) == ("SignalsMissing", True)
    assert occurrences(about, blind, blind) == []
    [end] = occurrences(about, seeing, blind)
    assert (end.reason, end.warning) == (SCALING_ACTIVE, False)


def test_the_status_has_what_was_decided_from_and_a_restart_decides_the_same() -> None:
    queue = a_queue(maxWorkers=50)
    decision = decided(queue, a_backlog(46, 4), QUICK)
    written = scaling_of(decision)
    assert written is not None
    assert (written.needed, written.limit) == (decision.needed, ScalingLimit.STEP)
    assert (written.arrivals_per_second, written.task_seconds, written.start_seconds) == (2.0, 30.0, 4.0)
    memory = remembered(written)
    crowd = workers("ready:1")
    for restarted in (memory, replace(decision.memory, step=None)):
        again = decide(Signals(a_backlog(46, 4), crowd), ScalingPolicy.of(queue), restarted, at(3))
        assert again.needed == decision.needed
    assert remembered(None) is None


def powers(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most).map(lambda exponent: 10.0**exponent)


crowds = st.sampled_from((workers(), workers("start"), workers("ready:1", "ready:1", "ready:0")))


@settings(max_examples=600)
@given(
    st.tuples(powers(-4, 3), powers(-6, 4.3), st.none() | powers(-2, 2.5)),
    st.sampled_from((0.0, 29.7, 130.0)),
    st.one_of(st.integers(0, 99), st.integers(0, 10**7)),
    crowds,
)
def test_a_restart_needs_as_many_workers_whatever_the_load(
    load: tuple[float, float, float | None], held: float, waiting: int, crowd: Workforce
) -> None:
    slots, seconds, start = load
    rate = slots / seconds
    queue = a_queue(maxWorkers=900)
    learned = replace(
        Learned.remembered(rate, seconds, start, held=held), seen=600.0, recent_seen=60.0, done=100.0,
        busy_seconds=100 * seconds, long_done=900.0, long_busy=900 * seconds,
    )  # fmt: skip
    signals = Signals(a_backlog(waiting, waiting % 9), crowd)
    before = decide(signals, ScalingPolicy.of(queue), Memory(learned=learned), NOON)
    again = decide(signals, ScalingPolicy.of(queue), remembered(scaling_of(before)), NOON)
    assert before.needed is not None
    assert again.memory.learned.held == int(before.memory.learned.held)
    if before.memory.learned.steady:
        # How many tasks a steady load is known from is not in the status: room for chance may differ.
        assert again.needed == pytest.approx(before.needed, rel=0.005, abs=1)
    else:
        assert again.needed == before.needed


def test_a_rate_that_no_queue_can_have_is_written_as_the_most_a_status_takes() -> None:
    learned = Learned.remembered(rate=3e12, task_seconds=1e-6, start_seconds=4.0)
    decision = decided(a_queue(), a_backlog(1), learned)
    written = scaling_of(decision)
    assert written is not None
    assert written.arrivals_per_second == 1e9


PAUSED = replace(a_backlog(40, 1), paused=True)


def test_those_who_ask_over_the_broker_get_the_sentence_and_the_numbers() -> None:
    queue = a_queue()
    decision = decided(queue, a_backlog(40, 1))
    signals = Signals(a_backlog(40, 1), workers("ready:1", "start"))
    scaler = cast("Scaler", SimpleNamespace(last=decision, signals=signals))
    said = supply_of("", scaler, queue)
    assert said.scaling == decision.reason
    assert said.workers == {"desired": 4, "needed": 11, "present": 2, "ready": 1}
    held = cast("Scaler", SimpleNamespace(last=decision, signals=replace(signals, backlog=PAUSED)))
    assert "`galley resume` ends that" in supply_of("", held, queue).problem
    blind = cast("Scaler", SimpleNamespace(last=decided(queue, SILENT), signals=Signals(SILENT, SILENT)))
    assert supply_of("", blind, queue).workers.keys() == {"desired"}
    assert supply_of("no such image", None, None) == Supply("no such image")


def test_those_who_ask_are_told_all_that_pauses_a_queue() -> None:
    paused = with_spec(a_queue(), paused=True)
    assert supply_of("", None, paused).paused_by.keys() == {Pause.MANIFEST}
    queue = with_spec(a_queue(), circuit={"seconds": 7})
    open_one = replace(workers("ready:1").workers[0], circuit_open=True)
    signals = Signals(PAUSED, Workforce((open_one,)))
    scaler = cast("Scaler", SimpleNamespace(last=decided(queue, PAUSED), signals=signals))
    said = supply_of("", scaler, queue)
    assert said.paused_by.keys() == {Pause.COMMAND, Pause.CIRCUIT}
    assert "`galley resume` ends that" in said.problem
    signals = replace(signals, backlog=a_backlog(40, 1))
    scaler = cast("Scaler", SimpleNamespace(last=decided(queue, PAUSED), signals=signals))
    said = supply_of("", scaler, queue)
    assert said.paused_by.keys() == {Pause.CIRCUIT}
    assert "the last attempts of the worker all failed" in said.problem
    assert "every 7 s" in said.problem
    starting = Signals(PAUSED, workers("start"))
    scaler = cast("Scaler", SimpleNamespace(last=decided(queue, PAUSED), signals=starting))
    assert supply_of("", scaler, queue).paused_by.keys() == {Pause.COMMAND}


@pytest.mark.parametrize(
    ("open_ones", "closed", "ready"),
    [
        ("", (Truth.TRUE, "Closed"), (Truth.TRUE, "Serving")),
        ("1", (Truth.FALSE, "PartlyOpen"), (Truth.TRUE, "Serving")),
        ("12", (Truth.FALSE, "Open"), (Truth.FALSE, "CircuitOpen")),
    ],
)
def test_open_circuits_are_a_condition_and_those_of_all_workers_say_that_the_queue_is_not_ready(
    open_ones: str, closed: tuple[Truth, str], ready: tuple[Truth, str]
) -> None:
    queue = with_spec(a_queue(), circuit={"failures": 3, "seconds": 7})
    crew = Workforce(
        tuple(
            replace(each, circuit_open=each.name[1:] in open_ones)
            for each in workers("ready", "ready").workers
        )
    )
    conditions = conditions_of(Situation(1, workforce=crew, queue=queue, desired=2), (), NOON)
    found = {each.type: (each.status, each.reason) for each in conditions}
    assert (found[CIRCUIT_CLOSED], found["Ready"]) == (closed, ready)
    message = next(each.message for each in conditions if each.type == CIRCUIT_CLOSED)
    assert ("of all 2 workers" in message) is (open_ones == "12")
    assert ("of 1 of 2 workers" in message) is (open_ones == "1")


def test_a_queue_without_a_circuit_has_no_condition_of_one() -> None:
    queue = with_spec(a_queue(), circuit={})
    there = conditions_of(Situation(1, workforce=SILENT, queue=queue), (), NOON)
    assert {each.type: each.status for each in there}[CIRCUIT_CLOSED] is Truth.UNKNOWN
    without = conditions_of(Situation(1, workforce=SILENT, queue=a_queue()), there, NOON)
    assert CIRCUIT_CLOSED not in {each.type for each in without}
