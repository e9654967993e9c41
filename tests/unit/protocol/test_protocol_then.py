"""With its rules a continuation has no bad state; without one it has the state that this rule prevents."""

import pytest

from tests.unit.protocol.then_model import THEN_PROTOCOL, THEN_WHY, ThenFlaw, ThenRule, then_explored

FLAWS = {
    ThenRule.RECORD_FIRST: ThenFlaw.TWO,
    ThenRule.RECORD_DECIDES: ThenFlaw.TWO,
    ThenRule.ACKNOWLEDGE_LAST: ThenFlaw.WAITS,
    ThenRule.LOOK: ThenFlaw.WAITS,
}


def test_no_state_is_bad() -> None:
    states, flaws = then_explored(THEN_PROTOCOL)
    assert flaws == set()
    assert states > 100


@pytest.mark.parametrize("rule", ThenRule)
def test_without_a_rule_a_state_is_bad(rule: ThenRule) -> None:
    _, flaws = then_explored(THEN_PROTOCOL - {rule})
    assert FLAWS[rule] in flaws, THEN_WHY[rule]
