"""What holds forevery decision, whatever the situation, and where sequences of them lead."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from galley.backlog import QueueBacklog, Unknown
from galley_operator.autoscaler.decide import DRAIN_SECONDS, Decision, decide
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.fleet.fleet import WorkerPhase, WorkerView, Workforce, removable
from tests.unit.galley_operator.autoscaler.queues import (
    NOON,
    SILENT,
    a_backlog,
    a_stale_backlog,
    a_worker,
    at,
)

NAMES = [f"w{number}" for number in range(8)]


@st.composite
def policies(draw: st.DrawFn) -> ScalingPolicy:
    least = draw(st.integers(0, 4))
    most = draw(st.integers(max(1, least), 7))
    return ScalingPolicy(least, most, draw(st.integers(1, 5)), draw(st.sampled_from((0, 1, 30))))


@st.composite
def workforces(draw: st.DrawFn) -> Workforce:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=8))
    return Workforce(
        tuple(
            a_worker(
                name,
                draw(st.sampled_from(WorkerPhase)),
                draw(st.one_of(st.none(), st.integers(0, 4))),
                age=draw(st.integers(0, 5)),
            )
            for name in names
        )
    )


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    memory = Memory()
    for second in sorted(draw(st.lists(st.integers(-60, 0), max_size=4))):
        memory = memory.needing(draw(st.integers(0, 7)), at(second), 60)
    requests = st.dictionaries(st.sampled_from(NAMES), st.integers(-90, 5).map(at), max_size=5)
    return replace(memory, asked=draw(requests))


counts = st.integers(0, 40)
backlogs = st.one_of(
    st.builds(a_backlog, counts, counts), st.builds(a_stale_backlog, counts, counts), st.just(SILENT)
)
situations = st.builds(Signals, backlogs, st.one_of(workforces(), st.just(SILENT)))


@settings(max_examples=400)
@given(situations, policies(), st.one_of(st.none(), memories()))
def test_every_decision_keeps_to_the_rules(
    signals: Signals, policy: ScalingPolicy, memory: Memory | None
) -> None:
    decision = decide(signals, policy, memory, NOON)
    assert policy.min_workers <= decision.desired <= policy.max_workers
    assert decision.reason
    if signals.missing is not None or isinstance(signals.workforce, Unknown):
        assert (decision.scale_to, decision.drain, decision.undrain) == (None, (), ())
        return
    present = {worker.name: worker for worker in signals.workforce.present}
    draining, back = set(decision.drain), set(decision.undrain)
    assert draining | back <= present.keys()
    assert not draining & back
    assert len(decision.memory.needs) <= 8
    assert isinstance(signals.backlog, QueueBacklog)
    if signals.backlog.waiting + signals.backlog.in_flight:
        assert decision.desired >= 1
    if decision.scale_to is not None and decision.scale_to > len(present):
        assert decision.scale_to == decision.desired
        assert not draining
    removes_only_the_idle(decision, memory or Memory(), present)
    drains_the_idle_first(decision, memory or Memory(), present)


def removes_only_the_idle(decision: Decision, memory: Memory, present: dict[str, WorkerView]) -> None:
    free = [
        worker
        for worker in present.values()
        if removable(worker) and (worker.phase is WorkerPhase.FAILED or worker.name in memory.asked)
    ]
    assert decision.remove <= len(free)
    if decision.remove:
        assert decision.scale_to == len(present) - decision.remove
        assert not any(worker.phase is WorkerPhase.STARTING for worker in present.values())
        assert not decision.undrain


def drains_the_idle_first(decision: Decision, memory: Memory, present: dict[str, WorkerView]) -> None:
    new = [
        present[name]
        for name in decision.drain
        if name not in memory.asked and present[name].phase is WorkerPhase.READY
    ]
    kept = [
        worker
        for worker in present.values()
        if worker.phase is WorkerPhase.READY and worker.name not in decision.memory.asked
    ]
    if any(worker.busy != 0 for worker in new):
        assert not any(worker.busy == 0 for worker in kept)
    assert not new or not any(worker.phase is WorkerPhase.STARTING for worker in present.values())


@dataclass
class Imagined:
    """A fleet that does what a fleet has to, one sweep later, in imagined time."""

    slots: int
    workers: dict[str, WorkerView] = field(default_factory=dict)
    leases: dict[str, datetime] = field(default_factory=dict)
    started: int = 0

    def view(self) -> Workforce:
        return Workforce(tuple(self.workers.values()))

    def obey(self, decision: Decision, now: datetime) -> None:
        for name in decision.undrain:
            self.leases.pop(name, None)
        if decision.scale_to is not None:
            self._scale(decision.scale_to, now)
        for name in decision.drain:
            self.leases[name] = now

    def _scale(self, number: int, now: datetime) -> None:
        for _ in range(number - len(self.workers)):
            self.started += 1
            name = f"s{self.started}"
            self.workers[name] = WorkerView(name, WorkerPhase.STARTING, 0, self.slots, now)
        for worker in [w for w in self.workers.values() if removable(w)]:
            if len(self.workers) > number:
                del self.workers[worker.name]
        assert len(self.workers) == number, "refused: it would have cut a task off"

    def pass_a_second(self, running: int, now: datetime) -> None:
        for name, worker in self.workers.items():
            lease = self.leases.get(name)
            drains = lease is not None and (now - lease).total_seconds() < DRAIN_SECONDS
            takes = running if not drains else min(running, worker.busy or 0)
            busy = min(self.slots, takes)
            running -= busy
            phase = WorkerPhase.DRAINING if drains else WorkerPhase.READY
            self.workers[name] = replace(worker, phase=phase, busy=busy)


@settings(max_examples=40)
@given(policies(), st.lists(st.tuples(counts, st.integers(1, 45)), max_size=6), counts)
def test_any_history_ends_with_as_many_workers_as_the_last_load_needs(
    policy: ScalingPolicy, history: list[tuple[int, int | None]], load: int
) -> None:
    fleet, memory, second = Imagined(policy.slots), None, 0
    for tasks, seconds in [*history, (load, None)]:
        begin, returns = second, 0
        while second < begin + (seconds or int(policy.idle_seconds) * 2**returns + 10):
            now = at(second)
            decision = decide(Signals(a_backlog(tasks), fleet.view()), policy, memory, now)
            memory = decision.memory
            # Workers that came and went are kept for longer, also those that come back only now.
            returns = max(returns, memory.returns)
            fleet.obey(decision, now)
            assert len(fleet.workers) <= policy.max_workers
            second += 1
            fleet.pass_a_second(tasks, at(second))
    # No task ends in this world, so those a busy worker keeps are all that may be left over.
    over = [worker for worker in fleet.workers.values() if worker.phase is WorkerPhase.DRAINING]
    assert all(worker.busy for worker in over)
    assert len(fleet.workers) - len(over) == policy.within(policy.workers_for(load))
