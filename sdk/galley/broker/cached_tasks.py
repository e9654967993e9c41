"""Tasks of cached handlers: one is stored only if none has done its work, or is about to."""

from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker.connection import Broker
from galley.broker.known import Known, check_same_work
from galley.broker.publish import Publisher, Receipt
from galley.broker.records import Records
from galley.cached import TRIES, Entry, numbered
from galley.envelope import Envelope
from galley.record import Outcome


async def publish_cached(
    broker: Broker, publisher: Publisher, address: TaskAddress, envelope: Envelope, entry: Entry
) -> Receipt:
    """Store a task unless its work has been done, or is under way; what failed is tried with another id.

    Raises:
        As `Publisher.publish_once`.
    """
    if await publisher.look(address) is None:
        earlier = await _of_the_period_before(broker, publisher, address, entry)
        if earlier is not None:
            check_same_work(earlier.address, earlier.handler, earlier.digest, envelope)
            return Receipt(earlier.address, duplicate=True)
    receipt = await publisher.publish_once(address, envelope)
    # The objects of a task belong to its id, so a task that has some is not tried with another.
    for number in range(1, 1 if envelope.large or envelope.files else TRIES):
        if not receipt.duplicate:
            break
        stored = await Records(broker).look_up(receipt.address)
        if stored is None or stored.record.outcome in (None, Outcome.SUCCEEDED):
            break
        receipt = await publisher.publish_once(replace(address, id=numbered(address.id, number)), envelope)
    return receipt


async def _of_the_period_before(
    broker: Broker, publisher: Publisher, address: TaskAddress, entry: Entry
) -> Known | None:
    """Return the task of the period before if its result is good still, or on its way."""
    for number in range(TRIES):
        task = replace(address, id=numbered(entry.before, number))
        known = await publisher.look(task)
        if known is None:
            return None
        if known.submitted_at is None or known.submitted_at <= entry.since:
            continue
        stored = await Records(broker).look_up(known.address)
        if stored is None or stored.record.outcome in (None, Outcome.SUCCEEDED):
            return known
    return None
