"""Operations on queues as a whole."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace
from starlette.responses import Response

from galley.backlog import Unknown
from galley.broker import queue_view
from galley.broker.connection import Broker
from galley.broker.control import ask_supply
from galley.broker.errors import BrokerError
from galley.broker.queue_view import QueueView
from galley.broker.signals import SignalReader
from galley.broker.waiting_keys import waiting_keys
from galley.cli.documents import queue_document
from galley.errors import QueueNotFound
from galley.lanes import Lane
from galley_gateway.access import Right
from galley_gateway.api.model import shaped
from galley_gateway.operation import Ask, Operation, reply

QUEUE: Final = "/queues/{queue}"


class LaneView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A lane of a queue."""

    lane: Lane
    waiting: int
    running: int
    oldest_at: datetime | None = None


class WorkersView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The workers of a queue."""

    counts: dict[str, int] = {}
    reason: Annotated[str, Meta(description="Why there are as many as there are.")] = ""
    problem: Annotated[str, Meta(description="Why none takes tasks.")] = ""


class KeyView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A key with waiting tasks."""

    key: str
    waiting: Annotated[int, Meta(description="Tasks, of those that were read.")]
    waits_for: Annotated[str, Meta(description="`turn`, `permit` or `rate`.")]
    running: Annotated[list[str], Meta(description="Tasks that have its permits.")] = []


class KeysView(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The keys of a queue under which tasks wait."""

    tasks: Annotated[int, Meta(description="Tasks that wait under keys.")]
    read: Annotated[int, Meta(description="Of these, the oldest ones, which `keys` are made of.")]
    keys: Annotated[list[KeyView], Meta(description="The five with the most waiting tasks.")] = []


class QueueDocument(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A queue."""

    name: str
    namespace: str
    lanes: list[Lane]
    held: Annotated[int, Meta(description="Tasks that are ready or running.")]
    later: Annotated[int, Meta(description="Tasks that are not due yet.")]
    backlog_limit: int
    paused: bool
    workers: WorkersView | None = None
    backlog: list[LaneView] | None = None
    waiting_under_keys: KeysView | None = None


class QueueList(Struct, frozen=True):
    """The queues of a namespace, by name."""

    queues: list[QueueDocument]


def shown(view: QueueView) -> QueueDocument:
    """Return a queue as its streams show it."""
    document: QueueDocument = shaped(queue_document(view), QueueDocument)
    return document


async def with_workers(broker: Broker, reader: SignalReader, view: QueueView) -> QueueDocument:
    """Return a queue with its backlog by lane, and why it has the workers it has."""
    document = shown(view)
    backlog = await reader.read(view.namespace, view.queue)
    lanes, keys = None, None
    if not isinstance(backlog, Unknown):
        keys = await _keys(broker, view) if backlog.keyed else None
        lanes = [LaneView(each.lane, each.waiting, each.in_flight, each.oldest_at) for each in backlog.lanes]
    workers = None
    with suppress(BrokerError):
        supply = await ask_supply(broker, view.namespace, view.queue)
        if supply is None:
            workers = WorkersView(problem="neither an operator nor `galley dev` answers for this queue")
        else:
            workers = WorkersView(supply.workers, supply.scaling, supply.problem)
    return replace(document, workers=workers, backlog=lanes, waiting_under_keys=keys)


async def _keys(broker: Broker, view: QueueView) -> KeysView | None:
    """Return the keys under which tasks wait; None if none does, or the broker does not tell."""
    with suppress(BrokerError):
        found = await waiting_keys(broker, view.namespace, view.queue)
        views = [KeyView(each.key, each.waiting, each.reason, list(each.running)) for each in found.keys]
        return KeysView(found.tasks, found.read, views) if found.tasks else None
    return None


async def list_queues(ask: Ask) -> Response:
    """Return the queues of a namespace."""
    found = await queue_view.queues(ask.client.broker, ask.namespace)
    return reply(QueueList([shown(view) for view in found]))


async def get_queue(ask: Ask) -> Response:
    """Return one queue with its lanes and workers."""
    view = await ask.client.queues.get(ask.queue)
    return reply(await with_workers(ask.client.broker, ask.gateway.reader, view))


async def pause(ask: Ask) -> Response:
    """Start no further task of a queue."""
    await ask.client.queues.pause(ask.queue)
    return reply(shown(await ask.client.queues.get(ask.queue)))


async def resume(ask: Ask) -> Response:
    """Start tasks of a queue again."""
    await ask.client.queues.resume(ask.queue)
    return reply(shown(await ask.client.queues.get(ask.queue)))


_VIEW: Final = {
    "name": "images", "namespace": "default", "lanes": ["high", "normal", "low"], "held": 3, "later": 0,
    "backlogLimit": 100000, "paused": False,
}  # fmt: skip

OPERATIONS: Final = (
    Operation(
        "listQueues", "GET", "/queues", Right("list", "taskqueues"), list_queues,
        "List the queues of a namespace", answers=QueueList, example_answer={"queues": [_VIEW]},
    ),
    Operation(
        "getQueue", "GET", QUEUE, Right("get", "taskqueues"), get_queue, "Look at a queue",
        "With what waits and runs in each lane, and why it has the workers it has.",
        answers=QueueDocument,
        example_answer=_VIEW | {
            "workers": {"counts": {"ready": 1, "present": 1, "desired": 1}, "reason": "1 worker for 3 tasks"},
            "backlog": [{"lane": "normal", "waiting": 2, "running": 1}],
        },
        fails=(QueueNotFound,),
    ),
    Operation(
        "pauseQueue", "POST", f"{QUEUE}/pause", Right("patch", "taskqueues"), pause, "Pause a queue",
        "No further task starts until it is resumed. Tasks are still accepted, and what runs goes on.",
        answers=QueueDocument, fails=(QueueNotFound,),
    ),
    Operation(
        "resumeQueue", "POST", f"{QUEUE}/resume", Right("patch", "taskqueues"), resume, "Resume a queue",
        "A queue that its manifest pauses stays paused (`spec.paused`).",
        answers=QueueDocument, fails=(QueueNotFound,),
    ),
)  # fmt: skip
