"""Submitting Task manifests: the name of a task is its id, so applying it twice is once."""

from datetime import UTC, datetime
from typing import NamedTuple

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.envelope import Envelope, encode_input
from galley.resources.task import Task


class Submitted(NamedTuple):
    """What submitting a manifest came to."""

    address: TaskAddress
    created: bool
    """False if the task was there already, waiting, running or ended: then nothing was added."""


def address_of(task: Task) -> TaskAddress:
    """Return where a manifest's task lives."""
    return TaskAddress(
        task.metadata.namespace, task.spec.queue_name, task.spec.priority, Kind.DIRECT, task.metadata.name
    )


async def submit_declared(broker: Broker, task: Task) -> Submitted:
    """Submit the task of a manifest, unless its queue knows it already.

    Raises:
        QueueNotFound, LaneNotEnabled, QueueFull: refused; nothing was stored.
        BrokerUnreachable: no answer; doing it again is safe.
    """
    address = address_of(task)
    # A finished task has left its stream, so only its record can tell. Should it end between this look and
    # the publishing, the worker that is given the copy finds the record and drops it.
    if await Records(broker).look_up(address) is not None:
        return Submitted(address, created=False)
    receipt = await Publisher(broker).publish(address, envelope_of(task, datetime.now(UTC)), chosen_id=True)
    return Submitted(address, created=not receipt.duplicate)


def envelope_of(task: Task, now: datetime) -> Envelope:
    """Return the task as it travels.

    Raises:
        InputInvalid: if the input is too large.
    """
    spec = task.spec
    return Envelope(
        spec.handler,
        now,
        input=encode_input(spec.handler, spec.input),
        not_before=spec.not_before if spec.not_before and spec.not_before > now else None,
        deadline=spec.deadline,
        timeout_seconds=spec.timeout_seconds,
        retry=spec.retry.policy() if spec.retry else None,
    )
