"""Which keys the payloads of a queue are encrypted with, so that one can be removed when none is left."""

from collections import Counter
from typing import Final

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.listing import messages_of
from galley.encryption.token import key_in

PLAINTEXT: Final = ""
"""Stands for payloads that are not encrypted."""

_FIELD: Final = b'"sealed":"'


async def key_usage(broker: Broker, namespace: str, queue: str) -> dict[str, Counter[str]]:
    """Return how many payloads each key encrypts, by what they are: tasks, retries, records and dead letters.

    Raises:
        NotAllowed: if the credentials are of a role of the queue, which may not read all records.
        BrokerUnreachable: if the broker does not answer.
    """
    places = {
        "tasks": (topology.work_stream(namespace, queue), f"galley.task.{namespace}.{queue}.>"),
        "later": (topology.later_stream(namespace, queue), f"galley.*.{namespace}.{queue}.>"),
        "records": (topology.records_stream(namespace, queue), topology.records_of_queue(namespace, queue)),
        "dead letters": (topology.dead_stream(namespace, queue), topology.dead_of_queue(namespace, queue)),
    }
    return {what: await _count(broker, stream, subjects) for what, (stream, subjects) in places.items()}


async def _count(broker: Broker, stream: str, subjects: str) -> Counter[str]:
    found: Counter[str] = Counter()
    async for message in messages_of(broker, stream, subjects):
        # A dead letter has two: its own words, and the task as it came.
        tokens = [part.partition(b'"')[0] for part in message.body.split(_FIELD)[1:]]
        found.update({key_in(token.decode(errors="replace")) for token in tokens} or {PLAINTEXT})
    return found
