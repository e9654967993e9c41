from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley.declared import DeclaredSpec
from galley.envelope import INPUT_LIMIT, Envelope, digest_of
from galley.errors import ManifestInvalid
from galley.lanes import Lane
from galley.record import Outcome, Record, State, Stored
from galley_operator.intake.admission import Claim, Facts, Publish, claim_on, decide
from galley_operator.intake.broker_tasks import Trace
from galley_operator.tasks.report import Admitted, AlreadyRan, Gone, Pending, Recorded, Rejected, Until
from tests.unit.galley_operator.intake.tasks import CREATED, NOW, a_known_queue, an_active_task, some_facts


def told(facts: Facts) -> Pending | Rejected | None:
    """Return why a task is not admitted."""
    step = decide(facts)
    return step if isinstance(step, Pending | Rejected) else None


NO_HANDLERS = a_known_queue(handlers=frozenset())
COMMANDS = a_known_queue(handlers=frozenset({"list", "copy"}))


@pytest.mark.parametrize(
    "facts",
    [
        some_facts(),
        some_facts(priority="low", deadline="2026-03-01T08:30:01Z", input={"a": 1}),
        some_facts(COMMANDS, handler="list"),
        some_facts(input="x" * (INPUT_LIMIT - 2)),
    ],
    ids=["plain", "low and in time", "a command of the queue", "as large as may be"],
)
def test_a_task_with_nothing_against_it_is_admitted(facts: Facts) -> None:
    assert told(facts) is None


UNREADABLE = a_known_queue(lanes=(), problem="TaskQueue 'thumbs' cannot be read: spec.x")


@pytest.mark.parametrize(
    ("facts", "reason", "words", "until"),
    [
        (some_facts(no_queue=True), "QueueNotFound", "no TaskQueue 'thumbs'", Until.QUEUE_CHANGES),
        (some_facts(UNREADABLE), "QueueInvalid", "spec.x; correct", Until.QUEUE_CHANGES),
        (some_facts(priority="critical"), "LaneNotEnabled", "but high, normal, low", Until.QUEUE_CHANGES),
        (some_facts(COMMANDS), "HandlerNotFound", "but copy, list;", Until.QUEUE_CHANGES),
        (some_facts(NO_HANDLERS), "HandlerNotFound", "and no others", Until.QUEUE_CHANGES),
        (some_facts(deadline="2026-03-01T08:30:00Z"), "DeadlineExceeded", "08:30:00", None),
        (some_facts(unique={"key": ""}), "SubmissionInvalid", "unique.key", None),
        (some_facts(key="${input.nowhere}"), "SubmissionInvalid", "input has no field 'nowhere'", None),
        (some_facts(input="x" * INPUT_LIMIT), "InputInvalid", f"limit is {INPUT_LIMIT}", None),
    ],
)
def test_a_task_that_is_not_admitted_is_told_why_and_what_has_to_happen(
    facts: Facts, reason: str, words: str, until: Until | None
) -> None:
    no = told(facts)
    assert no is not None
    assert no.reason == reason
    assert words in no.message
    assert (no.until if isinstance(no, Pending) else None) == until


def test_what_can_never_work_is_told_before_what_may_yet_change() -> None:
    assert isinstance(told(some_facts(no_queue=True, deadline="2026-03-01T00:00:00Z")), Rejected)


def test_a_task_waits_for_the_lane_its_queue_lacks() -> None:
    urgent = some_facts(a_known_queue(lanes=(Lane.CRITICAL,)), priority="critical")
    assert told(urgent) is None


# Whose the task is that the broker has under a name.

TASK = an_active_task()
"""Uid u1, made at 8:00."""

DIGEST = digest_of("resize", Raw(b"{}"), "normal")
OTHER = digest_of("resize", Raw(b"[1]"), "normal")
BEFORE, AFTER = CREATED - timedelta(minutes=1), CREATED + timedelta(minutes=1)


def ended(**changes: Any) -> Trace:
    record = Record(State.DONE, 1, ended_at=AFTER, outcome=Outcome.SUCCEEDED)
    return Trace(Stored(replace(record, **changes), 7))


def running(**changes: Any) -> Trace:
    return Trace(Stored(replace(Record(State.RUN, 1), **changes), 7), held=True)


def waiting(**changes: Any) -> Trace:
    return Trace(held=True, envelope=Envelope("resize", CREATED, **changes))


