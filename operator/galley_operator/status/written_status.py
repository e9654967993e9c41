"""What stands in the status of a Task, made from what is known of it. Pure.

A status is what `galley.resources.DeclaredStatus` describes, as JSON values. It is made as a whole each time
and replaces what stood there, so that nothing of before is left over. The phase is made from the rest.
"""

from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

import msgspec
from msgspec import Struct

from galley.encryption.token import key_in
from galley.history import WORKER_LOST
from galley.note import Progress
from galley.record import NULL, Failure, Outcome, Record, State
from galley.resources.declared_status import FINISHED, INLINE_RESULT_LIMIT, SUCCEEDED, TRACEBACK_LIMIT
from galley.task_status import Phase
from galley_operator.tasks.active_tasks import ActiveTask, shown_by
from galley_operator.tasks.report import Admitted, AlreadyRan, Pending, Recorded, Rejected, Report

ALREADY_RAN: Final = "AlreadyRan"
"""Reason of the condition of a Task whose work ran before the Task was made."""

MESSAGE_LIMIT: Final = 1024
"""Characters of an error's message kept in the object; `galley show` tells all of it."""


_LONGEST_REASON: Final = 64
_LONGEST_WORKER: Final = 253
"""What the definition of Task allows."""

_TOO_LARGE: Final = "the API server did not accept its result; galley show QUEUE/NAME -o json prints it"

_WAITING: Final = frozenset({Phase.SCHEDULED.value, Phase.QUEUED.value, Phase.RETRYING.value})
_TRUTH: Final = {Outcome.SUCCEEDED: "True", Outcome.FAILED: "False", Outcome.CANCELLED: "False"}
_PHASES: Final = {
    Outcome.SUCCEEDED: Phase.SUCCEEDED,
    Outcome.FAILED: Phase.FAILED,
    Outcome.CANCELLED: Phase.CANCELLED,
}


class WrittenStatus(Struct, frozen=True):
    """A status that is to be written."""

    body: dict[str, Any]
    shown: int
    """Stands for what matters in it (see `shown_by`)."""
    final: bool = False
    """Whether nothing comes after it."""


class Context(Struct, frozen=True):
    """What a status is made from beside the Task and the report."""

    now: datetime
    queue_exists: bool = True
    """Whether there is a TaskQueue of the name that the Task gives."""
    end_of_worker: str = ""
    """How its lost worker ended, as a sentence, where that is known."""


def status_of(task: ActiveTask, report: Report, context: Context) -> WrittenStatus | None:
    """Return the status that a report leads to; None if it leads to none."""
    status: WrittenStatus | None = None
    match report:
        case Admitted() if not task.recorded:
            status = queued(task, task.queued_at or context.now)
        case Recorded(stored):
            status = recorded(task, stored.record, context.end_of_worker)
        case AlreadyRan(stored):
            status = already_ran(task, stored.record)
        case Rejected(reason, message):
            status = rejected(task, reason, message, context.now)
        case Pending(reason, message):
            status = pending(task, reason, message)
    return status if status is None or context.queue_exists else without_queue(task, status)


def pending(task: ActiveTask, reason: str, message: str) -> WrittenStatus:
    """Return the status of a task that is not admitted yet, and why."""
    return _status(task, Phase.PENDING, "Unknown", reason, message, {})


def rejected(task: ActiveTask, reason: str, message: str, now: datetime) -> WrittenStatus:
    """Return the status of a task that is never admitted: it has failed."""
    fields = {"completionTime": _time(now), "error": _error(Failure(reason, message))}
    return _status(task, Phase.FAILED, "False", reason, message, fields, since=now)


def queued(task: ActiveTask, at: datetime) -> WrittenStatus:
    """Return the status of a task that the broker has.

    Args:
        task: which one.
        at: when the broker had it.
    """
    fields = {"queuedTime": _time(at)}
    if task.not_before is not None and task.not_before > at:
        message = f"is to start at {_time(task.not_before)}"
        return _status(task, Phase.SCHEDULED, "Unknown", Phase.SCHEDULED, message, fields)
    return _status(task, Phase.QUEUED, "Unknown", Phase.QUEUED, "waits for a free worker", fields)


def already_ran(task: ActiveTask, record: Record) -> WrittenStatus:
    """Return the status of a Task whose work ran before the Task was made: the outcome of then, and why."""
    status = recorded(task, record)
    ended = f" and ended at {_time(record.ended_at)}" if record.ended_at is not None else ""
    message = (
        f"a task of this name and spec ran before{ended}, so this one does not run; "
        "to run it again delete this Task and apply it again, or apply it under another name"
    )
    return _because(status, ALREADY_RAN, message)


