from dataclasses import dataclass, field, replace

import pytest

from galley.backlog import QueueBacklog
from galley.key import Rate
from galley_operator.autoscaler.decide import Decision, decide
from galley_operator.autoscaler.signals import Memory, ScalingPolicy
from galley_operator.fleet.fleet import WorkerPhase, Workforce
from tests.unit.galley_operator.autoscaler.queues import (
    NOON,
    POLICY,
    SILENT,
    a_backlog,
    a_stale_backlog,
    a_worker,
    asked,
    at,
    needed,
    seen,
    workers,
)

NONE = workers()


def replaced(*states: str) -> Workforce:
    return replace(workers(*states), replacing=True)


@dataclass(frozen=True)
class Case:
    """A situation, and what is to be done about it; what is not named must not be done."""

    claim: str
    backlog: QueueBacklog
    workforce: Workforce
    desired: int
    memory: Memory = field(default_factory=lambda: needed(0, seconds=-1000))
    policy: ScalingPolicy = POLICY
    scale_to: int | None = None
    remove: int = 0
    drain: tuple[str, ...] = ()
    undrain: tuple[str, ...] = ()


AT_LEAST_2 = replace(POLICY, min_workers=2)
ALWAYS_3 = replace(POLICY, min_workers=3, max_workers=3)
AT_ONCE = replace(POLICY, idle_seconds=0)
ONE_SLOT = replace(POLICY, slots=1)
LIMITED = replace(POLICY, most_tasks=5)
SLOW = replace(POLICY, rate=Rate(1, 60.0, 1))
LONG_AGO = needed(4, seconds=-31)

STARTS = [
    Case("nothing to do and no worker stays so", a_backlog(), NONE, 0),
    Case("the first waiting task starts a worker", a_backlog(1), NONE, 1, scale_to=1),
    Case("a task that no worker runs any more starts a worker", a_backlog(running=1), NONE, 1, scale_to=1),
    Case("as many as have slots for all waiting", a_backlog(8), NONE, 2, scale_to=2),
    Case("one task more than slots starts one more", a_backlog(9), NONE, 3, scale_to=3),
    Case("running tasks need their slots too", a_backlog(11, 1), workers("ready:1"), 3, scale_to=3),
    Case("never more than the most allowed", a_backlog(1000), NONE, 4, scale_to=4),
    Case("at the most allowed nothing happens", a_backlog(1000), workers(*["ready:4"] * 4), 4),
    Case("the least allowed is there without work", a_backlog(), NONE, 2, policy=AT_LEAST_2, scale_to=2),
    Case("a fixed number is kept", a_backlog(99), workers("ready:4"), 3, policy=ALWAYS_3, scale_to=3),
    Case("one slot each means a worker a task", a_backlog(3), NONE, 3, policy=ONE_SLOT, scale_to=3),
    Case("none for tasks that the limit of the queue holds back", a_backlog(99), NONE, 2, policy=LIMITED,
         scale_to=2),
    Case("one worker where one task may start", a_backlog(99), NONE, 1, policy=SLOW, scale_to=1),
    Case("those starting are not started again", a_backlog(16), workers(*["start"] * 4), 4),
    Case("those starting count", a_backlog(16), workers("start", "ready:4"), 4, scale_to=4),
    Case("failed ones are not replaced on top", a_backlog(16), workers(*["fail"] * 4), 4),
    Case("failed ones count as started", a_backlog(8), workers("fail"), 2, scale_to=2),
    Case("stopping ones count no more", a_backlog(4), workers("stop:1"), 1, scale_to=1),
    Case("draining ones by themselves are no capacity: they come back", a_backlog(4), workers("drain"), 1,
         undrain=("w1",)),
]  # fmt: skip

DRAINS = [
    Case("the first look drains none", a_backlog(), workers("ready", "ready"), 0, Memory()),
    Case("no worker is drained before the idle time is over", a_backlog(), workers("ready", "ready"), 0,
         needed(2, seconds=-29)),
    Case("when it is over the unneeded are drained", a_backlog(), workers("ready", "ready"), 0,
         needed(2, seconds=-30), drain=("w2", "w1")),
    Case("as many stay as were needed within the idle time", a_backlog(), workers(*["ready"] * 4), 0,
         Memory(((at(-40), 4), (at(-20), 2))), drain=("w4", "w3")),
    Case("without patience they are drained at once", a_backlog(), workers("ready"), 0, needed(1),
         policy=AT_ONCE, drain=("w1",)),
    Case("the least number stays", a_backlog(), workers(*["ready"] * 3), 2, LONG_AGO,
         policy=AT_LEAST_2, drain=("w3",)),
    Case("idle ones go before busy ones", a_backlog(0, 2), workers("ready", "ready:2"), 1, LONG_AGO,
         drain=("w1",)),
    Case("the least busy go first", a_backlog(0, 4), workers("ready:1", "ready:3"), 1, LONG_AGO,
         drain=("w1",)),
    Case("the youngest of equals goes first", a_backlog(0, 2), workers("ready:1", "ready:1"), 1, LONG_AGO,
         drain=("w2",)),
    Case("one that did not say goes after the idle ones", a_backlog(0, 1),
         workers("ready:?", "ready:0", "ready:1"), 1, LONG_AGO, drain=("w2", "w1")),
    Case("more than allowed are drained, busy or not", a_backlog(20, 20), workers(*["ready:4"] * 5), 4,
         LONG_AGO, drain=("w5",)),
    Case("no worker is drained while one starts", a_backlog(), workers("ready", "start"), 0, LONG_AGO),
    Case("no worker is removed while one starts", a_backlog(1), workers("drain", "start"), 1,
         asked(LONG_AGO, w1=-5)),
    Case("enough is enough, and nothing happens", a_backlog(3, 5), workers("ready:3", "ready:2"), 2),
]  # fmt: skip

