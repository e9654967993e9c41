"""The messages of tasks in a queue's streams: waiting, held by a worker, or for later."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.listing import messages_of, subjects_of
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid


async def held(broker: Broker, namespace: str, queue: str, kind: Kind) -> AsyncIterator[TaskAddress]:
    """Yield the tasks of one kind, one by one since there may be millions; none if the queue has no streams.

    One that moves from a stream to the other meanwhile may come twice.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    pattern = topology.tasks_of_kind(namespace, queue, kind)
    for stream in (topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)):
        async for subjects in subjects_of(broker, stream, pattern):
            for subject in subjects:
                yield topology.parse_task_subject(subject)


class Message(NamedTuple):
    """A task's message, as it lies in a stream."""

    address: TaskAddress
    envelope: Envelope | None
    """None if it cannot be read; it keeps its `sealed` if it cannot be decrypted here."""
    scheduled: bool
    """Whether it waits for its time."""
    stream: str
    sequence: int
    """Its place in the stream."""
    waits: bool = False
    """Whether it waits under its key, so that no slot takes it."""


async def message_of(broker: Broker, address: TaskAddress, *, for_certain: bool = False) -> Message | None:
    """Return the message of a task, whatever its lane, or None if none of its queue's streams has one.

    Raises:
        KeyServiceUnavailable: if the key service does not answer, and it has to be decrypted `for_certain`.
        BrokerUnreachable: if the broker does not answer.
    """
    request = msgspec.json.encode({"seq": 1, "next_by_subj": topology.in_any_lane(address)})
    for stream in (
        topology.work_stream(address.namespace, address.queue),
        topology.later_stream(address.namespace, address.queue),
    ):
        answer = await broker.request(f"$JS.API.DIRECT.GET.{stream}", request)
        headers = (answer.headers or {}) if answer is not None else {}
        if answer is None or "Nats-Subject" not in headers:
            continue
        subject, sequence = headers["Nats-Subject"], int(headers["Nats-Sequence"])
        scheduled = topology.SCHEDULE in headers
        there = topology.parse_task_subject(subject)
        place = _Place(stream, subject, sequence, scheduled)
        return await _read(broker, there, place, answer.data, for_certain=for_certain)
    return None


async def messages_in(broker: Broker, stream: str) -> AsyncIterator[Message]:
    """Yield the messages of the tasks in a stream of a queue, oldest first, many at a time.

    Raises:
        NotAllowed: if our credentials may not read the stream as a whole.
        BrokerUnreachable: if the broker does not answer.
    """
    async for stored in messages_of(broker, stream, ">"):
        try:
            address = topology.parse_task_subject(stored.subject)
        except ValueError:  # not the subject of a task
            continue
        if address.kind is not Kind.TURN:
            place = _Place(stream, stored.subject, stored.sequence, stored.scheduled)
            yield await _read(broker, address, place, stored.body)


class _Place(NamedTuple):
    stream: str
    subject: str
    sequence: int
    scheduled: bool


async def _read(
    broker: Broker, address: TaskAddress, place: _Place, body: bytes, *, for_certain: bool = False
) -> Message:
    try:
        envelope = await broker.payloads.look_at_task(address, body, for_certain=for_certain)
    except EnvelopeInvalid:
        envelope = None
    scheduled = place.scheduled or place.subject == topology.plan_subject(address)
    waits = place.subject.startswith(topology.WAITING)
    return Message(address, envelope, scheduled, place.stream, place.sequence, waits)
