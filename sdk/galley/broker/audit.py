"""The audit stream of a namespace: lines are added, and nothing removes one before its time.

Each queue and kind of writer has a subject with a bounded number of lines, so that none pushes out those of
another.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from nats.aio.msg import Msg

from galley import audit
from galley.audit import Action, AuditLine, Entry, Writer
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.pipeline import NO_RESPONDERS, Ack
from galley.broker.ration import Ration, rationed
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

_SUBMITS: Final = "-submits"
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.5

_HEARD: Final = 1_000
"""Most lines of all clients, and of all gateways, that are heard in a second."""


async def note(
    broker: Broker,
    namespace: str,
    queue: str,
    action: Action,
    task: str = "",
    *,
    count: int | None = None,
    detail: str = "",
) -> None:
    """Write down what was done. A line that cannot be stored is in the log, and does not undo it."""
    actor = audit.actor()
    entry = audit.entry_of(actor, action, task, count, detail)
    await store(broker, namespace, queue, actor.writer, entry)


async def note_soon(broker: Broker, namespace: str, queue: str, entry: Entry, writer: Writer) -> None:
    """Send a line without waiting for the answer; one that is not stored is in the log."""
    subject = topology.audit_subject(namespace, queue, _place(writer, entry.action))
    answer = await broker.pipeline.send(subject, audit.encode(entry), _headers())
    answer.add_done_callback(lambda done: None if done.cancelled() else _told(subject, entry, done.result()))


async def store(broker: Broker, namespace: str, queue: str, writer: Writer, entry: Entry) -> bool:
    """Store a line; returns whether the broker has it.

    Args:
        broker: an open connection.
        namespace: of the queue.
        queue: its name; empty for what is about the namespace.
        writer: who writes it, as the rights of the connection allow.
        entry: the line.
    """
    subject = topology.audit_subject(namespace, queue or topology.NO_QUEUE, _place(writer, entry.action))
    headers, ack = _headers(), Ack(0)
    for _ in range(_TRIES):
        ack = await (await broker.pipeline.send(subject, audit.encode(entry), headers))
        if ack.stored or not (ack.unanswered or ack.code == NO_RESPONDERS):
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    _told(subject, entry, ack)
    return ack.stored


def _headers() -> bytes:
    # By the id the server knows a line again that is sent twice, and a restore one that is there.
    return header_block({topology.MESSAGE_ID: secrets.token_hex(12)})


def _place(writer: Writer, action: Action) -> str:
    """Return the last word of a subject: submits are many, and must not push out the rest."""
    return f"{writer}{_SUBMITS}" if action is Action.SUBMIT else str(writer)


def _told(subject: str, entry: Entry, ack: Ack) -> None:
    if not ack.stored:
        about = {"subject": subject, "action": entry.action, "task": entry.task, "problem": ack.problem}
        log.warning("audit line not stored", extra=about)


async def lines_of(
    broker: Broker, namespace: str, queue: str = "", since: datetime | None = None
) -> AsyncIterator[AuditLine]:
    """Yield the lines of a namespace, oldest first.

    Args:
        broker: an open connection.
        namespace: whose lines.
        queue: only those about this queue; empty means all.
        since: only those written then, or later.

    Raises:
        NotAllowed: if our credentials may not read them: those of a queue may not.
        BrokerUnreachable: if the broker does not answer.
    """
    async for _, line in numbered_lines_of(broker, namespace, queue, since=since):
        yield line


async def numbered_lines_of(
    broker: Broker, namespace: str, queue: str = "", sequence: int = 1, since: datetime | None = None
) -> AsyncIterator[tuple[int, AuditLine]]:
    """Yield lines as `lines_of`, each with its place, beginning with the one at `sequence`."""
    pattern, stream = topology.audit_subject(namespace, queue or "*", "*"), topology.audit_stream(namespace)
    async for message in messages_of(broker, stream, pattern, sequence, since):
        if (line := read(message.subject, message.body, message.stored_at)) is not None:
            yield message.sequence, line


@asynccontextmanager
async def listening(broker: Broker, take: Callable[[str, AuditLine], None]) -> AsyncIterator[None]:
    """Have lines of clients and gateways taken as they are stored, with their namespace, during the block.

    Of a flood, some are not heard; they are stored all the same.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """

    async def hear(message: Msg) -> None:
        line = read(message.subject, message.data, datetime.now(UTC))
        if line is not None:
            take(message.subject.split(".")[2], line)

    client, gateway = (topology.audit_subject("*", "*", writer) for writer in (Writer.CLIENT, Writer.GATEWAY))
    async with (
        rationed(broker, client, hear, Ration(_HEARD)),
        rationed(broker, gateway, hear, Ration(_HEARD)),
    ):
        yield


def read(subject: str, body: bytes, stored_at: datetime) -> AuditLine | None:
    """Return the line in a message, or None if its writer does not write what can be read."""
    *_, queue, writer = subject.split(".")
    try:
        entry = audit.decode(body)
        return AuditLine(
            stored_at,
            "" if queue == topology.NO_QUEUE else queue,
            Writer(writer.removesuffix(_SUBMITS)),
            entry,
        )
    except (*UNREADABLE, ValueError) as error:
        log.warning("audit line not readable", extra={"subject": subject, "problem": str(error)[:200]})
        return None
