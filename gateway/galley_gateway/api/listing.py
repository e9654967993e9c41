"""The list of the tasks of a queue, and what is chosen from it."""

import heapq
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace
from starlette.responses import Response

from galley.broker import inspect
from galley.client import AsyncClient
from galley.errors import QueueNotFound
from galley.queues import TaskSelection
from galley.task_status import NOT_KNOWN, Phase, TaskStatus
from galley_gateway.access import Right
from galley_gateway.api import model
from galley_gateway.api.model import LISTED_BYTES
from galley_gateway.api.paging import LARGEST_PAGE, PAGE, PAGED
from galley_gateway.api.queues import QUEUE
from galley_gateway.api.view import EXAMPLE, task_view
from galley_gateway.body import number, text
from galley_gateway.errors import RequestInvalid
from galley_gateway.operation import Ask, Operation, Parameter, reply

TASKS: Final = f"{QUEUE}/tasks"
RECENT: Final = 500
"""Changes, and waiting tasks of each lane, that count as recent."""


def selection(query: dict[str, str]) -> TaskSelection:
    """Return which tasks a query is about.

    Raises:
        RequestInvalid: if there is no such phase.
        SelectorInvalid: if `labels` is no selector.
    """
    asked = text(query, "phase")
    phases = None
    if asked is not None:
        known = {phase.value.lower(): phase for phase in Phase}
        words = [word.strip().lower() for word in asked.split(",")]
        wrong = [word for word in words if word not in known]
        if wrong:
            raise RequestInvalid("phase", f"{wrong[0][:40]!r}", f"use {', '.join(Phase)}")
        phases = tuple(known[word] for word in words)
    return TaskSelection(phases=phases, handler=text(query, "handler"), labels=text(query, "labels"))


def among(tasks: list[TaskStatus], which: TaskSelection, query: dict[str, str]) -> list[TaskStatus]:
    """Return those tasks that a query is about, newest first."""
    meant = which.of(tasks, datetime.now(UTC))
    if wanted := text(query, "search"):
        meant = [status for status in meant if wanted in status.address.id]
    return meant[::-1]


async def list_tasks(ask: Ask) -> Response:
    """Return a page of the tasks of a queue, newest first; no more of them than a page are kept in memory."""
    limit = max(1, int(number(ask.query, "limit", PAGE, LARGEST_PAGE)))
    before = _continued(ask.query)
    newest, total = await newest_of(_tasks_of(ask), ask.query, limit + 1, before)
    following = ""
    if len(newest) > limit:
        at, task_id = inspect.submission_order(newest[limit - 1])
        following = f"{at.isoformat().replace('+00:00', 'Z')}~{task_id}"
    return reply(model.TaskList([task_view(status) for status in newest[:limit]], total, following))


async def newest_of(
    tasks: AsyncIterator[TaskStatus],
    query: dict[str, str],
    most: int,
    before: tuple[datetime, str] | None = None,
) -> tuple[list[TaskStatus], int]:
    """Return the newest of the tasks a query is about, newest first, and how many it is about.

    No more of them than are returned are kept in memory.
    """
    which = selection(query)
    kept: list[tuple[tuple[datetime, str], int, TaskStatus]] = []
    total = 0
    async for status in tasks:
        if not among([status], which, query):
            continue
        total += 1
        key = inspect.submission_order(status)
        if before is None or key < before:
            heapq.heappush(kept, (key, total, _listed(status)))
        if len(kept) > most:
            heapq.heappop(kept)
    return [status for _, _, status in sorted(kept, reverse=True)], total


def _listed(status: TaskStatus) -> TaskStatus:
    """Return a task as a list has it: a page of long inputs, decoded, would take all memory there is."""
    return status if len(status.input) <= LISTED_BYTES else replace(status, input=NOT_KNOWN)


async def _tasks_of(ask: Ask) -> AsyncGenerator[TaskStatus, None]:
    """Yield the tasks that are looked at: all, or those that a page of the dashboard shows."""
    if ask.query.get("recent") in {"true", "1"}:
        for status in await inspect.latest(ask.client.broker, ask.namespace, ask.queue, RECENT):
            yield status
        return
    async for status in all_of(ask.client, ask.queue):
        yield status


async def all_of(client: AsyncClient, queue: str) -> AsyncGenerator[TaskStatus, None]:
    """Yield all tasks of a queue.

    Raises:
        QueueNotFound: if there is no such queue.
    """
    await client.queues.get(queue)
    async for status in inspect.tasks(client.broker, client.namespace, queue):
        yield status


def _continued(query: dict[str, str]) -> tuple[datetime, str] | None:
    """Return the task that the page before ended with.

    Raises:
        RequestInvalid: if the parameter is not from such a page.
    """
    given = query.get("continue")
    if not given:
        return None
    at, tilde, task_id = given.partition("~")
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None or not tilde:
        raise RequestInvalid("continue", f"{given[:80]!r}", "use `next` of the page before")
    return time, task_id


LIST: Final = Operation(
    "listTasks", "GET", TASKS, Right("list", "tasks"), list_tasks, "List the tasks of a queue",
    "Newest first; `next` is a place in time, so tasks that come meanwhile move nothing. It reads every "
    f"task of the queue. With `recent=true` it looks at the last {RECENT} changes, and the {RECENT} "
    "oldest tasks that wait in each lane, however many there are.",
    answers=model.TaskList,
    parameters=(
        Parameter("phase", "One or more phases, separated by commas."),
        Parameter("handler", "Only tasks of this handler."),
        Parameter("labels", "A selector, such as `team=billing,tier!=low`."),
        Parameter("search", "Only tasks whose id contains this."),
        Parameter("recent", "Whether to look at recent tasks only.", {"type": "boolean"}),
        *PAGED,
    ),
    example_answer={"tasks": [EXAMPLE], "total": 1}, fails=(QueueNotFound,),
)  # fmt: skip
