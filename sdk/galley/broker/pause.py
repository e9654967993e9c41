"""Pausing a queue at the broker: it hands out no task of the queue's lanes until it is resumed.

The consumers of the lanes are paused, so it needs no operator and no worker, and outlives restarts of all of
them. Tasks are still accepted, delayed tasks still become due, and what runs goes on.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused
from galley.errors import QueueNotFound

_FOR_GOOD: Final = "2200-01-01T00:00:00Z"


async def pause(broker: Broker, namespace: str, queue: str) -> None:
    """Hand out no further task of a queue. Pausing twice is the same as once.

    Raises:
        QueueNotFound: if there is no such queue.
        NotAllowed: if the credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer; some lanes may be paused. Do it again.
    """
    await _set(broker, namespace, queue, {"pause_until": _FOR_GOOD})


async def resume(broker: Broker, namespace: str, queue: str) -> None:
    """Hand out tasks of a queue again.

    Raises:
        QueueNotFound, NotAllowed, BrokerUnreachable: as `pause`.
    """
    await _set(broker, namespace, queue, {})


async def _set(broker: Broker, namespace: str, queue: str, request: dict[str, Any]) -> None:
    for lane in await _lanes(broker, namespace, queue):
        for stream in (topology.later_stream(namespace, queue), topology.work_stream(namespace, queue)):
            await broker.api(f"pause lane {lane} of {stream}", f"CONSUMER.PAUSE.{stream}.{lane}", request)


async def is_paused(broker: Broker, namespace: str, queue: str, lanes: Sequence[str] | None = None) -> bool:
    """Return whether a queue is paused; as long as one of its lanes is, it counts as paused.

    Args:
        broker: an open connection.
        namespace: of the queue.
        queue: its name.
        lanes: of the queue; None looks them up.

    Raises:
        QueueNotFound, BrokerUnreachable: as `pause`.
    """
    work = topology.work_stream(namespace, queue)
    for lane in await _lanes(broker, namespace, queue) if lanes is None else lanes:
        with suppress(BrokerRefused):  # a consumer that is missing is not paused
            info = await broker.api(f"look at lane {lane}", f"CONSUMER.INFO.{work}.{lane}")
            if info.get("paused"):
                return True
    return False


async def held_by_workers(broker: Broker, namespace: str, queue: str) -> int:
    """Return how many tasks of a queue workers hold.

    Raises:
        QueueNotFound, BrokerUnreachable: as `pause`.
    """
    held = 0
    for lane in await _lanes(broker, namespace, queue):
        for stream in (topology.later_stream(namespace, queue), topology.work_stream(namespace, queue)):
            info = await broker.api(f"look at lane {lane}", f"CONSUMER.INFO.{stream}.{lane}")
            held += int(info["num_ack_pending"])
    return held


async def _lanes(broker: Broker, namespace: str, queue: str) -> list[str]:
    info = await stream_info(broker, topology.work_stream(namespace, queue))
    if info is None:
        raise QueueNotFound(namespace, queue)
    return str(info["config"]["metadata"][topology.LANES_KEY]).split(",")
