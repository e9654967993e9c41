"""The schedules of a queue: each is one message of its later stream, waiting for its next tick or due.

Every write names the message it replaces, whichever of the two it is: the server refuses it if another one is
there by now, or none. So a change never undoes another one, and what was deleted does not come back.
"""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from msgspec import Raw

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.pipeline import DENIED, NO_RESPONDERS, WRONG_SEQUENCE, Ack
from galley.errors import EnvelopeInvalid, QueueNotFound
from galley.repeat import Repeat
from galley.schedule import Schedule, decode, encode, ticks_of

log = logging.getLogger(__name__)

_TRIES: Final = 10

AT_ONCE: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Long past by whichever clock: the server alone knows what time it is."""


class Kept(NamedTuple):
    """A schedule and the message it is kept in."""

    namespace: str
    queue: str
    schedule: Schedule
    sequence: int
    changed: bool = False
    """Whether it was just written."""


async def schedules_of(broker: Broker, namespace: str, queue: str, name: str = "*") -> AsyncIterator[Kept]:
    """Yield the schedules of a queue, or the one of that name; one that cannot be read is left out.

    Raises:
        NotAllowed: if our credentials are of another queue.
        BrokerUnreachable: if the broker does not answer.
    """
    found: dict[str, Kept] = {}
    stream = topology.later_stream(namespace, queue)
    async for message in messages_of(broker, stream, topology.schedule_in_any_state(namespace, queue, name)):
        try:
            schedule = decode(message.body)
        except EnvelopeInvalid as error:
            log.warning("schedule not readable", extra={"subject": message.subject, "error": str(error)})
            continue
        # Between two ticks there are two for a moment, and the newer one counts.
        found[schedule.name] = Kept(namespace, queue, schedule, message.sequence)
    for kept in found.values():
        if not kept.schedule.gone:
            yield kept


async def find(broker: Broker, namespace: str, queue: str, name: str) -> Kept | None:
    """Return a schedule, or None if there is none of that name.

    Raises:
        NotAllowed, BrokerUnreachable: as `schedules_of`.
    """
    return await anext(schedules_of(broker, namespace, queue, name), None)


async def store(
    broker: Broker, place: tuple[str, str], schedule: Schedule, at: datetime, *, instead_of: int
) -> Ack:
    """Have a schedule delivered to a worker at `at`.

    Args:
        broker: an open connection.
        place: namespace and queue.
        schedule: what is stored.
        at: when; a time in the past means at once.
        instead_of: sequence of the message it replaces; 0 if there is to be none.

    Returns:
        The broker's word: stored, `WRONG_SEQUENCE` if another message is there, or unanswered.
    """
    namespace, queue = place
    headers = {
        topology.SCHEDULE: f"@at {at.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z",
        topology.SCHEDULE_TARGET: topology.fired_subject(namespace, queue, schedule.name),
        topology.EXPECTED_SEQUENCE: str(instead_of),
        topology.EXPECTED_SUBJECT: topology.schedule_in_any_state(namespace, queue, schedule.name),
    }
    subject = topology.timer_subject(namespace, queue, schedule.name)
    return await (await broker.pipeline.send(subject, encode(schedule), header_block(headers)))


async def replaced(
    broker: Broker, place: tuple[str, str], schedule: Schedule, at: datetime, *, instead_of: int
) -> bool:
    """As `store`; returns whether it was stored, or else the message to replace is no longer the one given.

    Raises:
        QueueNotFound: if there is no such queue.
        NotAllowed: if our credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer; it may have been stored.
        BrokerRefused: if it refuses it for another reason.
    """
    ack = await store(broker, place, schedule, at, instead_of=instead_of)
    action = f"store schedule {place[1]}/{schedule.name}"
    if ack.stored:
        return True
    if ack.code == WRONG_SEQUENCE:
        return False
    if ack.code == DENIED:
        raise NotAllowed(topology.timer_subject(*place, schedule.name))
    if ack.code == NO_RESPONDERS:
        raise QueueNotFound(*place)
    if ack.unanswered:
        raise BrokerUnreachable(broker.server, f"{action}: {ack.problem}")
    raise BrokerRefused(action, ack.code, ack.problem)


async def remove(broker: Broker, namespace: str, queue: str, name: str) -> None:
    """Remove a schedule. When this returns it fires no more; tasks of past ticks are not touched.

    Raises:
        NotAllowed: if our credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer; doing it again is safe.
    """
    stream, action = topology.later_stream(namespace, queue), f"delete schedule {queue}/{name}"
    subjects = topology.timer_subject(namespace, queue, name), topology.fired_subject(namespace, queue, name)
    try:
        for _ in range(_TRIES):
            for subject in subjects:
                await broker.api(action, f"STREAM.PURGE.{stream}", {"filter": subject})
            # A worker may have stored it again between the two. It cannot once both were empty.
            if await find(broker, namespace, queue, name) is None:
                return
    except BrokerRefused as refusal:
        if not refusal.missing:
            raise
        return
    raise BrokerUnreachable(broker.server, f"{action}: it is stored again and again; try again")


async def wake(broker: Broker, namespace: str, queue: str) -> None:
    """Have a worker of a queue started, which makes the schedules of its code.

    Raises:
        BrokerUnreachable: if the broker is not connected.
    """
    nothing = Schedule("wake", Repeat("@yearly"), Raw(b"null"), "", gone=True)
    # No schedule can have that name, and the worker acknowledges what is gone.
    await (await broker.pipeline.send(topology.fired_subject(namespace, queue, "-"), encode(nothing), b""))


async def reserved_for(broker: Broker, address: TaskAddress) -> str:
    """Return the schedule whose tick alone may have a task's id; empty if the id is free.

    It is reserved until the tick was decided and its task has left the stream of tasks for later: from then
    on its record tells a second task of the same id.

    Raises:
        NotAllowed: if our credentials are of another queue, or of an earlier release.
        BrokerUnreachable: if the broker does not answer.
    """
    tick = ticks_of(address.id)
    if tick is None or address.kind is not Kind.DIRECT:
        return ""
    name, at = tick
    kept = await find(broker, address.namespace, address.queue, name)
    if kept is None:
        return ""
    decided = kept.schedule.progress.decided
    return name if decided is None or at > decided or await waits(broker, address) else ""


async def waits(broker: Broker, address: TaskAddress) -> bool:
    """Return whether the later stream has a message of a task.

    Raises:
        NotAllowed: if our credentials are of another queue, or of an earlier release.
        BrokerUnreachable: if the broker does not answer.
    """
    stream = topology.later_stream(address.namespace, address.queue)
    async for _ in messages_of(broker, stream, topology.in_any_lane(address)):
        return True
    return False
