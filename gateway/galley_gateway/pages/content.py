"""What the pages show."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import structs
from starlette.responses import RedirectResponse, Response

from galley.broker import inspect, queue_view
from galley.dead_task import DeadTask, Selection
from galley.encryption.errors import EncryptionError
from galley.errors import DeadLetterNotFound, GalleyError, QueueNotFound, TaskNotFound
from galley.task_status import NOT_KNOWN, Phase, TaskStatus
from galley.workflow.state import PREFIX
from galley_gateway.access import Right
from galley_gateway.api import audit, dead, listing, queues, schedules, tasks, topics, workflows
from galley_gateway.api.paging import cut
from galley_gateway.api.queues import with_workers
from galley_gateway.api.view import task_view, with_result
from galley_gateway.body import text
from galley_gateway.operation import Operation
from galley_gateway.pages.graph import drawing_of
from galley_gateway.pages.overview import Glance, glances
from galley_gateway.pages.page import Look, Page

_PAGE: Final = 50
_NAMED: Final = 200
"""Tasks that are read of those whose id contains a text."""
_LINES: Final = 500
_FAILED: Final = 20
"""Steps of a workflow that failed which are named beside its graph."""
_PROBLEMS: Final = 10
"""Problems that are named above the list of queues; each stands in its line as well."""
_SHOWN: Final = 64 * 1024
"""Characters of an input or a result on a page; the API has all of it."""


def by_id(name: str) -> Operation:
    """Return an operation."""
    known = (
        *tasks.OPERATIONS, *queues.OPERATIONS, *dead.OPERATIONS, *schedules.OPERATIONS,
        *workflows.OPERATIONS,
    )  # fmt: skip
    return next(each for each in known if each.id == name)


async def _queues(look: Look) -> dict[str, Any]:
    async def read() -> list[Glance]:
        return await glances(look.gateway, look.namespace)

    found = await look.gateway.glanced.get(look.namespace, read)
    return {"queues": found, "problems": [each for each in found if each.problem], "most_problems": _PROBLEMS}


async def _queue(look: Look) -> dict[str, Any]:
    view = await look.client.queues.get(look.queue)
    document = await with_workers(look.client.broker, look.gateway.reader, view)
    return {"view": document, "beats": look.beats}


def _paged(found: list[Any], look: Look) -> dict[str, Any]:
    some, following = cut(found, {"limit": str(_PAGE), **_continued(look)})
    first = int(_continued(look).get("continue", "0"))
    previous = str(max(0, first - _PAGE)) if first else None
    return {
        "some": some, "total": len(found), "first": first, "following": following, "previous": previous,
    }  # fmt: skip


def _continued(look: Look) -> dict[str, str]:
    given = look.query.get("continue", "")
    return {"continue": given} if given.isdecimal() and len(given) < 10 else {}


async def _tasks(look: Look) -> dict[str, Any]:
    place = look.client.broker, look.namespace, look.queue
    part, everything = text(look.query, "search"), look.query.get("all") == "1"
    which, named = listing.selection(look.query), 0
    read_at: datetime | None = None
    if everything:
        found, total, read_at = await _among_all(look)
    else:
        if part is not None:
            known, named = await inspect.named(*place, part, _NAMED)
        else:
            known = await inspect.latest(*place, listing.RECENT)
        found = listing.among(known, which, look.query)
        total = len(found)
    page = _paged(found, look)
    return {
        **page, "tasks": [task_view(_listed(status)) for status in page["some"]], "queue": look.queue,
        "phases": [phase.value for phase in Phase if phase is not Phase.PENDING],
        "latest": listing.RECENT, "named": named, "most_named": _NAMED, "everything": everything,
        "fitting": total, "live": not everything, "read_at": read_at,
        "filtered": any(text(look.query, name) for name in ("phase", "handler", "labels", "search")),
    }  # fmt: skip


def _listed(status: TaskStatus) -> TaskStatus:
    """Return a task without its input, which no list shows, and which may be large."""
    return structs.replace(status, input=NOT_KNOWN)


async def _among_all(look: Look) -> tuple[list[TaskStatus], int, datetime]:
    """Return the newest of all tasks of a queue that fit, how many fit, and when that was read.

    All pages of the list, and all who ask the same within a minute, have one reading between them.
    """
    filters = {name: look.query.get(name, "") for name in ("phase", "handler", "labels", "search")}

    async def read() -> tuple[list[TaskStatus], int, datetime]:
        at = datetime.now(UTC)
        everything = listing.all_of(look.client, look.queue)
        found, total = await listing.newest_of(everything, filters, listing.RECENT)
        return [_listed(status) for status in found], total, at

    key = look.namespace, look.queue, *filters.values()
    found: tuple[list[TaskStatus], int, datetime] = await look.gateway.looked.get(key, read)
    return found


async def _task(look: Look) -> dict[str, Any]:
    handle = look.client.handle(look.queue, look.name)
    letter: DeadTask | None = None
    status = await handle.status()
    view = await with_result(handle, status)
    if status.phase is Phase.FAILED:
        try:
            letter = await look.client.dead_letters.get(look.queue, look.name)
        except DeadLetterNotFound:
            letter = None
    try:
        lines = await handle.logs()
    except EncryptionError:
        lines = []
    waits = not status.phase.ended and status.phase is not Phase.RUNNING
    given = letter.input if letter is not None and letter.input is not None else status.input
    return {
        "task": view,
        "dead": letter,
        "input": _shown(bytes(given)) if given else None,
        "result": None if view.result is msgspec.UNSET else _shown(bytes(view.result)),
        "lines": lines[-_LINES:],
        "more": len(lines) > _LINES,
        "problem": await handle.worker_problem() if waits else "",
        "workflow": look.name.removeprefix(PREFIX).partition("_")[0] if look.name.startswith(PREFIX) else "",
    }


def _shown(data: bytes) -> str:
    """Return JSON for people, shortened."""
    whole = msgspec.json.format(data, indent=2).decode(errors="replace")
    return whole if len(whole) <= _SHOWN else f"{whole[:_SHOWN]}\n… {len(whole) - _SHOWN} more characters"


async def _dead(look: Look) -> dict[str, Any]:
    which = Selection(handler=text(look.query, "handler"), reason=text(look.query, "reason"))
    page = _paged(await look.client.dead_letters.find(look.queue, which), look)
    return {**page, "letters": page["some"], "queue": look.queue}


async def _schedules(look: Look) -> dict[str, Any]:
    return {"schedules": await look.client.schedules.list(look.queue), "queue": look.queue}


async def _workflows(look: Look) -> dict[str, Any]:
    page = _paged((await look.client.workflows.list(look.queue))[::-1], look)
    shown = [workflows.workflow_view(status) for status in page["some"]]
    return {**page, "workflows": shown, "queue": look.queue}


async def _workflow(look: Look) -> dict[str, Any]:
    workflow = look.client.workflows.get(look.queue, look.name)
    status = await workflow.status()
    steps = await workflows.steps_of(workflow)
    failed = [step for step in steps if step.state == "Failed" and step.task_id][:_FAILED]
    return {"flow": workflows.workflow_view(status), "drawing": drawing_of(steps), "failed": failed}


async def _topics(look: Look) -> dict[str, Any]:
    return {"topics": [topics.topic_view(view) for view in await look.client.topics.list()]}


async def _topic(look: Look) -> dict[str, Any]:
    return {"topic": topics.topic_view(await look.client.topics.get(look.name))}


async def _audit(look: Look) -> dict[str, Any]:
    page = _paged(await audit.found(look.gateway, look.namespace, look.query), look)
    return {**page, "lines": page["some"]}


async def find_task(look: Look) -> Response:
    """Return the way to the task of an id, in whichever queue it is.

    Raises:
        TaskNotFound: if no queue has it.
    """
    wanted = look.query.get("id", "").strip()
    found = await queue_view.queues(look.client.broker, look.namespace)

    async def has_it(queue: str) -> bool:
        try:
            await look.client.handle(queue, wanted).status()
        except (TaskNotFound, QueueNotFound):
            return False
        return True

    for each in found:
        look.client.handle(each.queue, wanted)
    answers = await asyncio.gather(*(has_it(each.queue) for each in found), return_exceptions=True)
    for each, answer in zip(found, answers, strict=True):
        if answer is True:
            return RedirectResponse(f"/ui/{look.namespace}/queues/{each.queue}/tasks/{wanted}", 303)
    for answer in answers:
        if isinstance(answer, GalleyError):
            raise answer
    raise TaskNotFound("*", wanted)


_LIST_TASKS: Final = Right("list", "tasks")

PAGES: Final = (
    Page("/queues", "queues.html", "Queues", Right("list", "taskqueues"), _queues),
    Page(
        "/queues/{queue}", "queue.html", "Queue", Right("get", "taskqueues"), _queue,
        (by_id("pauseQueue"), by_id("resumeQueue")), hears_workers=True,
    ),
    Page("/queues/{queue}/tasks", "tasks.html", "Tasks", _LIST_TASKS, _tasks),
    Page(
        "/queues/{queue}/tasks/{id}", "task.html", "Task", Right("get", "tasks"), _task,
        (by_id("cancelTask"), by_id("retryTask")),
    ),
    Page(
        "/queues/{queue}/dead-letters", "dead.html", "Dead letters", _LIST_TASKS, _dead,
        (by_id("retryTask"), by_id("dropDeadLetter"), by_id("redriveDeadLetters")),
    ),
    Page("/queues/{queue}/workflows", "workflows.html", "Workflows", _LIST_TASKS, _workflows),
    Page(
        "/queues/{queue}/workflows/{id}", "workflow.html", "Workflow", Right("get", "tasks"), _workflow,
        (by_id("cancelWorkflow"), by_id("redriveWorkflow")),
    ),
    Page("/topics", "topics.html", "Topics", Right("list", "topics"), _topics),
    Page("/audit", "audit.html", "Audit", Right("list", "taskqueues"), _audit),
    Page("/topics/{id}", "topic.html", "Topic", Right("get", "topics"), _topic),
    Page(
        "/queues/{queue}/schedules", "schedules.html", "Schedules", Right("list", "taskschedules"),
        _schedules,
        (by_id("suspendSchedule"), by_id("resumeSchedule"), by_id("runSchedule")),
    ),
    Page(
        "/queues/{queue}/workers", "workers.html", "Workers", Right("get", "taskqueues"), _queue,
        hears_workers=True,
    ),
)  # fmt: skip
