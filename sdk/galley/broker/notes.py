"""Notes of tasks: progress, checkpoint and output, in a bounded stream of the queue's own.

Why a stream of their own: docs/adr/0023-notes.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from nats.aio.msg import Msg

from galley import note as wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused
from galley.broker.last_message import last_message
from galley.broker.listing import messages_of
from galley.broker.pipeline import NO_RESPONDERS, Ack
from galley.broker.ration import Ration, rationed
from galley.errors import EnvelopeInvalid
from galley.note import CHECKPOINT, OUTPUT, PROGRESS, LogLine, Output, Progress, WorkerEnd
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

_PROGRESS: Final = 2_000
"""Most reports of progress of a namespace that are heard in a second; the last one of each task is stored."""


_PARTS: Final = 100
"""Most parts of a task's output in a second of which a follower hears; it then reads all there are."""


async def put(broker: Broker, address: TaskAddress, what: str, body: bytes) -> asyncio.Future[Ack]:
    """Send a note; the future has the broker's answer.

    Raises:
        KeyServiceUnavailable: if it has to be encrypted and cannot be.
    """
    body = await broker.payloads.note_bytes(address, what, body)
    return await broker.pipeline.send(topology.note_subject(address, what), body)


async def progress_of(broker: Broker, address: TaskAddress) -> Progress | None:
    """Return how far a task is; None if its handler did not say.

    Raises:
        DecryptionKeyMissing, PayloadAltered, PlaintextRefused, KeyServiceUnavailable: it cannot be decrypted.
        BrokerUnreachable: if the broker does not answer.
    """
    body = await _last(broker, address, PROGRESS)
    if body is None:
        return None
    try:
        return wire.decode_progress(body)
    except EnvelopeInvalid as error:
        log.warning("progress not readable", extra={"task": address.id, "error": str(error)})
        return None


@asynccontextmanager
async def hearing_progress(
    broker: Broker, react: Callable[[TaskAddress, Progress], None], namespace: str = "*"
) -> AsyncIterator[None]:
    """Call `react` with each progress that a task of any queue of a namespace reports, while the block runs.

    One subscription serves all queues. What is encrypted is passed over. News travel at most once: what was
    said while the connection was away is found with `progress_of`.
    """

    async def hear(message: Msg) -> None:
        if wire.seal_in(message.data):
            return
        try:
            react(topology.parse_noted(message.subject), wire.decode_progress(message.data))
        except (ValueError, EnvelopeInvalid) as error:
            log.warning("progress not readable", extra={"subject": message.subject, "error": str(error)})

    async with rationed(broker, topology.all_progress(namespace), hear, Ration(_PROGRESS)):
        yield


async def put_end(broker: Broker, namespace: str, queue: str, worker: str, end: WorkerEnd) -> None:
    """Store how a worker ended, for the worker that takes over its tasks. It may be lost; nothing waits."""
    await broker.pipeline.send(topology.worker_end_subject(namespace, queue, worker), wire.encode(end))


async def end_of(broker: Broker, namespace: str, queue: str, worker: str) -> WorkerEnd | None:
    """Return how a worker ended; None if that is not known.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    stream = topology.notes_stream(namespace, queue)
    subject = topology.worker_end_subject(namespace, queue, worker)
    found = await last_message(broker, stream, subject)
    if found is None:
        return None
    try:
        return wire.decode_end(found.body)
    except UNREADABLE as error:
        log.warning("end of worker not readable", extra={"worker": worker, "error": str(error)})
        return None


async def checkpoint_of(broker: Broker, address: TaskAddress) -> bytes | None:
    """Return the last checkpoint of a task as JSON; None if it has none.

    Raises:
        DecryptionKeyMissing, PayloadAltered, PlaintextRefused, KeyServiceUnavailable: it cannot be decrypted.
        BrokerUnreachable: if the broker does not answer.
    """
    return await _last(broker, address, CHECKPOINT)


async def _last(broker: Broker, address: TaskAddress, what: str) -> bytes | None:
    stream = topology.notes_stream(address.namespace, address.queue)
    try:
        found = await last_message(broker, stream, topology.note_subject(address, what))
    except BrokerRefused as refusal:
        if refusal.code == NO_RESPONDERS and what != CHECKPOINT:
            return None  # a queue that is not served; a checkpoint must not be lost to a stream that is away
        raise
    return None if found is None else await broker.payloads.read_note(address, what, found.body)


async def output_of(
    broker: Broker, address: TaskAddress, attempt: int | None = None, *, after: int = 0
) -> list[tuple[int, Output]]:
    """Return what is kept of a task's output, oldest first, each part with its sequence.

    Args:
        broker: an open connection.
        address: the task.
        attempt: only that of this attempt; None for all.
        after: only parts with a higher sequence.

    Raises:
        DecryptionKeyMissing, PayloadAltered, PlaintextRefused, KeyServiceUnavailable: it cannot be decrypted.
        BrokerUnreachable: if the broker does not answer.
    """
    number = "*" if attempt is None else str(attempt)
    pattern = topology.note_subject(address, f"{OUTPUT}.{number}.*")
    stream = topology.notes_stream(address.namespace, address.queue)
    found = []
    async for message in messages_of(broker, stream, pattern, after + 1):
        part = await _part(broker, address, message.subject, message.body)
        if part is not None:
            found.append((message.sequence, part))
    return found


async def _part(broker: Broker, address: TaskAddress, subject: str, body: bytes) -> Output | None:
    what = ".".join(subject.split(".")[6:])
    try:
        return wire.decode_output(await broker.payloads.read_note(address, what, body))
    except EnvelopeInvalid as error:
        log.warning("output not readable", extra={"task": address.id, "error": str(error)})
        return None


@asynccontextmanager
async def following(broker: Broker, address: TaskAddress) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set whenever a part of a task's output was stored."""
    heard = asyncio.Event()

    async def hear(_message: Msg) -> None:
        heard.set()

    subject = topology.noted_subject(address, f"{OUTPUT}.>")
    async with rationed(broker, subject, hear, Ration(_PARTS), missed=heard.set):
        yield heard


def lines_of(part: Output) -> list[LogLine]:
    """Return the lines of a part, each with its attempt and worker."""
    return [
        LogLine(
            line.at, line.stream, line.text, line.level, line.logger, line.fields, part.attempt, part.worker
        )
        for line in part.lines
    ]
