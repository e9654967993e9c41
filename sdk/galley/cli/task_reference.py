"""Finds a task by `ID`, or by `QUEUE/ID` where the id alone is ambiguous."""

import asyncio

from galley.broker import queue_view
from galley.cli.errors import Misuse, NoQueues, NoSuchTask
from galley.client import AsyncClient
from galley.errors import TaskNotFound
from galley.task_status import TaskStatus


async def find_task(client: AsyncClient, reference: str) -> TaskStatus:
    """Return the status of the task a reference names.

    Raises:
        Misuse: if several queues have a task of that id.
        TaskNotFound, NoSuchTask, QueueNotFound, NoQueues: if there is none.
        NotAllowed: if no queue is named, and the credentials are for one queue only.
        SubmissionInvalid: if the id is not valid.
    """
    queue, slash, task_id = reference.rpartition("/")
    if slash:
        return await client.handle(queue, task_id).status()
    there = [view.queue for view in await queue_view.queues(client.broker, client.namespace)]
    if not there:
        raise NoQueues(client.namespace)
    found = [each for each in await asyncio.gather(*(_look(client, name, task_id) for name in there)) if each]
    if not found:
        raise NoSuchTask(client.namespace, task_id)
    if len(found) > 1:
        queues = " and ".join(status.address.queue for status in found)
        raise Misuse(
            f"{task_id!r} is a task of the queues {queues}",
            f"name the queue: {found[0].address.queue}/{task_id}",
        )
    return found[0]


async def _look(client: AsyncClient, queue: str, task_id: str) -> TaskStatus | None:
    try:
        return await client.handle(queue, task_id).status()
    except TaskNotFound:
        return None
