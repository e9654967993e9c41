"""Who did what in a namespace."""

from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct
from starlette.responses import Response

from galley.calls import check_queue_name
from galley_gateway.access import Right
from galley_gateway.api.paging import PAGED, cut
from galley_gateway.body import number, text
from galley_gateway.gateway import Gateway
from galley_gateway.operation import Ask, Operation, Parameter, reply

_LONGEST_HOURS: Final = 24 * 366.0


class AuditDocument(Struct, frozen=True):
    """One thing that was done."""

    time: datetime
    queue: str
    action: str
    task: str
    count: int | None
    user: str
    attested: bool
    writer: str
    origin: str
    detail: str


class AuditList(Struct, frozen=True, omit_defaults=True):
    """A page of what was done, newest first."""

    lines: list[AuditDocument]
    total: int
    next: str = ""


async def list_audit(ask: Ask) -> Response:
    """Return a page of the lines of a namespace, newest first."""
    lines = await found(ask.gateway, ask.namespace, ask.query)
    some, following = cut(lines, ask.query)
    return reply(AuditList(some, len(lines), following))


async def found(gateway: Gateway, namespace: str, query: dict[str, str]) -> list[AuditDocument]:
    """Return the lines of a namespace that a query is about, newest first.

    Raises:
        RequestInvalid: if `hours` is no number.
        QueueNameInvalid: if `queue` can be no queue.
    """
    if queue := text(query, "queue"):
        check_queue_name(queue)
    task, user = text(query, "task"), text(query, "user")
    hours = number(query, "hours", _LONGEST_HOURS, _LONGEST_HOURS)
    since = datetime.now(UTC) - timedelta(hours=hours)
    lines = [
        AuditDocument(
            line.at, line.queue, line.entry.action.value, line.entry.task, line.entry.count, line.entry.user,
            line.attested, line.writer.value, line.entry.origin, line.entry.detail,
        )
        for line in await gateway.audit.read(namespace, queue or "")
        if line.at >= since and task in (None, line.entry.task) and user in (None, line.entry.user)
    ]  # fmt: skip
    return lines[::-1]


OPERATIONS: Final = (
    Operation(
        "listAudit", "GET", "/audit", Right("list", "taskqueues"), list_audit, "List who did what",
        "Newest first. `attested` says that the API server named the user; without it, `user` and `origin` "
        "are what a client says of itself, and that it had credentials of the queue's manager is all that is "
        "known.",
        answers=AuditList,
        parameters=(
            Parameter("queue", "Only what was done to this queue."),
            Parameter("task", "Only what was done to the task with this id."),
            Parameter("user", "Only what this user did."),
            Parameter("hours", "Only what was done in so many hours.", {"type": "number", "minimum": 0}),
            *PAGED,
        ),
        example_answer={
            "lines": [{
                "time": "2026-11-28T12:00:00Z", "queue": "images", "action": "cancel", "task": "4QZ8",
                "count": None, "user": "alice", "attested": True, "writer": "gateway", "origin": "10.0.0.7",
                "detail": "",
            }],
            "total": 1,
        },
    ),
)  # fmt: skip
