"""What is known about tasks, queues, dead letters and schedules, as the API answers it."""

from contextlib import suppress
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from galley.backlog import Unknown
from galley.broker.connection import Broker
from galley.broker.control import ask_supply
from galley.broker.errors import BrokerError
from galley.broker.inspect import QueueView
from galley.broker.signals import SignalReader
from galley.cli.documents import queue_document, task_document
from galley.dead_task import DeadTask
from galley.encryption.errors import EncryptionError
from galley.errors import ResultMismatch, TaskEnded
from galley.handle import AsyncHandle
from galley.objects.errors import ObjectError
from galley.schedules import ScheduleView
from galley.task_status import Phase, TaskStatus
from galley_gateway.api.model import (
    DeadLetterView,
    LaneView,
    QueueDocument,
    ScheduleDocument,
    TaskView,
    WorkersView,
    as_json,
    shaped,
)


def task_view(status: TaskStatus) -> TaskView:
    """Return a task without its result."""
    view: TaskView = shaped(task_document(status), TaskView)
    return view


async def with_result(handle: AsyncHandle[Any], status: TaskStatus) -> TaskView:
    """Return a task with its result, if it has one that can be read."""
    view = task_view(status)
    if status.phase is not Phase.SUCCEEDED:
        return view
    try:
        return replace(view, result=as_json(await handle.result(hold_slot=True)))
    except TaskEnded:  # it was redriven, and ended otherwise, between the two looks
        return view
    except (EncryptionError, ObjectError, ResultMismatch) as error:
        return replace(view, note=f"{error}; {error.hint}")


def queue_view(view: QueueView) -> QueueDocument:
    """Return a queue as its streams show it."""
    document: QueueDocument = shaped(queue_document(view), QueueDocument)
    return document


async def with_workers(broker: Broker, reader: SignalReader, view: QueueView) -> QueueDocument:
    """Return a queue with its backlog by lane, and why it has the workers it has."""
    document = queue_view(view)
    backlog = await reader.read(view.namespace, view.queue)
    lanes = None
    if not isinstance(backlog, Unknown):
        lanes = [LaneView(each.lane, each.waiting, each.in_flight, each.oldest_at) for each in backlog.lanes]
    workers = None
    with suppress(BrokerError):
        supply = await ask_supply(broker, view.namespace, view.queue)
        if supply is None:
            workers = WorkersView(problem="neither an operator nor `galley dev` answers for this queue")
        else:
            workers = WorkersView(supply.workers, supply.scaling, supply.problem)
    return replace(document, workers=workers, backlog=lanes)


def dead_view(dead: DeadTask, *, whole: bool = False) -> DeadLetterView:
    """Return a dead letter.

    Args:
        dead: the dead letter.
        whole: whether to add its input.
    """
    return DeadLetterView(
        dead.id, dead.queue, dead.reason, dead.message, dead.died_at, dead.attempt, dead.lane, dead.handler,
        dead.worker, dead.submitted_at, dead.traceback, dead.labels,
        dead.input if whole and dead.input is not None else UNSET,
    )  # fmt: skip


def schedule_view(view: ScheduleView) -> ScheduleDocument:
    """Return a schedule."""
    return ScheduleDocument(
        view.name, view.queue, view.handler, view.lane, view.repeat, view.suspended, view.origin.value,
        view.next_at, view.last_at, view.last_id, view.fired, view.skipped, view.problem,
        UNSET if view.input is None else view.input,
    )  # fmt: skip
