"""With all its rules the protocol reaches no bad state; without one of them, the one it prevents."""

import sys
from typing import Final

import pytest

from tests.unit.protocol import scenarios
from tests.unit.protocol.explore import Exploration, explore
from tests.unit.protocol.explored import but, present, recorded
from tests.unit.protocol.model import Model
from tests.unit.protocol.rules import AS_FIRST_WRITTEN, PROTOCOL, WHY, Flaw, Rule
from tests.unit.protocol.state import Scenario

OVERLAP = frozenset({Flaw.TWO_AT_ONCE})

PREVENTS: dict[Rule, tuple[Scenario, Flaw]] = {
    Rule.SLOW_WHEN_REDELIVERED: (scenarios.CRASHES, Flaw.RUNS_AFTER_DONE),
    Rule.SLOW_WHEN_FLAGGED: (scenarios.REPUBLISH, Flaw.RUNS_AFTER_DONE),
    Rule.SLOW_FROM_LATER: (scenarios.REFIRE, Flaw.TWO_AT_ONCE),
    Rule.CLAIM_NAMES_MESSAGE: (scenarios.REFIRE, Flaw.TWO_AT_ONCE),
    Rule.REPUBLISH_FLAGGED: (scenarios.REPUBLISH, Flaw.RUNS_AFTER_DONE),
    Rule.WILDCARD_EXPECTED: (scenarios.REPUBLISH, Flaw.TWO_AT_ONCE),
    Rule.RETRY_RECORD_FIRST: (scenarios.CRASHES, Flaw.UNFORESEEN),
    Rule.STORE_BEFORE_ACK: (scenarios.CRASHES, Flaw.LOST),
    Rule.DONE_BY_CAS: (scenarios.LAPSE, Flaw.TWO_OUTCOMES),
    Rule.HAND_BACK_IN_RECORD: (scenarios.DRAIN, Flaw.BURNED),
    Rule.DROP_WHEN_RETRY_LOSES: (scenarios.UNSEEN, Flaw.LOST),
    Rule.REPUBLISH_SCHEDULE: (scenarios.CRASHES, Flaw.LOST),
    Rule.CANCEL_DECIDES_FIRST: (scenarios.CANCEL, Flaw.LOST),
    Rule.REMEMBER_CANCELLED: (scenarios.CANCEL, Flaw.RUNS_AFTER_CANCEL),
    Rule.SELF_FENCE: (scenarios.LAPSE, Flaw.TWO_AT_ONCE),
    Rule.READ_UP_TO_REFUSED: (scenarios.THREE_ATTEMPTS, Flaw.LOST),
    Rule.RECORD_OUTLIVES_COPIES: (scenarios.EXPIRY, Flaw.RUNS_AFTER_DONE),
    Rule.DEAD_LETTER_REPAIRED: (scenarios.CRASHES, Flaw.LETTER_LOST),
    Rule.ANY_LATER_RETRY: (scenarios.FOUR_ATTEMPTS, Flaw.LOST),
    Rule.SLOW_BELOW_MARK: (scenarios.KILLED_BROKER, Flaw.RUNS_AFTER_DONE),
    Rule.MARK_NAMES_LIFE: (scenarios.KILLED_AND_MARKED, Flaw.RUNS_AFTER_DONE),
    Rule.LIFE_BEFORE_SEQUENCE: (scenarios.KILLED_AND_MARKED, Flaw.RUNS_AFTER_DONE),
    Rule.UNMARK_FIRST: (scenarios.REMADE, Flaw.RUNS_AFTER_DONE),
    Rule.OWN_CLAIM_IS_NO_CRASH: (scenarios.UNSEEN, Flaw.BURNED),
    Rule.ASK_HOLDER: (scenarios.KILLS_ALONE, Flaw.BURNED),
    Rule.CRASH_IF_GONE: (scenarios.LAPSE, Flaw.BURNED),
    Rule.AWAIT_RECONNECT: (scenarios.KILLS_ALONE, Flaw.BURNED),
    Rule.DEFER_RECORD_FIRST: (scenarios.UNKNOWN, Flaw.LOST),
    Rule.MARK_DROPPED: (scenarios.LAPSE_EXIT, Flaw.BURNED),
    Rule.ALONE_BEFORE_BURIAL: (scenarios.CRASHES, Flaw.BURIED_NEIGHBOUR),
    Rule.CLAIM_WHEN_ALONE: (scenarios.CRASHES, Flaw.BURIED_NEIGHBOUR),
    Rule.GIVE_WAY_SELDOM: (scenarios.GIVES_WAY, Flaw.LIVELOCK),
    Rule.REDRIVE_FENCED: (scenarios.REDRIVE, Flaw.LOST),
}
"""What each rule is for. The one rule in force that is not here saves time and nothing else: see below."""


def explored(
    scenario: Scenario,
    rules: frozenset[Rule] = PROTOCOL,
    *,
    until: Flaw | None = None,
    tolerated: frozenset[Flaw] = frozenset(),
) -> Exploration:
    """Explore, and put counts and shortest traces where pytest shows them: `pytest -rP`."""
    if scenario in scenarios.FORGETFUL:
        tolerated = OVERLAP
    seen = explore(Model(scenario, rules), until=until, tolerated=tolerated)
    sys.stdout.write("\n".join([f"{scenario.name}: {seen}", *map(str, seen.findings.values()), ""]))
    return seen


def test_the_models_are_those_whose_large_scenarios_were_explored() -> None:
    assert present() == recorded(), "run `make test/deep`, which explores all of them and writes this down"


