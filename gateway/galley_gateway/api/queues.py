"""Operations on queues as a whole."""

from typing import Final

from starlette.responses import Response

from galley.broker import inspect
from galley.errors import QueueNotFound
from galley_gateway.access import Right
from galley_gateway.api import model
from galley_gateway.api.tasks import QUEUE
from galley_gateway.api.view import queue_view, with_workers
from galley_gateway.operation import Ask, Operation, reply


async def list_queues(ask: Ask) -> Response:
    """Return the queues of a namespace."""
    found = await inspect.queues(ask.client.broker, ask.namespace)
    return reply(model.QueueList([queue_view(view) for view in found]))


async def get_queue(ask: Ask) -> Response:
    """Return one queue with its lanes and workers."""
    view = await ask.client.queues.get(ask.queue)
    return reply(await with_workers(ask.client.broker, ask.gateway.reader, view))


async def pause(ask: Ask) -> Response:
    """Start no further task of a queue."""
    await ask.client.queues.pause(ask.queue)
    return reply(queue_view(await ask.client.queues.get(ask.queue)))


async def resume(ask: Ask) -> Response:
    """Start tasks of a queue again."""
    await ask.client.queues.resume(ask.queue)
    return reply(queue_view(await ask.client.queues.get(ask.queue)))


_VIEW: Final = {
    "name": "images", "namespace": "default", "lanes": ["high", "normal", "low"], "held": 3, "later": 0,
    "backlogLimit": 100000, "paused": False,
}  # fmt: skip

OPERATIONS: Final = (
    Operation(
        "listQueues", "GET", "/queues", Right("list", "taskqueues"), list_queues,
        "List the queues of a namespace", answers=model.QueueList, example_answer={"queues": [_VIEW]},
    ),
    Operation(
        "getQueue", "GET", QUEUE, Right("get", "taskqueues"), get_queue, "Look at a queue",
        "With what waits and runs in each lane, and why it has the workers it has.",
        answers=model.QueueDocument,
        example_answer=_VIEW | {
            "workers": {"counts": {"ready": 1, "present": 1, "desired": 1}, "reason": "1 worker for 3 tasks"},
            "backlog": [{"lane": "normal", "waiting": 2, "running": 1}],
        },
        fails=(QueueNotFound,),
    ),
    Operation(
        "pauseQueue", "POST", f"{QUEUE}/pause", Right("patch", "taskqueues"), pause, "Pause a queue",
        "No further task starts until it is resumed. Tasks are still accepted, and what runs goes on.",
        answers=model.QueueDocument, fails=(QueueNotFound,),
    ),
    Operation(
        "resumeQueue", "POST", f"{QUEUE}/resume", Right("patch", "taskqueues"), resume, "Resume a queue",
        "A queue that its manifest pauses stays paused (`spec.paused`).",
        answers=model.QueueDocument, fails=(QueueNotFound,),
    ),
)  # fmt: skip
