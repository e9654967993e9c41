"""Queues as their streams show them, and what keeps their tasks from being started."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.control import Pause, Supply, ask_supply
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerError
from galley.broker.listing import all_streams
from galley.broker.pause import is_paused
from galley.errors import QueueNotFound
from galley.lanes import Lane

_AT_ONCE: Final = 32
"""Queues whose lanes are looked at at a time."""


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
    paused: bool = False
    """Whether `galley pause` paused it; a TaskQueue that pauses itself has no workers instead."""
    paused_by: tuple[str, ...] = ()
    """All that keeps its tasks from being started: `manifest`, `command`, `circuit`; left out unless
    `with_pauses` added it."""


async def queues(broker: Broker, namespace: str) -> list[QueueView]:
    """Return the queues of a namespace, by name.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found = {stream["config"]["name"]: stream async for stream in all_streams(broker)}
    works: list[tuple[str, dict[str, Any]]] = []
    for name, stream in sorted(found.items()):
        metadata = stream["config"].get("metadata") or {}
        queue = metadata.get(topology.QUEUE_KEY, "")
        if metadata.get(topology.NAMESPACE_KEY) == namespace and name == topology.work_stream(
            namespace, queue
        ):
            works.append((queue, stream))

    async def one(queue: str, work: dict[str, Any]) -> QueueView:
        later = found.get(topology.later_stream(namespace, queue))
        paused = await is_paused(broker, namespace, queue, _lanes_in(work))
        return _view(namespace, queue, work, later, paused=paused)

    views: list[QueueView] = []
    for first in range(0, len(works), _AT_ONCE):
        views += await asyncio.gather(*(one(*each) for each in works[first : first + _AT_ONCE]))
    return views


async def namespaces(broker: Broker) -> list[str]:
    """Return the namespaces that have queues.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found = set()
    async for stream in all_streams(broker):
        metadata = stream["config"].get("metadata") or {}
        if metadata.get(topology.QUEUE_KEY):
            found.add(metadata.get(topology.NAMESPACE_KEY, ""))
    return sorted(found - {""})


async def queue(broker: Broker, namespace: str, name: str) -> QueueView:
    """Return one queue; unlike listing, this works with the permissions of that queue alone.

    Raises:
        QueueNotFound: if there is none of that name.
        BrokerUnreachable: if the broker does not answer.
    """
    work = await stream_info(broker, topology.work_stream(namespace, name))
    if work is None:
        raise QueueNotFound(namespace, name)
    later = await stream_info(broker, topology.later_stream(namespace, name))
    paused = await is_paused(broker, namespace, name, _lanes_in(work))
    return _view(namespace, name, work, later, paused=paused)


def _view(
    namespace: str, queue: str, work: dict[str, Any], later: dict[str, Any] | None, *, paused: bool
) -> QueueView:
    return QueueView(
        namespace,
        queue,
        _lanes_in(work),
        work["state"]["messages"],
        later["state"]["messages"] if later else 0,
        work["config"]["max_msgs"],
        paused,
    )


def _lanes_in(work: dict[str, Any]) -> tuple[Lane, ...]:
    return tuple(Lane(word) for word in work["config"]["metadata"][topology.LANES_KEY].split(","))


def pauses_of(*, paused: bool, supply: Supply | None) -> list[str]:
    """Return all that keeps the tasks of a queue from being started.

    Args:
        paused: whether the broker hands out none of them.
        supply: what starts its workers says.
    """
    said = {each.value for each in supply.paused_by} if supply is not None else set[str]()
    # The broker knows best whether a command paused it: what scales the queue looks now and then.
    said = (said | {Pause.COMMAND.value}) if paused else said - {Pause.COMMAND.value}
    return sorted(said, key=[each.value for each in Pause].index)


async def with_pauses(broker: Broker, views: list[QueueView]) -> list[QueueView]:
    """Return queues with all that pauses them, as far as what starts their workers answers."""

    async def one(view: QueueView) -> QueueView:
        supply = None
        with suppress(BrokerError):
            supply = await ask_supply(broker, view.namespace, view.queue)
        return replace(view, paused_by=tuple(pauses_of(paused=view.paused, supply=supply)))

    return list(await asyncio.gather(*(one(view) for view in views)))


async def worker_problem(broker: Broker, namespace: str, queue: str) -> str:
    """Return why no worker of a queue takes tasks, as a sentence; empty if nothing is said.

    Raises:
        NotAllowed: if the credentials are of another queue.
        BrokerUnreachable: if the broker does not answer.
    """
    supply = await ask_supply(broker, namespace, queue)
    if supply is None or not supply.problem:
        return ""
    if supply.paused_by:
        return f"queue {queue!r} is paused: {'; '.join(supply.paused_by.values())}"
    return f"workers of queue {queue!r} do not start: {supply.problem}"