REMOVALS = [
    Case("who drains and is idle is removed", a_backlog(), workers("drain"), 0, asked(LONG_AGO, w1=-5),
         scale_to=0, remove=1),
    Case("who was only asked is not removed but asked again", a_backlog(), workers("ready"), 0,
         asked(LONG_AGO, w1=-5), drain=("w1",)),
    Case("who still runs something is not removed", a_backlog(0, 1), workers("ready", "drain:1"), 1,
         asked(LONG_AGO, w2=-5)),
    Case("who drains and did not say what it runs is not removed", a_backlog(), workers("drain:?"), 0,
         asked(LONG_AGO, w1=-5)),
    Case("a drain of a third of its life is renewed", a_backlog(0, 1), workers("ready", "drain:1"), 1,
         asked(LONG_AGO, w2=-20), drain=("w2",)),
    Case("a drain found at the start is taken over first", a_backlog(), workers("drain"), 0, Memory(),
         drain=("w1",)),
    Case("only the drained ones are removed", a_backlog(0, 1), workers("ready", "drain", "drain:1"), 1,
         asked(LONG_AGO, w2=-5, w3=-5), scale_to=2, remove=1),
    Case("surplus failed ones are removed at once", a_backlog(), workers("fail", "fail"), 0, LONG_AGO,
         scale_to=0, remove=2),
    Case("failed ones go before idle ones", a_backlog(1), workers("ready", "fail"), 1, LONG_AGO,
         scale_to=1, remove=1),
    Case("failed ones stay for the idle time like others", a_backlog(), workers("fail"), 0, needed(1)),
]  # fmt: skip

RETURNS = [
    Case("work that comes back ends the drain", a_backlog(4), workers("drain"), 1, asked(LONG_AGO, w1=-5),
         undrain=("w1",)),
    Case("a drain not yet confirmed ends too", a_backlog(4), workers("ready"), 1, asked(LONG_AGO, w1=-1),
         undrain=("w1",)),
    Case("only as many come back as are needed", a_backlog(4), workers("drain", "drain"), 1,
         asked(LONG_AGO, w1=-5, w2=-5), undrain=("w1",)),
    Case("the busiest come back first", a_backlog(1, 1), workers("drain", "drain:1"), 1,
         asked(LONG_AGO, w1=-5, w2=-5), undrain=("w2",)),
    Case("only what is missing then is started", a_backlog(16), workers("ready:4", "drain"), 4,
         asked(LONG_AGO, w2=-5), undrain=("w2",), scale_to=4),
    Case("a failed one comes back last", a_backlog(1), workers("fail", "drain"), 1,
         asked(LONG_AGO, w1=-5, w2=-5), undrain=("w2",)),
    Case("a worker just brought back is not taken again within the idle time", a_backlog(),
         workers("drain"), 0, needed(1, seconds=-1), undrain=("w1",)),
    Case("one that went back to work by itself counts again", a_backlog(4), workers("ready:1"), 1,
         asked(LONG_AGO, w1=-61)),
]  # fmt: skip


REPLACEMENTS = [
    Case("the one too many that comes first is not drained", a_backlog(), replaced(*["ready"] * 4), 3,
         LONG_AGO, policy=ALWAYS_3),
    Case("no worker is drained while others come in their places", a_backlog(), replaced("ready", "ready"), 0,
         LONG_AGO),
    Case("no worker is removed meanwhile, and drains end", a_backlog(), replaced("drain", "drain:1"), 0,
         asked(LONG_AGO, w1=-5, w2=-5), undrain=("w2", "w1")),
    Case("work starts more all the same", a_backlog(16), replaced("ready:4", "ready:4"), 4, scale_to=4),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", [*STARTS, *DRAINS, *REMOVALS, *RETURNS, *REPLACEMENTS], ids=lambda case: case.claim
)
def test_decision(case: Case) -> None:
    decision = decide(seen(case.backlog, case.workforce), case.policy, case.memory, NOON)
    assert (decision.desired, decision.scale_to, decision.remove, decision.drain, decision.undrain) == (
        case.desired, case.scale_to, case.remove, case.drain, case.undrain,
    )  # fmt: skip


