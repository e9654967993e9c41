"""A queue's limit: with all rules no bad state is reachable; without one of them, the one it prevents."""

import pytest

from tests.unit.protocol.limit_model import LIMIT, LIMIT_WHY, LimitFlaw, LimitRule, limit_explored

CALM = frozenset[str]()
LEAVES = frozenset({"leaves"})
PREVENTS = {
    LimitRule.PERMIT_FIRST: (CALM, LimitFlaw.TWO_RUN),
    LimitRule.COMPARE_AND_SET: (CALM, LimitFlaw.TWO_RUN),
    LimitRule.GIVE_AFTER_END: (LEAVES, LimitFlaw.TWO_RUN),
    LimitRule.LEAVER_GIVES: (LEAVES, LimitFlaw.STUCK),
    LimitRule.LOOK_AGAIN: (LEAVES | {"word lost"}, LimitFlaw.STUCK),
    LimitRule.SILENT_LOSES: (frozenset({"dies"}), LimitFlaw.STUCK),
    LimitRule.STOP_FIRST: (frozenset({"cut"}), LimitFlaw.TWO_RUN),
    LimitRule.CONFIRMED: (frozenset({"cut"}), LimitFlaw.TWO_RUN),
}


@pytest.mark.parametrize(
    ("troubles", "states"),
    [(CALM, 20), (LEAVES, 40), (frozenset({"leaves", "dies", "cut", "word lost"}), 500)],
)
def test_with_all_rules_each_task_ends_and_no_two_run_at_once(troubles: frozenset[str], states: int) -> None:
    found, flaws = limit_explored(troubles)
    assert flaws == frozenset()
    assert found > states


@pytest.mark.parametrize("rule", LimitRule)
def test_each_rule_of_the_limit_prevents_a_bad_state(rule: LimitRule) -> None:
    troubles, flaw = PREVENTS[rule]
    assert flaw in limit_explored(troubles, LIMIT - {rule})[1], LIMIT_WHY[rule]