def without_queue(task: ActiveTask, status: WrittenStatus) -> WrittenStatus:
    """Return the status of a task whose TaskQueue is gone: no worker takes it, if it waits."""
    if status.body["phase"] not in _WAITING:
        return status
    message = (
        f"its TaskQueue {task.queue!r} was deleted; apply it again, and the task goes on, or delete the task"
    )
    reason = "QueueNotFound"
    return _because(status, reason, message)


def lost_worker(record: Record) -> str:
    """Return whose loss ended a task for good; empty if it ended otherwise, or goes on."""
    if record.outcome is not Outcome.FAILED or not record.history.attempts:
        return ""
    last = record.history.attempts[-1]
    return last.worker if last.reason == WORKER_LOST else ""


def recorded(task: ActiveTask, record: Record, end_of_worker: str = "") -> WrittenStatus:
    """Return the status that a task's record tells.

    Args:
        task: which one.
        record: the newest of it.
        end_of_worker: how its lost worker ended, as a sentence, where that is known.
    """
    if record.sealed:
        record = _redacted(task, record)
    fields: dict[str, Any] = {"attempts": record.attempt}
    fields["queuedTime"] = _time(task.queued_at or record.submitted_at or task.created)
    if record.worker:
        fields["worker"] = record.worker[:_LONGEST_WORKER]
    if _is_of(task.progress, record):
        fields["progress"] = _progress(task.progress)
    if record.started_at is not None:
        fields["startTime"] = _time(record.started_at)
    if record.outcome is not None:
        return _ended(task, _explained(record, end_of_worker), record.outcome, fields)
    if record.failure is not None:
        fields["error"] = _error(record.failure)
    if record.state is State.RETRY:
        # The record speaks of the attempt to come; that one has not begun.
        fields["attempts"] = record.attempt - 1
        due = f"; tried again at {_time(record.due_at)}" if record.due_at else ""
        reason = record.failure.reason if record.failure else Phase.RETRYING.value
        message = (_short(record.failure.message) if record.failure else "an attempt failed") + due
        return _status(task, Phase.RETRYING, "Unknown", reason, message, fields)
    if record.handed_back:
        message = "its worker stopped and gave it back; waits for a free worker"
        return _status(task, Phase.QUEUED, "Unknown", Phase.QUEUED, message, fields)
    return _status(task, Phase.RUNNING, "Unknown", Phase.RUNNING, f"attempt {record.attempt} runs", fields)


def _is_of(progress: Progress | None, record: Record) -> TypeGuard[Progress]:
    """Return whether a progress is that of the attempt a record tells of, and not of one before."""
    if progress is None or record.state is State.RETRY or record.handed_back:
        return False
    return progress.attempt == record.attempt


def _progress(progress: Progress) -> dict[str, Any]:
    said: dict[str, Any] = {} if progress.fraction is None else {"fraction": progress.fraction}
    return {**said, "note": progress.text} if progress.text else said


def _redacted(task: ActiveTask, record: Record) -> Record:
    """Return a record with what stands for the words of its failure: the API server is given no payload."""
    if record.failure is None:
        return record
    message = _elsewhere(task, _encrypted("its message", record))
    return msgspec.structs.replace(record, failure=Failure(record.failure.reason, message))


def _encrypted(what: str, record: Record) -> str:
    return f"{what} is encrypted with key {key_in(record.sealed)!r}"


def _explained(record: Record, end_of_worker: str) -> Record:
    """Return the record of a task whose worker was lost, with what others than the workers know of that."""
    if not end_of_worker or record.failure is None or end_of_worker in record.failure.message:
        return record
    failure = msgspec.structs.replace(record.failure, message=f"{record.failure.message}; {end_of_worker}")
    return msgspec.structs.replace(record, failure=failure)


