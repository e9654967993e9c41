"""Talking to the workers of a queue: requests to all of them or to one process, and their heartbeats.

Whatever starts the workers (the operator, `galley dev`) is asked here why none comes up.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused
from galley.broker.ration import Ration, rationed
from galley.envelope import in_range
from galley.history import Moment
from galley.unreadable import UNREADABLE

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 1.0
"""Time between two heartbeats of a worker."""

ANSWER_SECONDS: Final = 0.25
"""How long a request to all workers waits for the one it concerns: many times a round trip."""

SUPPLY_SECONDS: Final = 1.0
"""How long what starts the workers may take to answer; that there is no such process is known at once."""

_HEARTBEATS: Final = 1_200
"""Most heartbeats of a queue that are heard in a second: one of each connection its workers may have."""

_QUESTIONS: Final = 1_000
"""Most questions why no worker comes up that are answered in a second."""

_ANSWERS: Final = 16
"""Most answers to one request that are heard, of which all but one are of no use: workers are not trusted."""

_INBOXES: Final = "_INBOX.", "_R_."
"""What the reply subject of a request begins with; the second is how NATS renames one of another account."""

_TOKEN: Final = re.compile("[0-9a-f]{1,64}")


HOLDER_SECONDS: Final = 1.0
"""How long one worker process may take to answer; that it has no connection is known at once."""


class Verb(StrEnum):
    """What workers can be asked."""

    CANCEL = "cancel"
    """Stop the task with this id if you run it, and do not start it in the next minute."""
    DRAIN = "drain"
    """If you are named: take no new tasks for so many seconds."""
    PING = "ping"
    """Say whether you run the task with this id."""


class Request(Struct, frozen=True, omit_defaults=True):
    """What is asked; which fields count depends on the verb."""

    task: str = ""
    """`<kind>.<id>` of the task concerned."""
    flow: str = ""
    """To cancel: the workflow all of whose steps are concerned, and no other task."""
    home: str = ""
    """The queue that keeps that workflow: one of another queue may have the same id."""
    workers: tuple[str, ...] = ()
    seconds: float = 0.0
    """Length of the drain; 0 ends one."""
    stream: str = ""
    """To ping: the stream of the task's message, under which another step may run by now."""
    sequence: int = 0
    """Its place there."""


class Question(Struct, frozen=True):
    """What one worker process is asked: whether it runs the attempt of this very message."""

    stream: str
    sequence: int


class Answer(Struct, frozen=True, omit_defaults=True):
    """What the worker concerned says."""

    worker: str
    started_at: Moment | None = None
    """Since when it has been running the task; None in the answer to a `Question` means that it does not."""
    handler: str = ""
    """Of the task it has been running."""
    task: str = ""
    """That task, as `<kind>.<id>`."""


class Pause(StrEnum):
    """What may keep the tasks of a queue from being started."""

    MANIFEST = "manifest"
    """`spec.paused` is true, or `spec.scaling.workers` is 0."""
    COMMAND = "command"
    """`galley pause`, or the same from Python."""
    CIRCUIT = "circuit"
    """`spec.circuit`: the attempts of all workers failed, one after the other."""


class Supply(Struct, frozen=True, omit_defaults=True):
    """How the workers of a queue come up."""

    problem: str = ""
    """Why none takes tasks, in sentences; empty if that is not so."""
    scaling: str = ""
    """Why there are as many as there are, as a sentence; empty if nothing was decided yet."""
    workers: dict[str, int] = {}
    """How many are ready, present, desired and needed, as far as known."""
    paused_by: dict[Pause, str] = {}
    """What keeps tasks from being started although workers could run them, each with a sentence."""
    scaling_problem: str = ""
    """What is wrong with the scaling although it goes on, such as another client that sets the number."""


class Heartbeat(Struct, frozen=True, omit_defaults=True):
    """How a worker is."""

    worker: str
    slots: int
    busy: int
    draining: bool
    ready: bool
    done: int = 0
    """Attempts that ended since the worker started."""
    busy_seconds: float = 0.0
    """Seconds that its slots were busy since then, all together."""
    circuit_open: bool = False
    """Whether it takes no tasks, or a single one to try, since its attempts all failed."""
    version: str = ""
    """Of Galley in the worker; empty if that is older than 0.2."""


_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(Request).decode
_decode_question = msgspec.json.Decoder(Question).decode
_any_answer = msgspec.json.Decoder(Answer).decode
_decode_supply = msgspec.json.Decoder(Supply).decode
decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
"""Reads a heartbeat; raises `msgspec.MsgspecError` if it is none."""


def _decode_answer(body: bytes) -> Answer:
    answer = _any_answer(body)
    if answer.started_at is not None and not in_range(answer.started_at):
        raise msgspec.ValidationError("a time before 1970 or after 9998 - at `$.started_at`")
    return answer


async def ask_workers(
    broker: Broker, namespace: str, queue: str, verb: Verb, request: Request
) -> Answer | None:
    """Return the answer of the worker concerned, or None if none answered within `ANSWER_SECONDS`."""
    subject = topology.control_subject(namespace, queue, verb)
    heard: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    async def hear(message: Msg) -> None:
        if heard.done():
            return
        if not message.data:
            heard.set_result(None)  # the server itself: there is no worker
            return
        try:
            heard.set_result(_decode_answer(message.data))
        except UNREADABLE as error:
            log.warning("answer not understood", extra={"subject": message.subject, "error": str(error)})

    answer_to = topology.answer_subject(namespace, queue, secrets.token_hex(12))
    subscription = await broker.subscribe(answer_to, hear)
    try:
        await subscription.unsubscribe(limit=_ANSWERS)
        broker.publish(subject, _encode(request), answer_to)
        async with asyncio.timeout(ANSWER_SECONDS):
            return await heard
    except TimeoutError:
        return None
    finally:
        broker.unsubscribe(subscription)


