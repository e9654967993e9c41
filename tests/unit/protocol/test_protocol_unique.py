"""Unique keys: with all rules no bad state is reachable; without one of them, the one it prevents."""

import pytest

from tests.unit.protocol.explored import but
from tests.unit.protocol.unique_model import (
    KEY_PROTOCOL,
    KEY_WHY,
    KeyFlaw,
    KeyRule,
    KeyScenario,
    explore_keys,
)

RACE = KeyScenario("two race, and all may die", (False, False), True, producers_die=1, workers_die=1)
RACE_STARTED = KeyScenario(
    "two race for a key until the start", (False, False), False, producers_die=1, workers_die=1
)
REPLACE = KeyScenario("one replaces another", (False, True), True, producers_die=1, workers_die=1)
REPLACE_STARTED = KeyScenario(
    "one replaces another, until the start", (False, True), False, producers_die=1, workers_die=1
)
DEBOUNCE = KeyScenario("two replace, one after the other", (False, True, True), False)
CANCEL = KeyScenario("a task is cancelled", (False, False), True, workers_die=1, cancels=1)
ALL = (RACE, RACE_STARTED, REPLACE, REPLACE_STARTED, DEBOUNCE, CANCEL)

PREVENTS = {
    KeyRule.CONFIRM: (RACE, KeyFlaw.LOST),
    KeyRule.WORKER_CHECKS: (RACE, KeyFlaw.TWO_RUN),
    KeyRule.BEGUN_BY_CAS: (RACE, KeyFlaw.TWO_RUN),
    KeyRule.UNKNOWN_IS_FREE: (RACE, KeyFlaw.BLOCKED),
    KeyRule.PREVIOUS_KEPT: (REPLACE_STARTED, KeyFlaw.LOST),
    KeyRule.RECORD_FIRST: (RACE, KeyFlaw.TWO_RUN),
    KeyRule.BEGUN_LISTED: (RACE_STARTED, KeyFlaw.LOST),
    KeyRule.RECORD_FREES: (CANCEL, KeyFlaw.BLOCKED),
}


@pytest.mark.parametrize("scenario", but((DEBOUNCE,), ALL), ids=lambda one: one.name)
def test_with_all_rules_no_bad_state_of_a_key_is_reachable(scenario: KeyScenario) -> None:
    found = explore_keys(scenario)
    assert found.states > 500
    assert found.flaws == {}


@pytest.mark.parametrize("rule", KeyRule)
def test_each_rule_of_keys_prevents_a_bad_state(rule: KeyRule) -> None:
    scenario, flaw = PREVENTS[rule]
    assert flaw in explore_keys(scenario, KEY_PROTOCOL - {rule}, flaw).flaws, KEY_WHY[rule]
