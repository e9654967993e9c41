"""Workflows in the model: with all rules no bad state is reachable, without any one of them there is one."""

import pytest

from tests.unit.protocol.explored import but
from tests.unit.protocol.flow_model import (
    FLOW_PROTOCOL,
    FLOW_WHY,
    FlowFlaw,
    FlowRule,
    FlowScenario,
    explore_flow,
)

SCENARIOS = (
    FlowScenario("two workers die", fails=True, deaths=2),
    FlowScenario("messages are delivered twice", fails=True, doubles=2),
    FlowScenario("the whole is cancelled", fails=True, deaths=1, cancels=1),
    FlowScenario("a step is cancelled by hand", deaths=1, doubles=1, by_hand=1),
    FlowScenario("messages of two members are delivered twice", doubles=2, workers=3),
    FlowScenario("the client dies, too", deaths=1, cancels=1, client_dies=True),
)

BROKEN = {
    FlowRule.ONE_MESSAGE: (FlowScenario("", client_dies=True), FlowFlaw.WAITS),
    FlowRule.RECORD_FIRST: (FlowScenario("", fails=True, deaths=1), FlowFlaw.OTHER_END),
    FlowRule.ACKNOWLEDGE_LAST: (FlowScenario("", deaths=1), FlowFlaw.WAITS),
    FlowRule.SET: (FlowScenario("", deaths=1), FlowFlaw.EARLY),
    FlowRule.JOIN_BY_CAS: (FlowScenario(""), FlowFlaw.WAITS),
    FlowRule.REPEAT: (FlowScenario("", deaths=1), FlowFlaw.WAITS),
    FlowRule.DERIVED_ID: (FlowScenario("", deaths=1), FlowFlaw.TWICE),
    FlowRule.LOOK: (FlowScenario("", cancels=1), FlowFlaw.AFTER_CANCEL),
    FlowRule.ONE_END: (FlowScenario("", cancels=1), FlowFlaw.TWO_ENDS),
    FlowRule.KEEP_MESSAGE: (FlowScenario("", by_hand=1), FlowFlaw.WAITS),
    FlowRule.NOT_CLEARED: (FlowScenario("", doubles=2, workers=3), FlowFlaw.AGAIN),
    FlowRule.ALL_END: (FlowScenario("", fails=True), FlowFlaw.WAITS),
}


@pytest.mark.parametrize("scenario", but(SCENARIOS[2:5], SCENARIOS), ids=lambda scenario: scenario.name)
def test_no_bad_state_is_reachable(scenario: FlowScenario) -> None:
    found = explore_flow(scenario)

    assert not found.flaws
    assert found.states > 100


@pytest.mark.parametrize("rule", FlowRule, ids=lambda rule: rule.name.lower())
def test_without_a_rule_its_bad_state_is_reachable(rule: FlowRule) -> None:
    scenario, flaw = BROKEN[rule]
    assert rule in FLOW_WHY

    found = explore_flow(scenario, FLOW_PROTOCOL - {rule}, flaw)

    assert flaw in found.flaws, f"{rule}: {found}"
