"""Looking at tasks and queues from outside, without touching them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.control import Request, Verb, ask_workers
from galley.broker.ensure import stream_info
from galley.broker.held import message_of
from galley.broker.records import Records
from galley.errors import QueueNotFound, TaskNotFound
from galley.lanes import Lane
from galley.record import State
from galley.task_status import Phase, TaskStatus, of_record

_SUBJECTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class QueueView:
    """A queue as its streams show it."""

    namespace: str
    queue: str
    lanes: tuple[Lane, ...]
    held: int
    """Tasks ready or running."""
    later: int
    """Tasks scheduled, waiting for a retry, or due."""
    backlog_limit: int


async def queues(broker: Broker, namespace: str) -> list[QueueView]:
    """Return the queues of a namespace, by name.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    while True:
        page = await broker.api("list streams", "STREAM.LIST", {"offset": offset})
        streams = page.get("streams") or []
        found |= {stream["config"]["name"]: stream for stream in streams}
        offset += len(streams)
        if not streams or offset >= page["total"]:
            break
    views = []
    for name, stream in sorted(found.items()):
        metadata = stream["config"].get("metadata") or {}
        queue = metadata.get(topology.QUEUE_KEY, "")
        if metadata.get(topology.NAMESPACE_KEY) == namespace and name == topology.work_stream(
            namespace, queue
        ):
            later = found.get(topology.later_stream(namespace, queue))
            views.append(_view(namespace, queue, stream, later))
    return views


async def queue(broker: Broker, namespace: str, name: str) -> QueueView:
    """Return one queue; unlike a list of them, whoever may use a queue may see it.

    Raises:
        QueueNotFound: if there is none of that name.
        BrokerUnreachable: if the broker does not answer.
    """
    work = await stream_info(broker, topology.work_stream(namespace, name))
    if work is None:
        raise QueueNotFound(namespace, name)
    return _view(namespace, name, work, await stream_info(broker, topology.later_stream(namespace, name)))


def _view(namespace: str, queue: str, work: dict[str, Any], later: dict[str, Any] | None) -> QueueView:
    return QueueView(
        namespace,
        queue,
        tuple(Lane(word) for word in work["config"]["metadata"][topology.LANES_KEY].split(",")),
        work["state"]["messages"],
        later["state"]["messages"] if later else 0,
        work["config"]["max_msgs"],
    )


async def status(broker: Broker, address: TaskAddress) -> TaskStatus:
    """Return where a task is. Its lane need not be right.

    Raises:
        TaskNotFound: if it neither waits nor has a record.
        QueueNotFound: if there is no such queue either.
        BrokerUnreachable: if the broker does not answer.
    """
    stored = await Records(broker).look_up(address)
    if stored is not None and (stored.record.state is not State.RUN or stored.record.handed_back):
        return of_record(address, stored.record)
    asked = Request(task=f"{address.kind}.{address.id}")
    running = await ask_workers(broker, address.namespace, address.queue, Verb.PING, asked)
    waiting = await _waiting(broker, address)
    if waiting is None:
        # It may have ended between the two looks, which its record would tell by now.
        stored = await Records(broker).read(address)
        if stored is None:
            if await stream_info(broker, topology.work_stream(address.namespace, address.queue)) is None:
                raise QueueNotFound(address.namespace, address.queue)
            raise TaskNotFound(address.queue, address.id)
        return of_record(address, stored.record)
    if running is not None:
        known = of_record(address, stored.record) if stored is not None else waiting
        return msgspec.structs.replace(
            known,
            phase=Phase.RUNNING,
            worker=running.worker,
            started_at=running.started_at,
            attempt=max(1, known.attempt),
        )
    if stored is not None and stored.record.state is State.RUN:
        return of_record(address, stored.record)
    return waiting


async def tasks(broker: Broker, namespace: str, queue: str) -> AsyncIterator[TaskStatus]:
    """Yield the status of each task of a queue, in no order. What runs shows as queued or running.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    recorded: set[str] = set()
    async for address, stored in Records(broker).all_of(namespace, queue):
        recorded.add(address.id)
        yield of_record(address, stored.record)
    for stream in (topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)):
        offset = 0
        while True:
            info = await stream_info(broker, stream, {"subjects_filter": ">", "offset": offset})
            subjects = (info or {}).get("state", {}).get("subjects") or {}
            for subject in subjects:
                address = topology.parse_task_subject(subject)
                if address.id not in recorded:
                    recorded.add(address.id)
                    found = await _waiting(broker, address)
                    if found is not None:
                        yield found
            offset += len(subjects)
            if len(subjects) < _SUBJECTS_AT_ONCE:
                break


async def _waiting(broker: Broker, address: TaskAddress) -> TaskStatus | None:
    """Return the status of a task whose message still is in one of its queue's streams."""
    message = await message_of(broker, address)
    if message is None:
        return None
    envelope, phase = message.envelope, Phase.SCHEDULED if message.scheduled else Phase.QUEUED
    if envelope is None:
        return TaskStatus(message.address, phase)
    return TaskStatus(
        message.address,
        phase,
        handler=envelope.handler,
        submitted_at=envelope.submitted_at,
        due_at=envelope.not_before if message.scheduled else None,
        history=envelope.history,
    )
