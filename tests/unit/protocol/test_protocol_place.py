"""Steps that run in place: with all rules no bad state is reachable, without any one of them there is one."""

import pytest

from tests.unit.protocol.explored import but
from tests.unit.protocol.place_model import (
    PLACE_PROTOCOL,
    PLACE_WHY,
    PlaceFlaw,
    PlaceRule,
    PlaceScenario,
    explore_place,
)

SCENARIOS = (
    PlaceScenario("two workers die", deaths=2),
    PlaceScenario("two leases end, and a worker dies", doubles=2, deaths=1),
    PlaceScenario("the whole is cancelled", deaths=1, doubles=1, cancels=1),
    PlaceScenario("two steps lead to a join", join=True, deaths=2, doubles=1, cancels=1),
)

LARGE = SCENARIOS[1], SCENARIOS[3]

BROKEN = {
    PlaceRule.WRITER: (PlaceScenario("", deaths=1, doubles=1), PlaceFlaw.TWICE),
    PlaceRule.HOLD: (PlaceScenario("", deaths=1), PlaceFlaw.WAITS),
    PlaceRule.LOOK: (PlaceScenario("", cancels=1), PlaceFlaw.AFTER_CANCEL),
    PlaceRule.ONE_SOURCE: (PlaceScenario("", join=True, deaths=1), PlaceFlaw.BESIDE),
    PlaceRule.CLAIM: (PlaceScenario("", deaths=1, doubles=1), PlaceFlaw.TWICE),
    PlaceRule.FENCE: (PlaceScenario("", doubles=1), PlaceFlaw.TWICE),
    PlaceRule.LEAVE: (PlaceScenario("", doubles=1), PlaceFlaw.TWICE),
}


@pytest.mark.parametrize("scenario", but(LARGE, SCENARIOS), ids=lambda scenario: scenario.name)
def test_no_bad_state_is_reachable(scenario: PlaceScenario) -> None:
    found = explore_place(scenario)

    assert not found.flaws
    assert found.states > 100


@pytest.mark.parametrize("rule", PlaceRule, ids=lambda rule: rule.name.lower())
def test_without_a_rule_its_bad_state_is_reachable(rule: PlaceRule) -> None:
    scenario, flaw = BROKEN[rule]
    assert rule in PLACE_WHY

    found = explore_place(scenario, PLACE_PROTOCOL - {rule}, flaw)

    assert flaw in found.flaws, f"{rule}: {found}"
