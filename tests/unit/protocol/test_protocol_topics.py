"""Topics: with all rules no bad state is reachable; without one of them, the one it prevents."""

import pytest

from tests.unit.protocol.explored import but
from tests.unit.protocol.topic_model import (
    TOPIC_PROTOCOL,
    TOPIC_WHY,
    TopicFlaw,
    TopicRule,
    TopicScenario,
    explore_topics,
)

CRASH = TopicScenario("workers die, and the event is published twice")
ONCE = TopicScenario("a worker dies", repeats=0)
LATE = TopicScenario("a queue subscribes while the event is published", late=True)
FULL = TopicScenario("a queue is full", full=True, repeats=0)
BROKEN = TopicScenario("a filter fails on the event", broken=True)
ALL = (CRASH, ONCE, LATE, FULL, BROKEN)

PREVENTS = {
    TopicRule.COPY_FIRST: (ONCE, TopicFlaw.LOST),
    TopicRule.DERIVED_ID: (CRASH, TopicFlaw.DOUBLED),
    TopicRule.FLAGGED: (CRASH, TopicFlaw.DOUBLED),
    TopicRule.LOOK_AFTER: (LATE, TopicFlaw.LOST),
    TopicRule.CONSUMER_FIRST: (LATE, TopicFlaw.LOST),
    TopicRule.OWN_CONSUMER: (FULL, TopicFlaw.HELD_UP),
    TopicRule.MISS_KEPT: (BROKEN, TopicFlaw.LOST),
}


@pytest.mark.parametrize("scenario", but((LATE,), ALL), ids=lambda one: one.name)
def test_with_all_rules_no_bad_state_of_a_topic_is_reachable(scenario: TopicScenario) -> None:
    found = explore_topics(scenario)
    assert found.states > 50
    assert found.flaws == {}


@pytest.mark.parametrize("rule", TopicRule)
def test_each_rule_of_topics_prevents_a_bad_state(rule: TopicRule) -> None:
    scenario, flaw = PREVENTS[rule]
    assert flaw in explore_topics(scenario, TOPIC_PROTOCOL - {rule}, flaw).flaws, TOPIC_WHY[rule]