def _ended(task: ActiveTask, record: Record, outcome: Outcome, fields: dict[str, Any]) -> WrittenStatus:
    ended_at = record.ended_at or task.created
    fields["completionTime"] = _time(ended_at)
    phase, truth = _PHASES[outcome], _TRUTH[outcome]
    if outcome is Outcome.SUCCEEDED and record.sealed:
        message = _elsewhere(task, _encrypted("its result", record))
        return _status(task, phase, truth, phase, message, fields, since=ended_at)
    if outcome is Outcome.SUCCEEDED:
        size = len(record.result) if record.large is None else record.large.size
        if size > INLINE_RESULT_LIMIT:
            fields["resultBytes"] = size
            message = _elsewhere(task, f"its result has {size} bytes, too many to be kept here")
            if record.large is not None:
                message = message.replace("galley show", "galley result").replace(" -o json", "")
            return _status(task, phase, truth, phase, message, fields, since=ended_at)
        if record.result != NULL:
            fields["result"] = record.result
        return _status(task, phase, truth, phase, "", fields, since=ended_at)
    if outcome is Outcome.CANCELLED:
        told = record.failure or Failure(phase, "it was cancelled")
        return _status(task, phase, truth, told.reason, _short(told.message), fields, since=ended_at)
    failure = record.failure or Failure("Failed", "no reason was recorded")
    fields["error"] = _error(failure)
    return _status(task, phase, truth, failure.reason, _short(failure.message), fields, since=ended_at)


def _status(  # noqa: PLR0917 - a status has so many parts
    task: ActiveTask,
    phase: Phase,
    truth: str,
    reason: str,
    message: str,
    fields: dict[str, Any],
    *,
    since: datetime | None = None,
) -> WrittenStatus:
    """Return the whole status; the condition is Unknown from the task's making to its end."""
    condition = {
        "type": SUCCEEDED,
        "status": truth,
        "reason": str(reason)[:_LONGEST_REASON] or "Unknown",
        "message": message,
        "lastTransitionTime": _time(since or task.created),
        "observedGeneration": task.generation,
    }
    finished = {
        **condition,
        "type": FINISHED,
        "status": "True" if phase.ended else "False",
        "reason": phase.value,
        "message": "",
    }
    body = {
        "observedGeneration": task.generation,
        "phase": phase.value,
        "conditions": [condition, finished],
        **fields,
    }
    return WrittenStatus(body, _shown(body, str(reason)), phase.ended)


def _shown(body: dict[str, Any], reason: str) -> int:
    said = body.get("progress", {})
    attempts, worker = body.get("attempts", 0), body.get("worker", "")
    return shown_by(body["phase"], reason, attempts, worker, said.get("fraction"), said.get("note", ""))


def _error(failure: Failure) -> dict[str, str]:
    error = {"reason": failure.reason[:_LONGEST_REASON] or "Unknown", "message": _short(failure.message)}
    if failure.traceback:
        error["traceback"] = _end(failure.traceback)
    return error


def _end(traceback: str) -> str:
    """Return the last whole lines of a traceback, which say what was raised and where."""
    if len(traceback) <= TRACEBACK_LIMIT:
        return traceback
    end = traceback[1 - TRACEBACK_LIMIT :]
    return "…" + (end.partition("\n")[2] or end)


def _elsewhere(task: ActiveTask, why: str) -> str:
    """Return where the whole of it is found."""
    keys = " --keys PATH" if "encrypted" in why else ""
    command = f"galley show {task.queue}/{task.name} --namespace {task.namespace}{keys} -o json"
    return f"{why}; {command} prints it"


def _short(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else f"{message[: MESSAGE_LIMIT - 1]}…"


def _time(moment: datetime | None) -> str | None:
    """Return a time as the API conventions write it: UTC, whole seconds."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def without_result(status: WrittenStatus) -> WrittenStatus:
    """Return a status that names the size of its result in place of it."""
    body = dict(status.body)
    if "result" in body:
        body["resultBytes"] = memoryview(body.pop("result")).nbytes
        body["conditions"] = [
            {**each, "message": _TOO_LARGE} if each["type"] == SUCCEEDED else each
            for each in body.get("conditions", ())
        ]
    return WrittenStatus(body, status.shown, status.final)


def bare(status: WrittenStatus) -> WrittenStatus:
    """Return a status with its phase and conditions alone, where the API server does not accept more."""
    kept = ("observedGeneration", "phase", "conditions", "completionTime")
    body = {key: status.body[key] for key in kept if key in status.body}
    plain = WrittenStatus(body, status.shown, status.final)
    message = "the API server did not accept the whole status; galley show tells the rest"
    return WrittenStatus(_because(plain, body["phase"], message).body, status.shown, status.final)


def _because(status: WrittenStatus, reason: str, message: str) -> WrittenStatus:
    """Return a status with another reason and message in its condition."""
    conditions = [
        {**each, "reason": reason, "message": message} if each["type"] == SUCCEEDED else each
        for each in status.body["conditions"]
    ]
    body = {**status.body, "conditions": conditions}
    return WrittenStatus(body, _shown(body, reason), status.final)
