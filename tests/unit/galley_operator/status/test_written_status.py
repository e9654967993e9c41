import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from galley.history import NO_HISTORY, WORKER_LOST, EndedBy, PastAttempt
from galley.record import Failure, Outcome, Record, State
from galley.resources import DeclaredStatus
from galley.resources.declared_status import INLINE_RESULT_LIMIT, TRACEBACK_LIMIT
from galley_operator.status.written_status import (
    MESSAGE_LIMIT,
    WrittenStatus,
    lost_worker,
    pending,
    queued,
    recorded,
    rejected,
    without_queue,
    without_result,
)
from galley_operator.tasks.active_tasks import shown_by
from tests.unit.galley_operator.intake.tasks import CREATED, NOW, an_active_task

STARTED = NOW + timedelta(seconds=1)
ENDED = NOW + timedelta(seconds=3)


def a_record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "state": State.DONE, "attempt": 1, "worker": "w1", "submitted_at": CREATED, "started_at": STARTED,
        "ended_at": ENDED, "outcome": Outcome.SUCCEEDED, "result": Raw(b'{"n": null}'),
    }  # fmt: skip
    return Record(**{**values, **changes})


RUNNING = a_record(state=State.RUN, outcome=None, ended_at=None)
RETRYING = a_record(
    state=State.RETRY,
    attempt=3,
    outcome=None,
    ended_at=None,
    due_at=ENDED,
    failure=Failure("TimedOut", "5 s"),
)
FAILED = a_record(
    outcome=Outcome.FAILED, result=Raw(b"null"), failure=Failure("HandlerRaised", "ValueError: no")
)
ALL = {
    "pending": pending(an_active_task(), "QueueNotFound", "none"),
    "rejected": rejected(an_active_task(), "InputInvalid", "large", NOW),
    "queued": queued(an_active_task(), NOW),
    "scheduled": queued(an_active_task(not_before=NOW + timedelta(hours=1)), NOW),
    "running": recorded(an_active_task(), RUNNING),
    "handed back": recorded(an_active_task(), msgspec.structs.replace(RUNNING, handed_back=True)),
    "retrying": recorded(an_active_task(), RETRYING),
    "succeeded": recorded(an_active_task(), a_record()),
    "failed": recorded(an_active_task(), FAILED),
    "cancelled": recorded(an_active_task(), a_record(outcome=Outcome.CANCELLED, result=Raw(b"null"))),
}


def read(status: WrittenStatus) -> dict[str, Any]:
    """Return a status as the API server gets it."""
    body: dict[str, Any] = json.loads(msgspec.json.encode(status.body))
    return body


WITHOUT_QUEUE = {name: without_queue(an_active_task(), status) for name, status in ALL.items()}


@pytest.mark.parametrize("name", ALL)
def test_what_waits_for_a_queue_that_was_deleted_says_so_and_nothing_else_does(name: str) -> None:
    before, now = ALL[name], WITHOUT_QUEUE[name]
    if name in {"queued", "scheduled", "handed back", "retrying"}:
        assert read(now)["phase"] == read(before)["phase"]
        assert read(now)["conditions"][0]["reason"] == "QueueNotFound"
        assert now.shown != before.shown
    else:
        assert now == before


@pytest.mark.parametrize("status", [*ALL.values(), *WITHOUT_QUEUE.values()])
def test_every_status_is_what_the_resource_allows(status: WrittenStatus) -> None:
    model = DeclaredStatus.model_validate(read(status))
    assert model.phase is not None
    assert status.final is model.phase.ended
    assert model.observed_generation == model.conditions[0].observed_generation == 1


