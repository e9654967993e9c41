"""The messages of tasks in a queue's streams: waiting, held by a worker, or for later."""

from typing import NamedTuple

import msgspec

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.listing import subjects_of
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid


async def held(broker: Broker, namespace: str, queue: str, kind: Kind) -> dict[str, TaskAddress] | None:
    """Return the tasks of one kind by their id, or None if the queue has no streams.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found: dict[str, TaskAddress] = {}
    pattern = topology.tasks_of_kind(namespace, queue, kind)
    for stream in (topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)):
        there = False
        async for subjects in subjects_of(broker, stream, pattern):
            there = True
            for subject in subjects:
                address = topology.parse_task_subject(subject)
                found[address.id] = address
        if not there:
            return None
    return found


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
        there = topology.parse_task_subject(headers["Nats-Subject"])
        try:
            envelope = await broker.payloads.look_at_task(there, answer.data, for_certain=for_certain)
        except EnvelopeInvalid:
            envelope = None
        subject = headers["Nats-Subject"]
        scheduled = topology.SCHEDULE in headers or subject == topology.plan_subject(there)
        waits = subject.startswith(topology.WAITING)
        return Message(there, envelope, scheduled, stream, int(headers["Nats-Sequence"]), waits)
    return None