def test_a_worker_that_hangs_in_its_start_does_not_keep_the_others_for_ever() -> None:
    for age, drained in ((59, ()), (60, ("w2", "w1"))):
        starting = a_worker("w2", WorkerPhase.STARTING, age=age)
        crowd = Workforce((*workers("ready").workers, starting))
        decision = decide(seen(a_backlog(), crowd), POLICY, LONG_AGO, NOON)
        assert decision.drain == drained, f"starting for {age} s"


@pytest.mark.parametrize(
    "signals",
    [
        seen(SILENT, workers("ready", "drain")),
        seen(a_stale_backlog(), workers("ready", "drain")),
        seen(a_stale_backlog(100), workers("ready", "drain")),
        seen(a_backlog(100), SILENT),
        seen(SILENT, SILENT),
    ],
    ids=["no backlog", "stale and empty", "stale and full", "no workers known", "nothing known"],
)
def test_what_is_not_known_changes_nothing(signals: object) -> None:
    decision = decide(signals, POLICY, asked(needed(1, seconds=-100), w2=-5), NOON)  # type: ignore[arg-type]
    assert (decision.scale_to, decision.remove, decision.drain, decision.undrain) == (None, 0, (), ())


def test_time_without_knowledge_is_not_idle_time() -> None:
    two = workers("ready", "ready")
    decision = decide(seen(a_backlog(), two), POLICY, needed(2, seconds=-20), NOON)
    decision = decide(seen(SILENT, two), POLICY, decision.memory, at(5))
    assert decide(seen(a_backlog(), two), POLICY, decision.memory, at(12)).drain == ()
    assert decide(seen(a_backlog(), two), POLICY, decision.memory, at(35)).drain == ("w2", "w1")


def test_a_flapping_backlog_keeps_the_workers_its_peaks_need() -> None:
    memory: Memory | None = None
    crowd = workers(*["ready"] * 3)
    decisions: list[Decision] = []
    for second in range(0, 200, 5):
        backlog = a_backlog(12) if second % 20 == 0 else a_backlog()
        decision = decide(seen(backlog, crowd), POLICY, memory, at(second))
        memory = decision.memory
        decisions.append(decision)
    assert {decision.desired for decision in decisions} == {0, 3}
    assert all(decision.drain == () and decision.scale_to is None for decision in decisions)
    assert len(decisions[-1].memory.needs) <= 2


def test_a_clock_set_back_does_not_keep_workers_for_as_long_as_it_was_wrong() -> None:
    crowd = workers("ready")
    memory = needed(1, seconds=3600)
    memory = decide(seen(a_backlog(), crowd), POLICY, memory, at(0)).memory
    assert decide(seen(a_backlog(), crowd), POLICY, memory, at(29)).drain == ()
    assert decide(seen(a_backlog(), crowd), POLICY, memory, at(30)).drain == ("w1",)


def test_from_work_to_zero_and_back_step_by_step() -> None:
    """The way of one worker: started, idle, asked, draining, brought back, drained again, removed."""
    memory: Memory | None = None

    def step(second: float, waiting: int, *states: str) -> Decision:
        nonlocal memory
        decision = decide(seen(a_backlog(waiting), workers(*states)), POLICY, memory, at(second))
        memory = decision.memory
        return decision

    assert step(0, 1).scale_to == 1
    assert step(1, 1, "start").scale_to is None
    assert step(2, 0, "ready").drain == ()
    assert step(31, 0, "ready").drain == ("w1",)
    assert step(32, 0, "drain").remove == 1, "asked a sweep ago, and idle"
    assert step(32.1, 1, "drain").undrain == ("w1",), "the work was quicker than the removal"
    assert step(33, 0, "ready").undrain == ()
    assert step(63, 0, "ready").drain == ("w1",)
    last = step(64, 0, "drain")
    assert (last.scale_to, last.remove) == (0, 1)
    assert step(65, 0).scale_to is None
    assert memory is not None
    assert memory.asked == {}


def test_a_refused_removal_is_prepared_again() -> None:
    memory = asked(LONG_AGO, w1=-5)
    decision = decide(seen(a_backlog(), workers("drain")), POLICY, memory, NOON)
    assert decision.remove == 1
    again = decide(seen(a_backlog(), workers("ready")), POLICY, decision.memory, at(1))
    assert (again.remove, again.drain) == (0, ("w1",))
    assert decide(seen(a_backlog(), workers("drain")), POLICY, again.memory, at(2)).remove == 1


@pytest.mark.parametrize(
    ("workforce", "phase"),
    [(workers("stop"), WorkerPhase.STOPPING), (workers("drain"), WorkerPhase.DRAINING)],
)
def test_only_workers_that_take_tasks_are_capacity(workforce: Workforce, phase: WorkerPhase) -> None:
    assert {worker.phase for worker in workforce.workers} == {phase}
    decision = decide(seen(a_backlog(5), workforce), POLICY, asked(LONG_AGO, w1=-5), NOON)
    assert decision.desired == 2
    assert decision.scale_to == 2
    assert decision.undrain == (("w1",) if phase is WorkerPhase.DRAINING else ())
