"""Keys: with all rules no bad state is reachable; without one of them, the one it prevents."""

import pytest

from tests.unit.protocol.explored import but
from tests.unit.protocol.key_model import (
    KEY_TURNS,
    TURN_WHY,
    TurnFlaw,
    TurnRule,
    TurnScenario,
    explore_turns,
)

ALONE = TurnScenario("one task, and two hands may die", 1, deaths=2)
DEATH = TurnScenario("two tasks, one hand, which may die", 2, hands=1, deaths=1)
RACE = TurnScenario("two tasks and two hands", 2)
MET = TurnScenario("two tasks and two turns", 2, met=True)
LANES = TurnScenario("three tasks of a lane, and one of a lower one", 4, hands=1, low=True)
LANES_DEATH = TurnScenario("two lanes, one hand, which may die", 2, hands=1, deaths=1, low=True)
RETRY = TurnScenario(
    "two tasks, one may fail once, and one hand, which may die", 2, hands=1, deaths=1, retries=1
)

PREVENTS = {
    TurnRule.HELD_FIRST: (MET, TurnFlaw.TWO_RUN),
    TurnRule.COMPARE_AND_SET: (MET, TurnFlaw.TWO_RUN),
    TurnRule.MOVE_THEN_REMOVE: (ALONE, TurnFlaw.STUCK),
    TurnRule.ACK_LAST: (ALONE, TurnFlaw.STUCK),
    TurnRule.LOOK_AFTER_EMPTY: (RACE, TurnFlaw.STUCK),
    TurnRule.LOOK_WHILE_FULL: (DEATH, TurnFlaw.STUCK),
    TurnRule.PERMIT_FOLLOWS_TASK: (DEATH, TurnFlaw.STUCK),
    TurnRule.RECORD_DECIDES: (ALONE, TurnFlaw.AGAIN),
    TurnRule.LANES_SHARE: (LANES, TurnFlaw.STARVED),
    TurnRule.HELD_ANYWHERE: (RETRY, TurnFlaw.STUCK),
}


@pytest.mark.parametrize(
    "scenario",
    but((RACE,), [ALONE, DEATH, RACE, MET, LANES, LANES_DEATH, RETRY]),
    ids=lambda one: one.name,
)
def test_with_all_rules_each_task_of_a_key_ends_once_and_alone(scenario: TurnScenario) -> None:
    found = explore_turns(scenario)
    states = int(found.pop("")[0])
    assert states > 500
    assert found == {}


@pytest.mark.parametrize("rule", TurnRule)
def test_each_rule_of_turns_prevents_a_bad_state(rule: TurnRule) -> None:
    scenario, flaw = PREVENTS[rule]
    assert flaw in explore_turns(scenario, KEY_TURNS - {rule}, flaw), TURN_WHY[rule]