@asynccontextmanager
async def answering(
    broker: Broker, namespace: str, queue: str, react: Callable[[Verb, Request], Awaitable[Answer | None]]
) -> AsyncIterator[None]:
    """Answer the requests of a queue with what `react` returns; None means that it does not concern us."""
    prefix = topology.answer_subject(namespace, queue, "")

    async def hear(message: Msg) -> None:
        try:
            verb = Verb(message.subject.rpartition(".")[2])
            request = _decode_request(message.data)
        except (ValueError, *UNREADABLE) as error:
            log.warning("request not understood", extra={"subject": message.subject, "error": str(error)})
            return
        if (answer := await react(verb, request)) is None:
            return
        answer_to = message.reply
        # A requester must not choose any other subject: a worker may publish where a producer may not.
        if answer_to.startswith(prefix) and _TOKEN.fullmatch(answer_to, len(prefix)):
            broker.publish(answer_to, _encode(answer))
        else:
            log.warning("request not answered", extra={"subject": message.subject, "answer_to": answer_to})

    subscription = await broker.subscribe(topology.control_subject(namespace, queue, "*"), hear)
    try:
        yield
    finally:
        broker.unsubscribe(subscription)


async def ask_holder(
    broker: Broker, namespace: str, queue: str, holder: str, question: Question
) -> Answer | None:
    """Return what one worker process says, or None if it has no connection to the broker.

    Raises:
        BrokerUnreachable: it is connected and did not answer within `HOLDER_SECONDS`, or we are not.
        BrokerRefused: its answer cannot be read.
        BrokerError: as `Broker.request`.
    """
    subject = topology.holder_subject(namespace, queue, holder)
    message = await broker.request(subject, _encode(question), HOLDER_SECONDS)
    try:
        return None if message is None else _decode_answer(message.data)
    except UNREADABLE as error:
        # Any client with a worker's credentials of this queue may have answered.
        raise BrokerRefused(f"ask the worker {holder[:80]!r}", 0, f"no answer: {error}") from None


@asynccontextmanager
async def answering_as(
    broker: Broker, namespace: str, queue: str, holder: str, react: Callable[[Question], Answer]
) -> AsyncIterator[None]:
    """Answer questions to one worker process with what `react` returns."""

    async def hear(message: Msg) -> None:
        try:
            question = _decode_question(message.data)
        except UNREADABLE as error:
            log.warning("question not understood", extra={"subject": message.subject, "error": str(error)})
            return
        answer = react(question)
        if message.reply:
            broker.publish(message.reply, _encode(answer))

    subscription = await broker.subscribe(topology.holder_subject(namespace, queue, holder), hear)
    try:
        yield
    finally:
        broker.unsubscribe(subscription)


async def ask_supply(broker: Broker, namespace: str, queue: str) -> Supply | None:
    """Return what is said by what starts the workers of a queue; None if there is nothing, or it is silent.

    Raises:
        NotAllowed: the credentials are of another queue.
        BrokerUnreachable: the broker does not answer.
        BrokerRefused: the answer cannot be read.
    """
    subject = topology.workers_subject(namespace, queue)
    message = await broker.request(subject, b"", SUPPLY_SECONDS)
    try:
        return None if message is None else _decode_supply(message.data)
    except UNREADABLE as error:
        raise BrokerRefused(f"ask for the workers of queue {queue!r}", 0, f"no answer: {error}") from None


@asynccontextmanager
async def answering_supply(
    broker: Broker, namespace: str, queue: str, react: Callable[[str, str], Supply | None]
) -> AsyncIterator[None]:
    """Answer those who wait for tasks with what `react` returns for a namespace and a queue.

    Args:
        broker: an open connection.
        namespace: of the queue; `*` is all.
        queue: its name; `*` is all.
        react: returns None for a queue that is another one's to answer for.
    """

    async def hear(message: Msg) -> None:
        # A requester must not choose any other subject: we may publish where a producer may not.
        supply = react(*message.subject.split(".")[2:]) if message.reply.startswith(_INBOXES) else None
        if supply is not None:
            broker.publish(message.reply, _encode(supply))

    async with rationed(broker, topology.workers_subject(namespace, queue), hear, Ration(_QUESTIONS)):
        yield


def send_heartbeat(broker: Broker, namespace: str, queue: str, beat: Heartbeat) -> None:
    """Publish the state of a worker."""
    broker.publish(topology.heartbeat_subject(namespace, queue, beat.worker), _encode(beat))


@asynccontextmanager
async def hearing(
    broker: Broker, namespace: str, queue: str, react: Callable[[Heartbeat], None]
) -> AsyncIterator[None]:
    """Call `react` with each heartbeat of a queue's workers (of all queues: `*`)."""

    async def hear(message: Msg) -> None:
        try:
            beat = decode_heartbeat(message.data)
        except UNREADABLE as error:
            log.warning("heartbeat not understood", extra={"subject": message.subject, "error": str(error)})
            return
        react(beat)

    async with rationed(broker, topology.heartbeat_subject(namespace, queue, "*"), hear, Ration(_HEARTBEATS)):
        yield
