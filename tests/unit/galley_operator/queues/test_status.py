from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from galley.backlog import Unknown
from galley.errors import BrokerUnreachable, QueueConflict
from galley.resources.condition import Condition, Truth
from galley_operator.errors import RightsMissing
from galley_operator.fleet.fleet import Phase, WorkerView, Workforce
from galley_operator.fleet.pods import Trouble
from galley_operator.queues.status import Situation, conditions_of

NOW = datetime(2026, 3, 1, 8, 30, 0, 123456, tzinfo=UTC)
CONFLICT = QueueConflict("GW_a_b", "installation 'other'", "it is not ours")
FORBIDDEN = RightsMissing(
    "patch",
    "deployments shop/galley-images",
    403,
    'deployments.apps "galley-images" is forbidden: User "system:serviceaccount:galley:operator" '
    'cannot patch resource "deployments" in API group "apps" in the namespace "shop"',
)
FINE = Situation(3, workforce=Workforce())


def worker(phase: Phase) -> WorkerView:
    return WorkerView("w", phase, 0, 4, NOW)


def found(situation: Situation) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status.value, each.reason) for each in conditions_of(situation, (), NOW)}


def condition(situation: Situation, kind: str, before: tuple[Condition, ...] = ()) -> Condition:
    [one] = [each for each in conditions_of(situation, before, NOW) if each.type == kind]
    return one


@pytest.mark.parametrize(
    ("situation", "ready", "workers"),
    [
        (FINE, ("True", "Serving"), ("True", "ScaledToZero")),
        (replace(FINE, desired=2), ("True", "Serving"), ("True", "Starting")),
        (
            replace(FINE, workforce=Workforce((worker(Phase.STARTING),))),
            ("True", "Serving"),
            ("True", "Starting"),
        ),
        (
            replace(FINE, workforce=Workforce((worker(Phase.READY), worker(Phase.DRAINING)))),
            ("True", "Serving"),
            ("True", "WorkersReady"),
        ),
        (
            replace(FINE, trouble=Trouble("ImagePullFailed", "no such image"), desired=1),
            ("False", "ImagePullFailed"),
            ("False", "ImagePullFailed"),
        ),
        (
            replace(FINE, workforce=Unknown("nobody says", NOW)),
            ("Unknown", "NotObserved"),
            ("Unknown", "NotObserved"),
        ),
        (replace(FINE, streams=CONFLICT), ("False", "QueueConflict"), ("True", "ScaledToZero")),
        (
            replace(FINE, streams=CONFLICT, workforce=None),
            ("False", "QueueConflict"),
            ("Unknown", "NoStreams"),
        ),
        (replace(FINE, children=FORBIDDEN), ("False", "RightsMissing"), ("False", "RightsMissing")),
    ],
)
def test_what_is_found_makes_the_conditions(
    situation: Situation, ready: tuple[str, str], workers: tuple[str, str]
) -> None:
    conditions = found(situation)
    assert conditions["Ready"] == ready
    assert conditions["WorkersAvailable"] == workers
    assert conditions["StreamsReady"][0] == ("False" if situation.streams else "True")


def test_a_condition_says_what_happened_to_what_and_what_to_do() -> None:
    message = condition(replace(FINE, children=FORBIDDEN), "Ready").message
    assert "cannot patch deployments shop/galley-images" in message
    assert FORBIDDEN.hint in message


def test_a_condition_names_the_generation_it_was_found_for() -> None:
    assert {each.observed_generation for each in conditions_of(FINE, (), NOW)} == {3}


def test_the_time_of_a_condition_is_that_of_its_last_change() -> None:
    earlier = conditions_of(FINE, (), NOW - timedelta(hours=1))
    same = condition(replace(FINE, workforce=Workforce((worker(Phase.READY),))), "Ready", earlier)
    assert same.last_transition_time == NOW.replace(microsecond=0) - timedelta(hours=1)
    other = condition(replace(FINE, streams=BrokerUnreachable("nats://x", "no connection")), "Ready", earlier)
    assert other.status is Truth.FALSE
    assert other.last_transition_time == NOW.replace(microsecond=0)


def test_conditions_of_others_are_left_to_them() -> None:
    foreign = Condition(type="Audited", status=Truth.TRUE, reason="Yes", last_transition_time=NOW)
    kinds = {each.type for each in conditions_of(FINE, (foreign,), NOW)}
    assert kinds == {"Ready", "StreamsReady", "WorkersAvailable"}