def test_every_rule_says_why_and_what_it_prevents() -> None:
    assert set(WHY) == set(Rule)
    assert set(PREVENTS) == PROTOCOL - {Rule.SCHEDULE_FENCED}


@pytest.mark.parametrize("scenario", but(scenarios.LARGE, scenarios.ALL), ids=lambda scenario: scenario.name)
def test_with_all_rules_no_bad_state_is_reached(scenario: Scenario) -> None:
    seen = explored(scenario)
    assert not seen.findings
    assert seen.outcomes == {"ok", "dead"} | ({"cancelled"} if scenario.budget.cancels else set())


def test_a_killed_broker_makes_runs_overlap_and_does_nothing_worse() -> None:
    assert not explored(scenarios.KILLED_BROKER).findings
    assert Flaw.TWO_AT_ONCE in explore(Model(scenarios.KILLED_BROKER), until=Flaw.TWO_AT_ONCE).findings


@pytest.mark.parametrize(
    "scenario",
    but(scenarios.LARGE, [scenarios.REDRIVE, scenarios.REDRIVES]),
    ids=lambda scenario: scenario.name,
)
def test_a_redrive_runs_a_dead_task_once_more_and_loses_nothing(scenario: Scenario) -> None:
    """A late copy of the failed attempt may write its letter again: the next redrive finds it outdated."""
    seen = explored(scenario, tolerated=frozenset({Flaw.GHOST_LETTER}))
    assert set(seen.findings) <= {Flaw.GHOST_LETTER}
    assert seen.outcomes == {"ok", "dead"}


@pytest.mark.parametrize(
    "scenario", [scenarios.KILLED_AND_MARKED, scenarios.REMADE], ids=lambda scenario: scenario.name
)
def test_what_is_above_the_mark_of_this_life_may_skip_the_claim(scenario: Scenario) -> None:
    seen = explored(scenario)
    assert not seen.findings
    assert seen.outcomes == {"ok", "dead"}


def test_kills_of_the_broker_alone_count_no_crash() -> None:
    seen = explored(scenarios.KILLS_ALONE)
    assert not seen.findings
    assert seen.outcomes == {"ok", "dead"}, "dead is what failed for good"


@pytest.mark.parametrize("rule", PREVENTS, ids=lambda rule: rule.name.lower())
def test_a_rule_taken_out_lets_its_bad_state_in(rule: Rule) -> None:
    scenario, flaw = PREVENTS[rule]
    sys.stdout.write(f"without '{rule}': {WHY[rule]}\n")
    assert flaw in explored(scenario, PROTOCOL - {rule}, until=flaw).findings


FENCE: Final = (
    *(scenarios.CRASHES, scenarios.REPUBLISH, scenarios.REFIRE, scenarios.LAPSE, scenarios.DRAIN),
    *(scenarios.CANCEL, scenarios.UNSEEN, scenarios.THREE_ATTEMPTS),
)


@pytest.mark.parametrize(
    "scenario",
    but((scenarios.REPUBLISH, scenarios.CANCEL, scenarios.LAPSE), FENCE),
    ids=lambda scenario: scenario.name,
)
def test_the_fence_on_the_schedule_only_saves_a_round_trip(scenario: Scenario) -> None:
    assert not explored(scenario, PROTOCOL - {Rule.SCHEDULE_FENCED}).findings


def test_copies_that_cannot_tell_their_claims_apart_take_each_other_over_for_ever() -> None:
    nameless = PROTOCOL - {Rule.CLAIM_NAMES_MESSAGE}
    assert Flaw.LIVELOCK in explored(scenarios.COUNTLESS_REFIRE, nameless, tolerated=OVERLAP).findings
    assert not explored(scenarios.COUNTLESS_REFIRE).findings


@pytest.mark.parametrize(
    ("scenario", "flaw"),
    [
        (scenarios.LAPSE, Flaw.GHOST_LETTER),
        (scenarios.CANCEL, Flaw.GHOST_LETTER),
        (scenarios.FOUR_ATTEMPTS, Flaw.LOST),
        (scenarios.KILLED_BROKER, Flaw.RUNS_AFTER_DONE),
        (scenarios.UNSEEN, Flaw.BURNED),
    ],
    ids=lambda value: value.name.lower().replace("_", " "),
)
def test_the_protocol_as_first_written_had_a_hole(scenario: Scenario, flaw: Flaw) -> None:
    tolerated = frozenset({Flaw.BURIED_NEIGHBOUR})
    assert flaw in explored(scenario, AS_FIRST_WRITTEN, until=flaw, tolerated=tolerated).findings


def test_the_dead_letter_first_leaves_no_dead_task_without_one() -> None:
    neither = AS_FIRST_WRITTEN - {Rule.DEAD_LETTER_FIRST}
    assert Flaw.LETTER_LOST in explored(scenarios.CRASHES, neither, until=Flaw.LETTER_LOST).findings
    assert Flaw.LETTER_LOST not in explored(scenarios.CRASHES, AS_FIRST_WRITTEN).findings


def test_known_limit_a_first_publish_that_arrives_after_its_repetition_runs_again_with_one_outcome() -> None:
    assert set(explored(scenarios.LATE_FIRST).findings) == {Flaw.RUNS_AFTER_DONE, Flaw.TWO_AT_ONCE}


def test_a_nak_that_arrives_after_its_lease_is_harmless_since_the_next_worker_is_asked() -> None:
    assert not explored(scenarios.LATE_NAK).findings
    assert Flaw.TWO_AT_ONCE in explored(scenarios.LATE_NAK, PROTOCOL - {Rule.ASK_HOLDER}).findings
