"""What happens to a task, as an event: `spec.lifeEvents` of its queue asks for them.

Who does a thing tells of it: the submitter of the submission, and the worker of the rest.
"""

from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from galley.address import TaskAddress
from galley.envelope import Envelope
from galley.event import TEXT_LIMIT, Event, event_of
from galley.topic import LIFE_TYPE
from galley.tracing import parent_in


class Happened(Struct, omit_defaults=True, rename="camel"):
    """The data of an event."""

    namespace: str
    queue: str
    task: str
    handler: str
    attempt: int
    worker: str = ""
    submitted_at: datetime | UnsetType = UNSET
    due_at: datetime | UnsetType = UNSET
    """Of the next attempt."""
    reason: str = ""
    message: str = ""
    labels: dict[str, str] = {}


def happened_to(address: TaskAddress, envelope: Envelope, attempt: int, worker: str = "") -> Happened:
    """Return the data that each event of a task has."""
    return Happened(
        address.namespace, address.queue, address.id, envelope.handler, attempt, worker,
        envelope.submitted_at, labels=envelope.labels or {},
    )  # fmt: skip


def life_event(kind: str, address: TaskAddress, happened: Happened, now: datetime, trace: str) -> Event:
    """Return the event; its id is the same for the same thing, so a repetition doubles nothing.

    Args:
        kind: `submitted`, `started`, `retried`, `succeeded`, `failed` or `cancelled`.
        address: of the task.
        happened: its data.
        now: when it happened.
        trace: of the task.

    Raises:
        EventInvalid: there can be no such event, since a name in it is too long.
    """
    submitted = happened.submitted_at
    # An id may be used again once its record is gone: the time tells the two tasks apart.
    since = "" if submitted is UNSET else f"{submitted.timestamp():.3f}"
    attributes: dict[str, Any] = {
        "queue": address.queue, "lane": str(address.lane), "state": kind, "attempt": happened.attempt,
        "handler": happened.handler, "reason": happened.reason,
    }  # fmt: skip
    return event_of(
        happened, now, source=f"galley/{address.namespace}/{address.queue}", attributes=attributes,
        event_type=f"{LIFE_TYPE}{kind}", subject=address.id, key=address.id,
        event_id=f"{address.id}.{since}.{happened.attempt}.{kind}"[-TEXT_LIMIT:],
        traceparent=parent_in(trace),
    )  # fmt: skip
