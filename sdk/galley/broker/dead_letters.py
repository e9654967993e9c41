"""Dead letters: tasks that will not be tried again, kept whole with the reason."""

import secrets

from galley import dead_letter as wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import dead_stream_of
from galley.broker.pipeline import Ack
from galley.dead_letter import DeadLetter
from galley.encryption import EncryptionError
from galley.errors import EnvelopeInvalid


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


async def read(broker: Broker, address: TaskAddress) -> DeadLetter | None:
    """Return the dead letter of a task, or None if it has none that can be read.

    It keeps its `sealed` if it cannot be decrypted here.

    Raises:
        NotAllowed: if the credentials are not those of a manager.
        BrokerUnreachable: if the broker does not answer.
    """
    answer = await broker.read_either(
        topology.dead_stream(address.namespace, address.queue),
        topology.shared_dead_stream(address.namespace),
        topology.dead_subject(address),
    )
    if answer is None or "Nats-Subject" not in (answer.headers or {}):
        return None
    try:
        letter = wire.decode(answer.data)
    except EnvelopeInvalid:
        return None
    try:
        return await broker.payloads.read_letter(address, letter)
    except EncryptionError:
        return letter


async def bury(broker: Broker, address: TaskAddress, letter: DeadLetter) -> Ack:
    """Keep the letter, in place of an earlier one of the same task.

    Raises:
        KeyServiceUnavailable: if it has to be encrypted and cannot be.
    """
    body = await broker.payloads.letter_bytes(address, letter)
    return await (await broker.pipeline.send(topology.dead_subject(address), body))
