"""Operations on schedules."""

from typing import Final

from starlette.responses import Response

from galley.errors import QueueNotFound, ScheduleNotFound, ScheduleTaken
from galley_gateway.access import Right
from galley_gateway.api import model
from galley_gateway.api.tasks import QUEUE
from galley_gateway.api.view import schedule_view
from galley_gateway.errors import RequestInvalid
from galley_gateway.operation import Ask, Operation, reply

SCHEDULES: Final = f"{QUEUE}/schedules"
SCHEDULE: Final = f"{SCHEDULES}/{{name}}"
_TOKEN_CHARACTERS: Final = 255


async def list_schedules(ask: Ask) -> Response:
    """Return the schedules of a queue."""
    found = await ask.client.schedules.list(ask.queue)
    return reply(model.ScheduleList([schedule_view(view) for view in found]))


async def get_schedule(ask: Ask) -> Response:
    """Return one schedule."""
    return reply(schedule_view(await ask.client.schedules.get(ask.queue, ask.name)))


async def put_schedule(ask: Ask) -> Response:
    """Make a schedule, or change the one of that name."""
    new: model.NewSchedule = ask.body
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
        answers=model.ScheduleList, example_answer={"schedules": [_SCHEDULED]}, fails=(QueueNotFound,),
    ),
    Operation(
        "getSchedule", "GET", SCHEDULE, Right("get", "taskschedules"), get_schedule, "Look at a schedule",
        answers=model.ScheduleDocument, example_answer=_SCHEDULED, fails=(ScheduleNotFound,),
    ),
    Operation(
        "putSchedule", "PUT", SCHEDULE, Right("update", "taskschedules"), put_schedule,
        "Make or change a schedule",
        "One that asks for the same is left as it is. Schedules of `@task(cron=...)` and of TaskSchedule "
        "objects are changed where they are declared.",
        takes=model.NewSchedule, answers=model.ScheduleDocument,
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
        "Suspend a schedule", answers=model.ScheduleDocument, fails=(ScheduleNotFound,),
    ),
    Operation(
        "resumeSchedule", "POST", f"{SCHEDULE}/resume", Right("patch", "taskschedules"), resume,
        "Resume a schedule", "It fires from its next tick on; those in between do not count.",
        answers=model.ScheduleDocument, fails=(ScheduleNotFound,),
    ),
    Operation(
        "runSchedule", "POST", f"{SCHEDULE}/run", Right("create", "tasks"), run_now,
        "Run a schedule's task now",
        "Beside its ticks. A repetition with the same `Idempotency-Key` runs nothing twice.",
        answers=model.Submitted, status=((201, "The task was submitted."), (200, "It was there before.")),
        fails=(ScheduleNotFound,),
    ),
)  # fmt: skip