@pytest.mark.parametrize(
    ("trace", "claim"),
    [
        (Trace(), Claim.FREE),
        (waiting(uid="u1", digest=DIGEST), Claim.OURS),
        (running(uid="u1"), Claim.OURS),
        (ended(uid="u1", ended_at=BEFORE), Claim.OURS),
        (ended(uid="u1", digest=OTHER), Claim.OURS),
        # of a Task that was deleted
        (waiting(uid="u0", digest=DIGEST), Claim.EARLIER),
        (running(uid="u0", digest=DIGEST, remembered=True), Claim.EARLIER),
        (ended(uid="u0", digest=DIGEST), Claim.EARLIER),
        (ended(uid="u0", digest=DIGEST, remembered=True), Claim.REMEMBERED),
        (ended(uid="u0", remembered=True), Claim.REMEMBERED),
        (ended(uid="u0", digest=OTHER, remembered=True), Claim.EARLIER),
        # submitted without a Task, or by a worker that does not copy the uid
        (waiting(digest=DIGEST), Claim.OURS),
        (waiting(), Claim.OURS),
        (Trace(held=True), Claim.OURS),
        (waiting(digest=OTHER), Claim.TAKEN),
        (running(), Claim.OURS),
        (running(digest=OTHER), Claim.TAKEN),
        (ended(digest=DIGEST), Claim.OURS),
        (ended(digest=DIGEST, ended_at=BEFORE), Claim.REMEMBERED),
        (ended(ended_at=BEFORE), Claim.REMEMBERED),
        (ended(ended_at=None), Claim.OURS),
        (ended(digest=OTHER, ended_at=BEFORE), Claim.TAKEN),
    ],
)
def test_whose_a_task_is_follows_from_uid_digest_and_memory(trace: Trace, claim: Claim) -> None:
    assert claim_on(TASK, trace, DIGEST) is claim


def test_the_work_of_an_older_operator_is_found_by_uid_and_is_ours() -> None:
    old = replace(TASK, by_uid=True)
    assert claim_on(old, ended(ended_at=BEFORE), "") is Claim.OURS


def test_a_claim_leads_to_what_is_done() -> None:
    facts = some_facts()
    assert isinstance(facts.spec, DeclaredSpec)
    digest = facts.spec.digest

    def step(trace: Trace, **changes: Any) -> object:
        return decide(replace(facts, trace=trace, **changes))

    fresh = step(Trace())
    assert isinstance(fresh, Publish)
    assert (fresh.envelope.uid, fresh.envelope.digest, fresh.earlier) == ("u1", digest, None)
    assert fresh.envelope.submitted_at == CREATED
    assert step(waiting(uid="u1")) == Admitted()
    assert step(running(uid="u1")) == Recorded(running(uid="u1").stored)  # type: ignore[arg-type]
    kept = ended(uid="u0", digest=digest, remembered=True)
    assert isinstance(step(kept), AlreadyRan)
    after = step(ended(uid="u0", digest=digest))
    assert isinstance(after, Publish)
    assert after.earlier == ended(uid="u0", digest=digest)
    taken = step(waiting(digest=OTHER))
    assert isinstance(taken, Rejected)
    assert (taken.reason, "another name" in taken.message) == ("NameTaken", True)
    assert step(Trace(), spec=None) == Gone()
    unreadable = step(Trace(), spec=ManifestInvalid("Task one", 0, "spec", "no handler", "correct it"))
    assert isinstance(unreadable, Rejected)
    assert unreadable.reason == "ManifestInvalid"


def test_a_start_that_has_passed_is_no_reason_to_wait() -> None:
    past = decide(some_facts(notBefore="2026-03-01T08:29:00Z"))
    ahead = decide(some_facts(notBefore="2026-03-01T08:31:00Z"))
    assert isinstance(past, Publish)
    assert isinstance(ahead, Publish)
    assert (past.envelope.not_before, ahead.envelope.not_before) == (None, NOW + timedelta(minutes=1))


def test_a_task_carries_the_labels_of_its_object() -> None:
    facts = replace(some_facts(), labels={"app.kubernetes.io/name": "shop", "team": "billing"})
    step = decide(facts)
    assert isinstance(step, Publish)
    assert step.envelope.labels == {"app.kubernetes.io/name": "shop", "team": "billing"}
    plain = decide(some_facts())
    assert isinstance(plain, Publish)
    assert plain.envelope.digest == step.envelope.digest
    assert plain.envelope.labels is None


def test_a_task_whose_object_has_too_many_labels_is_rejected() -> None:
    refused = told(replace(some_facts(), labels={f"k{n}": "" for n in range(65)}))
    assert isinstance(refused, Rejected)
    assert refused.reason == "LabelInvalid"
    assert "65 labels, the limit is 64" in refused.message
