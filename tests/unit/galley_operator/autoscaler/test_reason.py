from dataclasses import replace

import pytest

from galley.backlog import QueueBacklog
from galley_operator.autoscaler.decide import decide
from galley_operator.autoscaler.learned import Learned
from galley_operator.autoscaler.signals import Memory, ScalingPolicy, Signals
from galley_operator.fleet.fleet import Workforce
from tests.unit.galley_operator.autoscaler.queues import (
    NOON,
    POLICY,
    SILENT,
    a_backlog,
    a_stale_backlog,
    asked,
    at,
    needed,
    seen,
    workers,
)

HELD = ", and until it is, no worker is started or ended"
FIXED = replace(POLICY, min_workers=2, max_workers=2, slots=1)


@pytest.mark.parametrize(
    ("backlog", "workforce", "policy", "memory", "said"),
    [
        (
            a_backlog(11, 1), workers("ready:1"), POLICY, needed(0, -99),
            "3 workers: 11 waiting + 1 running tasks over 4 slots each; at most 4",
        ),
        (
            a_backlog(1), workers(), POLICY, needed(0, -99),
            "1 worker: 1 waiting + 0 running task over 4 slots each; at most 4",
        ),
        (a_backlog(), workers(), POLICY, needed(0, -99), "0 workers: nothing waits or runs; at most 4"),
        (
            a_backlog(), replace(workers("ready", "ready"), replacing=True), POLICY, needed(0, -99),
            "0 workers: nothing waits or runs; at most 4; newer ones take the places of those there are",
        ),
        (
            a_backlog(), workers("start"), replace(POLICY, min_workers=1), needed(0, -99),
            "1 worker: nothing waits or runs; at least 1 by spec.scaling.minWorkers",
        ),
        (
            a_backlog(3, 2), workers("ready:1", "ready:1"), FIXED, needed(0, -99),
            "2 workers: 3 waiting + 2 running tasks over 1 slot each; spec.scaling fixes the number at 2",
        ),
        (
            a_backlog(0, 1), workers("ready:1", "ready"), POLICY, needed(2, -18),
            "1 worker: 0 waiting + 1 running task over 4 slots each; at most 4; up to 2 stay for 12 s more",
        ),
        (
            a_backlog(), workers("ready"), POLICY, needed(1, -18),
            "0 workers: nothing waits or runs; at most 4; 1 stays for 12 s more",
        ),
        (
            a_backlog(0, 2), workers("ready:1", "drain:1"), POLICY, asked(needed(0, -99), w2=-1),
            ("1 worker: 0 waiting + 2 running tasks over 4 slots each; at most 4; "
            "1 more drains, and goes when it runs nothing"),
        ),
        (
            a_backlog(1), workers("fail", problem="module thumbs does not import: No module named 'PIL'"),
            POLICY, needed(0, -99),
            ("1 worker: 1 waiting + 0 running task over 4 slots each; at most 4; workers do not come up: "
            "module thumbs does not import: No module named 'PIL'"),
        ),
    ],
)  # fmt: skip
def test_a_decision_says_why(
    backlog: QueueBacklog, workforce: Workforce, policy: ScalingPolicy, memory: Memory, said: str
) -> None:
    assert decide(seen(backlog, workforce), policy, memory, NOON).reason == said


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (
            seen(SILENT, workers("ready", "ready")),
            "2 workers, held: the backlog is not known since 12:00:00 UTC (no answer in 1 s)" + HELD,
        ),
        (
            seen(a_stale_backlog(), workers("ready")),
            "1 worker, held: the backlog of lane normal is not known since 12:00:00 UTC (no answer in 1 s)"
            + HELD,
        ),
        (
            seen(a_backlog(5), SILENT),
            (
                "as many workers as there are, held: the state of the workers is not known "
                "since 12:00:00 UTC (no answer in 1 s)" + HELD
            ),
        ),
    ],
)
def test_holding_says_what_is_not_known_and_since_when(signals: Signals, said: str) -> None:
    assert decide(signals, POLICY, None, NOON).reason == said


STAYS = needed(0, -99)


@pytest.mark.parametrize(
    ("backlog", "workforce", "policy", "learned", "said"),
    [
        (
            a_backlog(100), workers(), POLICY, Learned.remembered(2.0, 1.0, 5.0),
            (
                "4 workers: 100 waiting + 0 running tasks of 1 s, 2 a second come: 27 slots are needed to "
                "start them within 3.3 s after the 5 s that a worker takes to start, at 4 slots each; at "
                "most 4 of the 7 needed: raise spec.scaling.maxWorkers for more"
            ),
        ),
        (
            a_backlog(0, 1), workers("ready:1"), POLICY, Learned.remembered(0.0001, 3600.0, 5.0),
            (
                "1 worker: 0 waiting + 1 running task of 3600 s, under 0.001 a second come: 1 slot is "
                "needed for those that run, at 4 slots each; at most 4"
            ),
        ),
        (
            a_backlog(0, 6), workers("ready:4", "ready:2"), POLICY, Learned.remembered(6.0, 1.0, 5.0),
            (
                "3 workers: 0 waiting + 6 running tasks of 1 s, 6 a second come: 11 slots are needed for "
                "those that come, at 4 slots each; at most 4"
            ),
        ),
        (
            a_backlog(100), workers(), replace(POLICY, most_tasks=2), Learned.remembered(2.0, 1.0, 5.0),
            (
                "1 worker: 100 waiting + 0 running tasks of 1 s, 2 a second come: 27 slots would be needed "
                "to start them within 3.3 s after the 5 s that a worker takes to start, at 4 slots each; at"
                " most 4; no more than 2 slots are used, since the queue is limited to 2 tasks at once by "
                "spec.limits.concurrency"
            ),
        ),
        (
            a_backlog(1500), workers(), replace(POLICY, max_workers=20), Learned.remembered(6.0, 1.0, 60.0),
            (
                "4 workers: 1500 waiting + 0 running tasks of 1 s, 6 a second come: 95 slots are needed to "
                "start them within 20 s after the 60 s that a worker takes to start, at 4 slots each; 20 of"
                " the 24 needed come in steps"
            ),
        ),
        (
            a_backlog(5), workers(), replace(POLICY, max_workers=0), Learned(),
            (
                "0 workers: 5 waiting + 0 running tasks over 4 slots each; spec.scaling or spec.paused "
                "fixes the number at 0"
            ),
        ),
    ],
)  # fmt: skip
def test_a_decision_by_known_times_says_what_they_are(
    backlog: QueueBacklog, workforce: Workforce, policy: ScalingPolicy, learned: Learned, said: str
) -> None:
    memory = replace(STAYS, learned=learned, timed=True)
    assert decide(seen(backlog, workforce), policy, memory, NOON).reason == said


def test_tasks_that_no_look_sees_are_told_with_their_numbers() -> None:
    learned = Learned.remembered(40.0, 0.1, 5.0)
    memory = replace(STAYS, learned=replace(learned, at=at(-1), counts={"w1": (0, 0.0)}), timed=True)
    worker = replace(workers("ready").workers[0], done=40, busy_seconds=4.0)
    assert decide(seen(a_backlog(), Workforce((worker,))), POLICY, memory, NOON).reason == (
        "2 workers: nothing waits or runs; tasks ended since the last look; tasks of 0.1 s, 40 a second "
        "come: 8 slots are needed for those that come, at 4 slots each; at most 4"
    )
