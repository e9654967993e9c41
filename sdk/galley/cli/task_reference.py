"""Finds a task or workflow by `ID`, or by `QUEUE/ID` where the id alone is ambiguous."""

import asyncio
from contextlib import suppress
from typing import Any

from galley.broker import queue_view
from galley.broker.errors import NotAllowed
from galley.cli.errors import Misuse, NoQueues, NoSuchTask
from galley.client import AsyncClient
from galley.errors import TaskNotFound
from galley.task_status import TaskStatus
from galley.workflow.errors import WorkflowNotFound
from galley.workflows import AsyncWorkflow


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


async def find_workflow(client: AsyncClient, reference: str) -> AsyncWorkflow[Any] | None:
    """Return the workflow a reference names, or None if there is none that these credentials may see.

    Raises:
        Misuse: if several queues have a workflow of that id.
        BrokerUnreachable: if the broker does not answer.
    """
    queue, slash, flow = reference.rpartition("/")
    there = [queue] if slash else [
        view.queue for view in await queue_view.queues(client.broker, client.namespace)
    ]  # fmt: skip
    found = []
    for name in there:
        workflow = client.workflows.get(name, flow)
        with suppress(WorkflowNotFound, NotAllowed):
            await workflow.status()
            found.append(workflow)
    if len(found) > 1:
        names = " and ".join(each.queue for each in found)
        raise Misuse(
            f"{flow!r} is a workflow of the queues {names}", f"name the queue: {found[0].queue}/{flow}"
        )
    return found[0] if found else None


async def _look(client: AsyncClient, queue: str, task_id: str) -> TaskStatus | None:
    try:
        return await client.handle(queue, task_id).status()
    except TaskNotFound:
        return None
