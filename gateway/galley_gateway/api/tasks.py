"""Operations on tasks: submit, look, wait, list, cancel, retry."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from starlette.responses import Response

from galley import audit
from galley.audit import Action
from galley.batch import SubmitIncomplete
from galley.broker.audit import note_soon
from galley.broker.errors import BrokerUnreachable
from galley.errors import (
    DeadLetterNotFound,
    InputInvalid,
    LaneNotEnabled,
    NotRedrivable,
    QueueFull,
    QueueNotFound,
    ResultTimeout,
    TaskConflict,
    TaskNotFound,
    UniqueConflict,
)
from galley.handle import AsyncHandle
from galley.task_status import TaskStatus
from galley_gateway import problem
from galley_gateway.access import Right
from galley_gateway.api import model
from galley_gateway.api.events import event, stream
from galley_gateway.api.listing import LIST, TASKS
from galley_gateway.api.queues import QUEUE
from galley_gateway.api.view import EXAMPLE, SUBMITTED, task_view, with_result
from galley_gateway.body import number
from galley_gateway.errors import RequestInvalid
from galley_gateway.operation import TRACE, Ask, Operation, Parameter, reply

TASK: Final = f"{TASKS}/{{id}}"

WAIT_SECONDS: Final = 30.0
LONGEST_WAIT_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 2.0
"""A record tells when a task has ended, and nothing when it starts: that is looked at."""

_KEY: Final = Parameter(
    "Idempotency-Key",
    "Any text of 1 to 255 characters: repetitions with the same key are one task. Not together with an `id`.",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "header",
)


def _key_id(ask: Ask) -> str | None:
    """Return the id that stands for the Idempotency-Key of a request; None if it has none."""
    key = ask.request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= 255:
        raise RequestInvalid("Idempotency-Key", f"{len(key)} characters", "use 1 to 255 characters")
    return "key-" + hashlib.sha256(key.encode()).hexdigest()[:48]


def _handle(ask: Ask) -> AsyncHandle[Any]:
    return ask.client.handle(ask.queue, ask.name)


async def submit(ask: Ask) -> Response:
    """Submit one task."""
    new: model.NewTask = ask.body
    key = _key_id(ask)
    if key is not None and (new.id or new.unique):
        raise RequestInvalid(
            "Idempotency-Key", "the body has an id or a unique key as well", "leave one of them out"
        )
    handle = await ask.client.submit(new.call(ask.queue, key))
    if not handle.existed:
        await note_submit(ask, handle.id)
    stored = model.Submitted(handle.id, ask.namespace, ask.queue, handle.existed)
    at = f"{ask.request.scope['path']}/{handle.id}"
    return reply(stored, 200 if handle.existed else 201, {"Location": at})


async def note_submit(ask: Ask, task: str = "", count: int | None = None, detail: str = "") -> None:
    """Write down that something was submitted."""
    actor = audit.actor()
    entry = audit.entry_of(actor, Action.SUBMIT, task, count, detail)
    await note_soon(ask.client.broker, ask.namespace, ask.queue, entry, actor.writer)


async def submit_many(ask: Ask) -> Response:
    """Submit many tasks, each for itself."""
    problems: dict[int, Any] = {}
    calls, places = [], []
    for place, new in enumerate(ask.body.tasks):
        try:
            calls.append(new.call(ask.queue, None))
            places.append(place)
        except InputInvalid as error:
            problems[place] = error
    handles: dict[int, AsyncHandle[Any]] = {}
    try:
        handles = dict(zip(places, await ask.client.submit_many(calls), strict=True))
    except SubmitIncomplete as incomplete:
        handles = {places[index]: handle for index, handle in incomplete.submitted.items()}
        refused = getattr(incomplete, "refused", {})
        problems |= {places[index]: error for index, error in refused.items()}
        for place in places:
            if place not in handles and place not in problems:
                problems[place] = incomplete
    if new_ids := [handle.id for handle in handles.values() if not handle.existed]:
        await note_submit(ask, count=len(new_ids), detail=f"{new_ids[0]} to {new_ids[-1]}")
    answers = []
    for place in range(len(ask.body.tasks)):
        if place in handles:
            handle = handles[place]
            stored = model.Submitted(handle.id, ask.namespace, ask.queue, handle.existed)
            answers.append(model.SubmittedOrProblem(task=stored))
        else:
            refusal = model.shaped(problem.document(problems[place]), model.Problem)
            answers.append(model.SubmittedOrProblem(problem=refusal))
    return reply(model.SubmittedMany(len(handles), len(answers) - len(handles), answers))


async def get(ask: Ask) -> Response:
    """Return one task, with its result if it succeeded."""
    handle = _handle(ask)
    return reply(await with_result(handle, await handle.status()))


async def wait(ask: Ask) -> Response:
    """Return one task when it has ended, or in the state it is in when the time is over."""
    seconds = number(ask.query, "seconds", WAIT_SECONDS, LONGEST_WAIT_SECONDS)
    handle = _handle(ask)
    # A task that never was would be waited for in vain.
    status = await handle.status()
    if status.phase.ended:
        return reply(await with_result(handle, status))
    note = ""
    with ask.gateway.places.taken(ask.user.name, ask.namespace):
        try:
            ended = await ask.gateway.while_asked(ask.request, handle.wait(seconds, hold_slot=True))
        except ResultTimeout as timeout:
            ended, note = None, timeout.worker_problem
    await ask.check_again()
    if ended is not None:
        return reply(await with_result(handle, ended))
    return reply(replace(task_view(await handle.status()), note=note), 202)


async def events(ask: Ask) -> Response:
    """Send what a task becomes, until it has ended."""
    handle = _handle(ask)
    status = await handle.status()
    return stream(ask, _changes(handle, status))


async def _changes(handle: AsyncHandle[Any], status: TaskStatus) -> AsyncGenerator[bytes, None]:
    seen = b""
    while True:
        view = await with_result(handle, status) if status.phase.ended else task_view(status)
        now = msgspec.json.encode(view)
        if now != seen:
            yield event("ended" if status.phase.ended else "changed", now)
        if status.phase.ended:
            return
        seen = now
        try:
            # Less than a second, so that a look in vain does not ask for the problems of workers.
            status = await handle.wait(0.99, hold_slot=True)
        except ResultTimeout:
            await asyncio.sleep(_LOOK_SECONDS - 1)
            status = await handle.status()


async def logs(ask: Ask) -> Response:
    """Return what the handler of a task wrote, or send it as it comes."""
    handle = _handle(ask)
    await handle.status()
    if ask.query.get("follow") not in {"true", "1"}:
        return reply(model.Lines(await handle.logs()))

    async def lines() -> AsyncGenerator[bytes, None]:
        async for line in handle.follow_logs():
            yield event("line", msgspec.json.encode(line))
        yield event("ended", b"{}")

    return stream(ask, lines())


async def cancel(ask: Ask) -> Response:
    """Cancel a task, in whatever state it is."""
    return reply(model.CancelView((await _handle(ask).cancel()).value))


async def retry(ask: Ask) -> Response:
    """Have a task that failed run again."""
    return reply(model.RedriveView((await ask.client.dead_letters.redrive(ask.queue, ask.name)).value))


_EXAMPLE: Final = {"handler": "thumbnail", "input": {"path": "input/hills.jpg"}, "lane": "high"}

SUBMIT: Final = Operation(
    "submitTask", "POST", TASKS, Right("create", "tasks"), submit, "Submit one task",
    "Answers when the task is on disk. Submitting the same `id` or `Idempotency-Key` again is safe: if the "
    "task is there, the status is 200 and `existed` is true.",
    takes=model.NewTask, answers=model.Submitted,
    status=((201, "The task was submitted."), (200, "The task was there before.")),
    parameters=(_KEY, TRACE), example=_EXAMPLE, example_answer=SUBMITTED,
    fails=(QueueNotFound, LaneNotEnabled, QueueFull, TaskConflict, UniqueConflict, BrokerUnreachable),
)  # fmt: skip

OPERATIONS: Final = (
    SUBMIT,
    Operation(
        "submitTasks", "POST", f"{QUEUE}/submit-many", Right("create", "tasks"), submit_many,
        "Submit up to 1000 tasks",
        "Each task is accepted or refused for itself; the answer has them in the order of the request.",
        takes=model.NewTasks, answers=model.SubmittedMany, parameters=(TRACE,),
        example={"tasks": [_EXAMPLE, {"handler": "thumbnail", "input": {"path": "input/sea.jpg"}}]},
        example_answer={"submitted": 2, "refused": 0, "tasks": [{"task": SUBMITTED}, {"task": SUBMITTED}]},
        fails=(BrokerUnreachable,),
    ),
    LIST,
    Operation(
        "getTask", "GET", TASK, Right("get", "tasks"), get, "Look at a task",
        "With its result, if it succeeded.", answers=model.TaskView, example_answer=EXAMPLE,
        fails=(TaskNotFound, QueueNotFound),
    ),
    Operation(
        "waitForTask", "GET", f"{TASK}/wait", Right("get", "tasks"), wait, "Wait until a task has ended",
        "Answers as soon as it has ended, with its result. If it has not within the time, the status is 202; "
        "ask again. A wait that is cut off loses nothing.",
        answers=model.TaskView,
        status=((200, "The task has ended."), (202, "The task has not ended yet.")),
        parameters=(
            Parameter(
                "seconds", f"How long to wait; {WAIT_SECONDS:g} by default.",
                {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_SECONDS},
            ),
        ),
        example_answer=EXAMPLE, fails=(TaskNotFound, QueueNotFound), waits=True,
    ),
    Operation(
        "followTask", "GET", f"{TASK}/events", Right("get", "tasks"), events, "Follow a task",
        "Server-sent events: `changed` with the task whenever it changed, and `ended` at last.",
        answers=model.TaskView, fails=(TaskNotFound, QueueNotFound), streams=True,
    ),
    Operation(
        "taskOutput", "GET", f"{TASK}/logs", Right("get", "tasks"), logs, "Read what a task wrote",
        "With `follow=true` server-sent events: `line` for each, and `ended` at last.",
        answers=model.Lines,
        parameters=(Parameter("follow", "Whether to follow until the task has ended.", {"type": "boolean"}),),
        fails=(TaskNotFound, QueueNotFound),
    ),
    Operation(
        "cancelTask", "POST", f"{TASK}/cancel", Right("delete", "tasks"), cancel, "Cancel a task",
        "In any state. After the response, no attempt of it starts.",
        answers=model.CancelView, example_answer={"outcome": "cancelled before it ran"},
        fails=(TaskNotFound, QueueNotFound),
    ),
    Operation(
        "retryTask", "POST", f"{TASK}/retry", Right("patch", "tasks"), retry, "Run a task again that failed",
        "Redrives its dead letter, with a fresh budget of retries.",
        answers=model.RedriveView, fails=(DeadLetterNotFound, NotRedrivable, QueueFull),
    ),
)  # fmt: skip
