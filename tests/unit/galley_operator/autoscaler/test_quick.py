"""Tasks that begin and end between two looks: their worker stays, as it does for tasks that are seen."""

from dataclasses import replace

from galley_operator.autoscaler.decide import decide
from galley_operator.autoscaler.signals import Memory, Signals
from galley_operator.fleet.fleet import Workforce
from tests.unit.galley_operator.autoscaler.queues import POLICY, a_backlog, a_worker, at


def test_a_worker_of_tasks_that_no_look_sees_stays_until_they_stop() -> None:
    memory: Memory | None = None
    wanted, drained = [], []
    for second in range(200):
        done = min(second, 100)
        worker = replace(a_worker("w1"), done=done, busy_seconds=done * 0.001)
        decision = decide(Signals(a_backlog(), Workforce((worker,))), POLICY, memory, at(second))
        memory = decision.memory
        wanted.append(decision.desired)
        drained.append(bool(decision.drain))
    assert set(wanted[10:100]) == {1}
    assert set(wanted[102:]) == {0}
    assert not any(drained[: 100 + int(POLICY.idle_seconds)])
    assert any(drained)