@pytest.mark.parametrize(
    ("name", "phase", "truth", "reason"),
    [
        ("pending", "Pending", "Unknown", "QueueNotFound"),
        ("rejected", "Failed", "False", "InputInvalid"),
        ("queued", "Queued", "Unknown", "Queued"),
        ("scheduled", "Scheduled", "Unknown", "Scheduled"),
        ("running", "Running", "Unknown", "Running"),
        ("handed back", "Queued", "Unknown", "Queued"),
        ("retrying", "Retrying", "Unknown", "TimedOut"),
        ("succeeded", "Succeeded", "True", "Succeeded"),
        ("failed", "Failed", "False", "HandlerRaised"),
        ("cancelled", "Cancelled", "False", "Cancelled"),
    ],
)
def test_the_condition_is_unknown_until_the_end_and_says_why(
    name: str, phase: str, truth: str, reason: str
) -> None:
    body = read(ALL[name])
    condition, finished = body["conditions"]
    assert (finished["type"], finished["status"], finished["reason"]) == (
        "Finished", str(truth != "Unknown"), phase,
    )  # fmt: skip
    assert finished["lastTransitionTime"] == condition["lastTransitionTime"]
    assert (body["phase"], condition["type"], condition["status"], condition["reason"]) == (
        phase, "Succeeded", truth, reason,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pending", "queued", "scheduled", "running", "handed back", "retrying"])
def test_the_condition_changed_last_when_the_task_was_made_as_long_as_it_is_unknown(name: str) -> None:
    assert read(ALL[name])["conditions"][0]["lastTransitionTime"] == "2026-03-01T08:00:00Z"


@pytest.mark.parametrize("name", ["succeeded", "failed", "cancelled"])
def test_the_condition_changed_last_when_the_task_ended(name: str) -> None:
    body = read(ALL[name])
    assert body["conditions"][0]["lastTransitionTime"] == body["completionTime"] == "2026-03-01T08:30:03Z"


def test_a_result_stands_there_as_the_handler_gave_it() -> None:
    body = read(ALL["succeeded"])
    assert body["result"] == {"n": None}
    assert (body["attempts"], body["worker"], body["startTime"]) == (1, "w1", "2026-03-01T08:30:01Z")
    assert "error" not in body


def test_a_result_that_is_null_is_left_out() -> None:
    assert "result" not in read(recorded(an_active_task(), a_record(result=Raw(b"null"))))


def test_the_largest_result_that_fits_stands_there_and_the_next_only_tells_its_size() -> None:
    fits = Raw(json.dumps("x" * (INLINE_RESULT_LIMIT - 2)).encode())
    assert "result" in read(recorded(an_active_task(), a_record(result=fits)))
    body = read(recorded(an_active_task(), a_record(result=Raw(bytes(fits) + b" "))))
    assert body["resultBytes"] == INLINE_RESULT_LIMIT + 1
    assert "result" not in body
    task = an_active_task()
    command = f"galley show {task.queue}/{task.name} --namespace {task.namespace} -o json"
    assert command in body["conditions"][0]["message"]


def test_a_result_the_server_does_not_take_is_replaced_by_its_size() -> None:
    body = read(without_result(ALL["succeeded"]))
    assert body["resultBytes"] == len(b'{"n": null}')
    assert "result" not in body


def test_the_end_of_a_traceback_is_kept() -> None:
    lines = [f"  File 'a.py', line {number}" for number in range(500)]
    trace = "\n".join([*lines, "ValueError: no"])
    record = msgspec.structs.replace(FAILED, failure=Failure("HandlerRaised", "no", trace))
    kept = read(recorded(an_active_task(), record))["error"]["traceback"]
    assert len(kept) <= TRACEBACK_LIMIT
    assert kept.startswith("…  File")
    assert trace.endswith(kept[1:])
    short = msgspec.structs.replace(FAILED, failure=Failure("HandlerRaised", "no", "one\ntwo"))
    assert read(recorded(an_active_task(), short))["error"]["traceback"] == "one\ntwo"


def test_an_error_is_kept_short() -> None:
    record = msgspec.structs.replace(FAILED, failure=Failure("HandlerRaised", "x" * 5000))
    body = read(recorded(an_active_task(), record))
    assert len(body["error"]["message"]) == MESSAGE_LIMIT
    assert body["error"]["message"].endswith("…")


def test_a_task_that_waits_for_its_next_attempt_tells_of_the_last_one() -> None:
    body = read(ALL["retrying"])
    assert body["attempts"] == 2
    assert body["error"] == {"reason": "TimedOut", "message": "5 s"}
    assert body["conditions"][0]["message"] == "5 s; tried again at 2026-03-01T08:30:03Z"


def test_the_end_of_a_lost_worker_explains_the_end_of_its_task() -> None:
    past = PastAttempt(1, EndedBy.CRASH, WORKER_LOST, "no lease", "w1", ENDED)
    lost = msgspec.structs.replace(FAILED, history=NO_HISTORY.with_attempt(past))
    assert (lost_worker(lost), lost_worker(FAILED), lost_worker(a_record(history=lost.history))) == (
        "w1",
        "",
        "",
    )
    body = read(recorded(an_active_task(), lost, "w1 was killed (OOMKilled)"))
    assert body["conditions"][0]["message"] == "ValueError: no; w1 was killed (OOMKilled)"
    assert body["error"]["message"] == body["conditions"][0]["message"]


def test_a_success_after_failures_keeps_no_error() -> None:
    body = read(recorded(an_active_task(), a_record(attempt=3, failure=Failure("TimedOut", "5 s"))))
    assert "error" not in body


def test_when_a_task_was_queued_is_kept() -> None:
    task = an_active_task(queued_at=datetime(2026, 3, 1, 8, 10, tzinfo=UTC))
    assert read(recorded(task, a_record()))["queuedTime"] == "2026-03-01T08:10:00Z"


def test_statuses_that_say_the_same_are_the_same_to_the_writer() -> None:
    assert ALL["succeeded"].shown == shown_by("Succeeded", "Succeeded", 1, "w1")
    assert recorded(an_active_task(uid="u2"), RUNNING).shown == ALL["running"].shown
    assert len({status.shown for status in ALL.values()}) == len(ALL)


def test_times_are_told_in_utc_whatever_the_record_says() -> None:
    offset = datetime.fromisoformat("2026-03-01T10:30:03.900+02:00")
    assert (
        read(recorded(an_active_task(), a_record(ended_at=offset)))["completionTime"]
        == "2026-03-01T08:30:03Z"
    )
