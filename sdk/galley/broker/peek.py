"""The next tasks of a queue: a bounded look that costs the same however many wait."""

from contextlib import suppress
from typing import Any

import msgspec
from nats.aio.msg import Msg

from galley import envelope as wire
from galley.broker import topology
from galley.broker.connection import Broker
from galley.errors import BrokerRefused, EnvelopeInvalid
from galley.lanes import Lane
from galley.task_status import Phase, TaskStatus


async def peek(broker: Broker, namespace: str, queue: str, lane: Lane, most: int) -> list[TaskStatus]:
    """Return the oldest tasks of a lane that have not ended, running ones first.

    A task that was handed to a worker counts as running; one that worker lost or gave back does so
    until the next one takes it.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found: list[TaskStatus] = []
    for stream, subjects in (
        (topology.later_stream(namespace, queue), topology.later_of_lane(namespace, queue, lane)),
        (topology.work_stream(namespace, queue), topology.ready_of_lane(namespace, queue, lane)),
    ):
        last = await handed_out(broker, stream, lane)
        if last is None:
            continue
        request = {"seq": 1, "next_by_subj": subjects, "batch": most}
        async for answer in broker.request_many(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request)):
            headers = answer.headers or {}
            if "Nats-Subject" not in headers:
                break
            with suppress(ValueError):  # not the subject of a task
                found.append(_status(answer, headers, last))
    found.sort(key=lambda status: status.phase is not Phase.RUNNING)
    return found[:most]


async def handed_out(broker: Broker, stream: str, lane: Lane) -> int | None:
    """Return the sequence up to which the tasks of a lane were given to workers, None if it has none.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    try:
        figures = await broker.api(f"look at lane {lane}", f"CONSUMER.INFO.{stream}.{lane}")
    except BrokerRefused:
        return None
    return int(figures["delivered"]["stream_seq"])


def _status(message: Msg, headers: dict[str, Any], last: int) -> TaskStatus:
    address = topology.parse_task_subject(headers["Nats-Subject"])
    if topology.SCHEDULE in headers:
        phase = Phase.SCHEDULED
    else:
        phase = Phase.RUNNING if int(headers["Nats-Sequence"]) <= last else Phase.QUEUED
    try:
        envelope = wire.decode(message.data)
    except EnvelopeInvalid:
        return TaskStatus(address, phase)
    return TaskStatus(
        address,
        phase,
        handler=envelope.handler,
        attempt=len(envelope.history.attempts),
        submitted_at=envelope.submitted_at,
        due_at=envelope.not_before if phase is Phase.SCHEDULED else None,
        history=envelope.history,
    )
