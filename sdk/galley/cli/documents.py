"""Tasks and queues as plain data, for `-o json` and `-o yaml`: stable names for programs."""

from datetime import datetime
from typing import Any

import msgspec

from galley.broker.queue_view import QueueView
from galley.cli.output import rfc_3339
from galley.history import PastAttempt
from galley.task_status import TaskStatus


def task_document(status: TaskStatus) -> dict[str, Any]:
    """Return everything that is known about a task except its result."""
    return _without_empty(
        {
            "id": status.address.id,
            "namespace": status.address.namespace,
            "queue": status.address.queue,
            "lane": status.address.lane.value,
            "handler": status.handler,
            "key": status.key,
            "waits": status.waits,
            "labels": status.labels or None,
            "phase": status.phase.value,
            "attempt": status.attempt,
            "worker": status.worker,
            "progress": status.progress
            and _without_empty(
                {
                    "fraction": status.progress.fraction,
                    "text": status.progress.text,
                    "at": _time(status.progress.at),
                }
            ),
            "submittedAt": _time(status.submitted_at),
            "startedAt": _time(status.started_at),
            "endedAt": _time(status.ended_at),
            "dueAt": _time(status.due_at),
            "deadline": _time(status.deadline),
            "input": msgspec.json.decode(status.input) if status.input else None,
            "encryptedWith": status.encrypted_with,
            "failure": status.failure
            and {"reason": status.failure.reason, "message": status.failure.message},
            "errors": status.history.errors,
            "crashes": status.history.crashes,
            "preemptions": status.history.preemptions,
            "pastAttempts": [_past(attempt) for attempt in status.history.attempts],
        }
    )


def queue_document(view: QueueView) -> dict[str, Any]:
    """Return a queue as its streams show it."""
    return {
        "name": view.queue,
        "namespace": view.namespace,
        "lanes": [lane.value for lane in view.lanes],
        "held": view.held,
        "later": view.later,
        "backlogLimit": view.backlog_limit,
        "paused": view.paused,
        "pausedBy": list(view.paused_by),
    }


def _past(attempt: PastAttempt) -> dict[str, Any]:
    return _without_empty(
        {
            "number": attempt.number,
            "endedBy": attempt.ended_by.value,
            "reason": attempt.reason,
            "message": attempt.message,
            "worker": attempt.worker,
            "startedAt": _time(attempt.started_at),
            "endedAt": _time(attempt.ended_at),
            "traceback": attempt.traceback,
        }
    )


def _time(moment: datetime | None) -> str | None:
    return rfc_3339(moment) if moment is not None else None


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value not in (None, "")}
