"""Writes into the stream of topics: what the topics are, who subscribes, and what was missed."""

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.broker.lean_client import header_block
from galley.broker.pipeline import FULL
from galley.errors import TopicFull


async def put_last(
    broker: Broker, namespace: str, subject: str, body: bytes, expected: int | None = None
) -> int:
    """Store a message in place of those of its subject, and return its sequence.

    Args:
        broker: an open connection of the owner of the stream.
        namespace: of the topics.
        subject: where.
        body: what.
        expected: sequence of the message that it replaces, 0 for none; None for any.

    Raises:
        TopicFull: there is no room.
        BrokerRefused: another message was there, or the broker refuses it for another reason.
        BrokerUnreachable: if the broker does not answer.
    """
    headers = {topology.TTL: "never"}
    if expected is not None:
        headers[topology.EXPECTED_SEQUENCE] = str(expected)
    ack = await (await broker.pipeline.send(subject, body, header_block(headers)))
    if ack.code == FULL:
        raise TopicFull(subject.split(".")[3], ack.problem)
    if ack.unanswered:
        raise BrokerUnreachable(broker.server, f"store {subject}: {ack.problem}")
    if not ack.stored:
        raise BrokerRefused(f"store {subject}", ack.code, ack.problem)
    await purge(broker, namespace, subject, keep=1)
    return ack.sequence


async def purge(broker: Broker, namespace: str, subject: str, *, keep: int = 0, end: int = 0) -> None:
    """Remove the messages of a subject.

    Args:
        broker: an open connection of the owner of the stream.
        namespace: of the topics.
        subject: which; or a pattern of several.
        keep: how many of the last ones stay.
        end: only those before this sequence; 0 for all.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    request = {"filter": subject} | ({"keep": keep} if keep else {}) | ({"seq": end} if end else {})
    await broker.api(f"purge {subject}", f"STREAM.PURGE.{topology.topics_stream(namespace)}", request)
