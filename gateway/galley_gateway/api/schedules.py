"""Operations on schedules."""

from datetime import datetime
from typing import Any, Final

from msgspec import UNSET, Struct
from starlette.responses import Response

from galley.errors import QueueNotFound, ScheduleNotFound, ScheduleTaken
from galley.lanes import Lane
from galley.repeat import Repeat
from galley.schedules import ScheduleView
from galley_gateway.access import Right
from galley_gateway.api import model
from galley_gateway.api.model import NewTask
from galley_gateway.api.queues import QUEUE
from galley_gateway.errors import RequestInvalid
from galley_gateway.operation import Ask, Operation, reply

SCHEDULES: Final = f"{QUEUE}/schedules"
SCHEDULE: Final = f"{SCHEDULES}/{{name}}"
_TOKEN_CHARACTERS: Final = 255


class NewSchedule(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A schedule to make, or to change."""

    task: NewTask
    repeat: Repeat
    suspended: bool | None = None


class ScheduleDocument(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A schedule, and how far it is."""

    name: str
    queue: str
    handler: str
    lane: Lane
    repeat: Repeat
    suspended: bool
    origin: str
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_id: str = ""
    fired: int = 0
    skipped: int = 0
    problem: str = ""
    input: Any = UNSET


class ScheduleList(Struct, frozen=True):
    """The schedules of a queue, by name."""

    schedules: list[ScheduleDocument]


def schedule_view(view: ScheduleView) -> ScheduleDocument:
    """Return a schedule."""
    return ScheduleDocument(
        view.name, view.queue, view.handler, view.lane, view.repeat, view.suspended, view.origin.value,
        view.next_at, view.last_at, view.last_id, view.fired, view.skipped, view.problem,
        UNSET if view.input is None else view.input,
    )  # fmt: skip


async def list_schedules(ask: Ask) -> Response:
    """Return the schedules of a queue."""
    found = await ask.client.schedules.list(ask.queue)
    return reply(ScheduleList([schedule_view(view) for view in found]))


async def get_schedule(ask: Ask) -> Response:
    """Return one schedule."""
    return reply(schedule_view(await ask.client.schedules.get(ask.queue, ask.name)))


async def put_schedule(ask: Ask) -> Response:
    """Make a schedule, or change the one of that name."""
    new: NewSchedule = ask.body
    call = new.task.call(ask.queue, None)
    view = await ask.client.schedules.create(ask.name, call, new.repeat, suspended=new.suspended)
    return reply(schedule_view(view))


async def delete_schedule(ask: Ask) -> Response:
    """Delete a schedule."""
    await ask.client.schedules.delete(ask.queue, ask.name)
    return Response(status_code=204)


async def suspend(ask: Ask) -> Response:
    """Have a schedule fire no more until it is resumed."""
    return reply(schedule_view(await ask.client.schedules.suspend(ask.queue, ask.name)))


async def resume(ask: Ask) -> Response:
    """Have a schedule fire again."""
    return reply(schedule_view(await ask.client.schedules.resume(ask.queue, ask.name)))


async def run_now(ask: Ask) -> Response:
    """Submit what a schedule runs, once and now."""
    token = ask.request.headers.get("idempotency-key", "")
    if len(token) > _TOKEN_CHARACTERS:
        raise RequestInvalid("Idempotency-Key", f"{len(token)} characters", "use 1 to 255 characters")
    handle = await ask.client.schedules.run_now(ask.queue, ask.name, token)
    found = model.Submitted(handle.id, ask.namespace, ask.queue, handle.existed)
    return reply(found, 200 if handle.existed else 201)


_SCHEDULED: Final = {
    "name": "nightly", "queue": "images", "handler": "sweep", "lane": "low",
    "repeat": {"cron": "0 3 * * *", "timeZone": "Europe/Berlin"}, "suspended": False, "origin": "client",
    "nextAt": "2026-01-02T02:00:00Z",
}  # fmt: skip

OPERATIONS: Final = (
    Operation(
        "listSchedules", "GET", SCHEDULES, Right("list", "taskschedules"), list_schedules, "List schedules",
        answers=ScheduleList, example_answer={"schedules": [_SCHEDULED]}, fails=(QueueNotFound,),
    ),
    Operation(
        "getSchedule", "GET", SCHEDULE, Right("get", "taskschedules"), get_schedule, "Look at a schedule",
        answers=ScheduleDocument, example_answer=_SCHEDULED, fails=(ScheduleNotFound,),
    ),
    Operation(
        "putSchedule", "PUT", SCHEDULE, Right("update", "taskschedules"), put_schedule,
        "Make or change a schedule",
        "One that asks for the same is left as it is. Schedules of `@task(cron=...)` and of TaskSchedule "
        "objects are changed where they are declared.",
        takes=NewSchedule, answers=ScheduleDocument,
        example={
            "task": {"handler": "sweep", "input": {"days": 30}, "lane": "low"},
            "repeat": {"cron": "0 3 * * *", "timeZone": "Europe/Berlin"},
        },
        example_answer=_SCHEDULED, fails=(QueueNotFound, ScheduleTaken),
    ),
    Operation(
        "deleteSchedule", "DELETE", SCHEDULE, Right("delete", "taskschedules"), delete_schedule,
        "Delete a schedule", "When this answers it fires no more. Tasks of past ticks are not touched.",
        status=((204, "It is deleted."),), fails=(ScheduleNotFound,),
    ),
    Operation(
        "suspendSchedule", "POST", f"{SCHEDULE}/suspend", Right("patch", "taskschedules"), suspend,
        "Suspend a schedule", answers=ScheduleDocument, fails=(ScheduleNotFound,),
    ),
    Operation(
        "resumeSchedule", "POST", f"{SCHEDULE}/resume", Right("patch", "taskschedules"), resume,
        "Resume a schedule", "It fires from its next tick on; those in between do not count.",
        answers=ScheduleDocument, fails=(ScheduleNotFound,),
    ),
    Operation(
        "runSchedule", "POST", f"{SCHEDULE}/run", Right("create", "tasks"), run_now,
        "Run a schedule's task now",
        "Beside its ticks. A repetition with the same `Idempotency-Key` runs nothing twice.",
        answers=model.Submitted, status=((201, "The task was submitted."), (200, "It was there before.")),
        fails=(ScheduleNotFound,),
    ),
)  # fmt: skip
