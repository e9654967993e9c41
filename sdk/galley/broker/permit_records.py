"""Small records in the stream of workflows that say who may run, written by compare-and-set."""

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerFull, BrokerRefused, BrokerUnreachable
from galley.broker.lean_client import header_block
from galley.broker.pipeline import FULL, WRONG_SEQUENCE


async def write_permits(
    broker: Broker, subject: str, body: bytes, sequence: int, *, kept_seconds: int | None = None
) -> int:
    """Store a record in place of the one with a sequence; returns its own, or 0 if another came first.

    Args:
        broker: an open connection.
        subject: of the record.
        body: what to store.
        sequence: of what it replaces; 0 if there is none.
        kept_seconds: how long it is kept; None is without end.

    Raises:
        BrokerFull: the queue's stream of workflows is full (`spec.limits.workflowBytes`).
        BrokerUnreachable, BrokerRefused: no answer came, and it may have been stored.
    """
    headers = {topology.EXPECTED_SEQUENCE: str(sequence)}
    if kept_seconds is not None:
        headers[topology.TTL] = str(kept_seconds)
    ack = await (await broker.pipeline.send(subject, body, header_block(headers)))
    if ack.stored or ack.code == WRONG_SEQUENCE:
        return ack.sequence
    action = "store permits"
    if ack.code == FULL:
        raise BrokerFull(action, ack.code, ack.problem)
    if ack.unanswered:
        raise BrokerUnreachable(broker.server, f"{action}: {ack.problem}")
    raise BrokerRefused(action, ack.code, ack.problem)
