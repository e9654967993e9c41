"""Finds the task somebody means: `ID`, or `QUEUE/ID` where the id alone does not tell."""

import asyncio

from galley.broker import inspect
from galley.cli.errors import Misuse, NoQueues, NoSuchTask
from galley.client import Client
from galley.errors import TaskNotFound
from galley.task_status import TaskStatus


async def find_task(client: Client, reference: str) -> TaskStatus:
    """Return the status of the task meant.

    Raises:
        Misuse: if the id stands in several queues.
        TaskNotFound, NoSuchTask, QueueNotFound, NoQueues: if there is none.
        NotAllowed: if no queue is said, and these credentials are of one queue alone.
        SubmissionInvalid: if no task can have that id.
    """
    queue, slash, task_id = reference.rpartition("/")
    if slash:
        return await client.handle(queue, task_id).status()
    there = [view.queue for view in await inspect.queues(client.broker, client.namespace)]
    if not there:
        raise NoQueues(client.namespace)
    found = [each for each in await asyncio.gather(*(_look(client, name, task_id) for name in there)) if each]
    if not found:
        raise NoSuchTask(client.namespace, task_id)
    if len(found) > 1:
        queues = " and ".join(status.address.queue for status in found)
        raise Misuse(
            f"{task_id!r} is a task of the queues {queues}", f"say which: {found[0].address.queue}/{task_id}"
        )
    return found[0]


async def _look(client: Client, queue: str, task_id: str) -> TaskStatus | None:
    try:
        return await client.handle(queue, task_id).status()
    except TaskNotFound:
        return None
