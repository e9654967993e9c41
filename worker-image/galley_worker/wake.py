"""The task that a workflow takes the place of: how the workflow names it, and how it hears of the end."""

from datetime import datetime

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.flow_values import Place
from galley.broker.later import Door, send_later
from galley.broker.listing import messages_of
from galley.envelope import Flags
from galley.errors import EnvelopeInvalid
from galley.failpoint import failpoint
from galley.lanes import Lane
from galley.workflow.state import Root


def parent_name(address: TaskAddress) -> str:
    """Return how a workflow names the task it takes the place of."""
    return f"{address.lane}.{address.kind}.{address.id}"


def parent_of(place: Place, root: Root) -> TaskAddress:
    """Return the task that a workflow takes the place of."""
    lane, kind, task = root.parent.split(".", 2)
    return TaskAddress(place.namespace, place.queue, Lane(lane), Kind(kind), task)


async def wake(broker: Broker, place: Place, root: Root, now: datetime) -> None:
    """Bring forward the schedule of the task that a workflow takes the place of.

    Raises:
        BrokerError: the broker does not answer.
    """
    address = parent_of(place, root)
    later = topology.later_stream(address.namespace, address.queue)
    async for message in messages_of(broker, later, topology.again_subject(address)):
        try:
            flags = Flags.decode(message.header)
        except EnvelopeInvalid:
            continue
        if flags.awaits == place.flow:
            failpoint("then.before_wake")
            await (await send_later(broker, address, message.body, flags, now, Door.AGAIN))
