"""Dead letters: tasks that will not be tried again, kept whole with the reason."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from galley import dead_letter as wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import dead_stream_of
from galley.broker.last_message import LastMessage, last_message
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.pipeline import Ack
from galley.dead_letter import DeadLetter
from galley.encryption import EncryptionError
from galley.errors import EnvelopeInvalid
from galley.lanes import Lane

log = logging.getLogger(__name__)


async def count_dead(broker: Broker, namespace: str, queue: str) -> int:
    """Return how many dead letters of a queue are kept, at a cost that does not grow with them.

    Raises:
        BrokerRefused: if there is no such stream yet.
        BrokerUnreachable: if the broker does not answer.
    """
    stream, name = await dead_stream_of(broker, namespace, queue), f"count-{secrets.token_hex(8)}"
    filter_subject = topology.dead_of_queue(namespace, queue)
    config = {
        "name": name,
        "filter_subject": filter_subject,
        "deliver_policy": "all",
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 5_000_000_000,  # should we be gone before it is deleted
    }
    # A consumer that is just made says how much it would deliver; nothing is read.
    made = await broker.api(
        f"count dead letters of {queue}",
        f"CONSUMER.CREATE.{stream}.{name}.{filter_subject}",
        {"stream_name": stream, "config": config, "action": "create"},
    )
    await broker.api(f"forget the count of {queue}", f"CONSUMER.DELETE.{stream}.{name}")
    return int(made["num_pending"])


class Kept(NamedTuple):
    """A dead letter, and its place in a stream."""

    address: TaskAddress
    letter: DeadLetter
    """It keeps its `sealed` if it cannot be decrypted here."""
    stream: str
    sequence: int


async def read(broker: Broker, address: TaskAddress) -> Kept | None:
    """Return the dead letter of a task, or None if it has none that can be read.

    Raises:
        NotAllowed: if the credentials are not those of a manager.
        BrokerRefused: if no server answers for the stream: there is none, or it has no leader just now.
        BrokerUnreachable: if the broker does not answer.
    """
    found = await last_letter(broker, address)
    if found is None:
        return None
    return await _kept(broker, address, found.headers["Nats-Stream"], found.sequence, found.body)


async def last_letter(broker: Broker, address: TaskAddress) -> LastMessage | None:
    """Return the dead letter of a task as it is stored, or None if it has none; raises as `last_message`."""
    return await last_message(
        broker,
        topology.dead_stream(address.namespace, address.queue),
        topology.dead_subject(address),
        topology.shared_dead_stream(address.namespace),
    )


async def all_of(broker: Broker, namespace: str, queue: str) -> AsyncIterator[Kept]:
    """Yield the dead letters of a queue, oldest first. One that cannot be read is logged and left out.

    In a namespace that was used with 0.1 they are in a stream that its queues share, which only a client of a
    NATS without credentials can list.

    Raises:
        NotAllowed: if the credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer.
    """
    found = False
    async for kept in _all_in(broker, topology.dead_stream(namespace, queue), namespace, queue):
        found = True
        yield kept
    if not found and not broker.has_credentials:
        async for kept in _all_in(broker, topology.shared_dead_stream(namespace), namespace, queue):
            yield kept


async def _all_in(broker: Broker, stream: str, namespace: str, queue: str) -> AsyncIterator[Kept]:
    async for message in messages_of(broker, stream, topology.dead_of_queue(namespace, queue)):
        try:
            address = topology.parse_task_subject(message.subject)
        except ValueError:
            # A worker may write to any subject of its queue's letters.
            log.warning("dead letter not readable", extra={"subject": message.subject})
            continue
        kept = await _kept(broker, address, stream, message.sequence, message.body)
        if kept is None:
            log.warning("dead letter not readable", extra={"subject": message.subject})
            continue
        yield kept


async def _kept(broker: Broker, address: TaskAddress, stream: str, sequence: int, body: bytes) -> Kept | None:
    try:
        letter = wire.decode(body)
    except EnvelopeInvalid:
        return None
    with suppress(ValueError):
        address = replace(address, lane=Lane(letter.lane))
    with suppress(EncryptionError):
        letter = await broker.payloads.read_letter(address, letter)
    return Kept(address, letter, stream, sequence)


async def drop(broker: Broker, kept: Kept) -> bool:
    """Delete a dead letter, unless a later one of the same task took its place; returns whether it was there.

    Raises:
        NotAllowed: if the credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer.
    """
    request = {"filter": topology.dead_subject(kept.address), "seq": kept.sequence + 1}
    answer = await broker.api(f"drop the dead letter {kept.address}", f"STREAM.PURGE.{kept.stream}", request)
    return bool(answer["purged"])


async def exchange(broker: Broker, kept: Kept, letter: DeadLetter) -> Ack:
    """Store a letter in place of the one that was read, unless that is not the last any more.

    Raises:
        KeyServiceUnavailable: if it has to be encrypted and cannot be.
    """
    body = await broker.payloads.letter_bytes(kept.address, letter)
    headers = header_block({topology.EXPECTED_SEQUENCE: str(kept.sequence)})
    return await (await broker.pipeline.send(topology.dead_subject(kept.address), body, headers))


async def bury(broker: Broker, address: TaskAddress, letter: DeadLetter) -> Ack:
    """Keep the letter, in place of an earlier one of the same task.

    Raises:
        KeyServiceUnavailable: if it has to be encrypted and cannot be.
    """
    body = await broker.payloads.letter_bytes(address, letter)
    return await (await broker.pipeline.send(topology.dead_subject(address), body))
