"""Looking at tasks from outside, without touching them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
from nats.aio.msg import Msg

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.control import Request, Verb, ask_workers
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused
from galley.broker.held import Message, message_of, messages_in
from galley.broker.in_place import in_places_of, running_in_place, status_in_place
from galley.broker.key_permits import KeyPermits
from galley.broker.listing import BYTES_AT_ONCE, subjects_of
from galley.broker.notes import progress_of
from galley.broker.records import Records
from galley.encryption import EncryptionError
from galley.encryption.token import key_in
from galley.envelope import shown_input
from galley.errors import EnvelopeInvalid, QueueNotFound, TaskNotFound
from galley.key import digest_of_key
from galley.lanes import Lane
from galley.record import Stored
from galley.task_status import NOT_KNOWN, Phase, TaskStatus, of_record
from galley.workflow.state import is_step, parse_step

_READ_AT_ONCE = 64
_SHOWN = 5
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


async def status(broker: Broker, address: TaskAddress) -> TaskStatus:
    """Return where a task is. Its lane need not be right.

    Raises:
        TaskNotFound: if it neither waits nor has a record.
        QueueNotFound: if there is no such queue either.
        EnvelopeInvalid: if its record cannot be read.
        BrokerUnreachable: if the broker does not answer.
    """
    stored = await Records(broker).look_up(address)
    recorded = await _recorded(broker, address, stored) if stored is not None else None
    if recorded is not None and recorded.phase.ended:
        return recorded
    message = await message_of(broker, address)
    if message is not None:
        known = _known(message, recorded)
        if message.waits:
            return await _with_permits(broker, known)
        return known if message.scheduled else await _with_worker(broker, known)
    # It may have ended between the two looks, which its record would tell by now.
    stored = await Records(broker).read(address)
    if stored is not None:
        return await _recorded(broker, address, stored)
    if is_step(address.id) and (running := await running_in_place(broker, address)) is not None:
        return status_in_place(address, running)
    return await _missing(broker, address)


async def check_there(broker: Broker, address: TaskAddress) -> None:
    """Check that a task waits or has a record, at less cost than its status.

    Raises:
        TaskNotFound, QueueNotFound, BrokerUnreachable: as `status`.
    """
    records = Records(broker)
    if (
        await records.look_up(address) is None
        and await message_of(broker, address) is None
        and await records.read(address) is None
    ):
        await _missing(broker, address)


async def _missing(broker: Broker, address: TaskAddress) -> NoReturn:
    if await stream_info(broker, topology.work_stream(address.namespace, address.queue)) is None:
        raise QueueNotFound(address.namespace, address.queue)
    missing = TaskNotFound(address.queue, address.id)
    with suppress(ValueError):
        workflow, _ = parse_step(address.id)
        missing.hint = (
            f"a step of workflow {workflow!r} may wait for others, or never run: `galley workflow show "
            f"{address.queue}/{workflow}` shows it, and `galley workflow cancel` cancels the whole"
        )
    raise missing


async def tasks(broker: Broker, namespace: str, queue: str) -> AsyncIterator[TaskStatus]:
    """Yield the status of each task of a queue, in no order.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    unfinished: dict[tuple[Kind, str], TaskStatus] = {}
    ended: set[tuple[Kind, str]] = set()
    kept: list[Message] = []
    async for address, stored in Records(broker).all_of(namespace, queue):
        recorded = await _recorded(broker, address, stored)
        if recorded.phase.ended:
            ended.add((address.kind, address.id))
            yield recorded
        else:
            unfinished[address.kind, address.id] = recorded
    for stream in (topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)):
        given = {lane: await handed_out(broker, stream, lane) or 0 for lane in Lane}
        async for message in messages_in(broker, stream):
            key = message.address.kind, message.address.id
            if key in ended:
                kept += [message._replace(envelope=None)] if _handed_out(message, given) else []
                continue
            known = _known(message, unfinished.pop(key, None))
            if _handed_out(message, given):
                known = await _with_worker(broker, known)
            ended.add(key)
            yield known
    for recorded in unfinished.values():
        yield recorded
    for status in await in_places_of(broker, [each for each in kept if is_step(each.address.id)]):
        if (status.address.kind, status.address.id) not in ended:
            yield status


async def latest(broker: Broker, namespace: str, queue: str, most: int) -> list[TaskStatus]:
    """Return tasks of a queue at a cost that does not grow with their number, in the order of submission.

    Args:
        broker: an open connection.
        namespace: of the queue.
        queue: its name.
        most: so many of the oldest of each lane that have not ended, and of the latest changes of records.

    Raises:
        QueueNotFound: if there is no such queue.
        BrokerUnreachable: if the broker does not answer.
    """
    view = await _lanes_of(broker, namespace, queue)
    found: dict[tuple[Kind, str], TaskStatus] = {}
    async for address, stored in Records(broker).latest_of(namespace, queue, most):
        found[address.kind, address.id] = await _recorded(broker, address, stored)
    for lane in view:
        for waiting in await peek(broker, namespace, queue, lane, most):
            found.setdefault((waiting.address.kind, waiting.address.id), waiting)
    return sorted(found.values(), key=submission_order)


async def named(
    broker: Broker, namespace: str, queue: str, part: str, most: int
) -> tuple[list[TaskStatus], int]:
    """Return tasks of a queue whose id contains a text, in the order of submission, and how many there are.

    Only the ids of all tasks are read, and then the tasks that are returned.

    Args:
        broker: an open connection.
        namespace: of the queue.
        queue: its name.
        part: what the id contains.
        most: so many are returned; if there are more, the last ones in the order of ids, which for ids made
            by Galley is that of submission.

    Raises:
        QueueNotFound: if there is no such queue.
        BrokerUnreachable: if the broker does not answer.
    """
    lanes = await _lanes_of(broker, namespace, queue)
    work, later = topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)
    places = {
        topology.records_stream(namespace, queue): topology.records_of_queue(namespace, queue),
        work: ">",
        later: ">",
    }
    found: dict[tuple[str, str], TaskAddress] = {}
    for stream, pattern in places.items():
        async for subjects in subjects_of(broker, stream, pattern):
            for subject in subjects:
                if part in subject[subject.rfind(".") + 1 :]:
                    _note_task(found, subject)
    newest = sorted(found.values(), key=lambda address: address.id)[-most:]
    given = {
        stream: {lane: await handed_out(broker, stream, lane) or 0 for lane in lanes}
        for stream in (work, later)
    }
    known: list[TaskStatus] = []
    for first in range(0, len(newest), _READ_AT_ONCE):
        some = newest[first : first + _READ_AT_ONCE]
        looks = await asyncio.gather(*(_glance(broker, address, given) for address in some))
        known += [status for status in looks if status is not None]
    return sorted(known, key=submission_order), len(found)


def _note_task(found: dict[tuple[str, str], TaskAddress], subject: str) -> None:
    with suppress(ValueError):  # not the subject of a task
        address = topology.parse_task_subject(subject)
        if address.kind is not Kind.TURN:
            found[address.kind, address.id] = address


async def _glance(
    broker: Broker, address: TaskAddress, given: dict[str, dict[Lane, int]]
) -> TaskStatus | None:
    """Return where a task is without asking workers; None if it is gone."""
    stored = await Records(broker).look_up(address)
    recorded = await _recorded(broker, address, stored) if stored is not None else None
    if recorded is not None and recorded.phase.ended:
        return recorded
    message = await message_of(broker, address)
    if message is None:
        return recorded
    known = _known(message, recorded)
    if _handed_out(message, given[message.stream]):
        return msgspec.structs.replace(known, phase=Phase.RUNNING)
    return known


def _handed_out(message: Message, given: dict[Lane, int]) -> bool:
    """Return whether a worker was given a task, by the last sequence each lane has given out."""
    held = message.sequence <= given.get(message.address.lane, 0)
    return held and not message.scheduled and not message.waits


async def _lanes_of(broker: Broker, namespace: str, queue: str) -> tuple[Lane, ...]:
    work = await stream_info(broker, topology.work_stream(namespace, queue))
    if work is None:
        raise QueueNotFound(namespace, queue)
    return tuple(Lane(word) for word in work["config"]["metadata"][topology.LANES_KEY].split(","))


async def tasks_in_order(
    broker: Broker, namespace: str, queue: str, phase: Phase | None = None
) -> list[TaskStatus]:
    """Return the tasks of a queue that are in a phase, or all of them, in the order they were submitted.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found = [one async for one in tasks(broker, namespace, queue) if phase in (None, one.phase)]
    return sorted(found, key=submission_order)


def submission_order(status: TaskStatus) -> tuple[datetime, str]:
    """Return what tasks are sorted by; those whose time is not known come first."""
    return status.submitted_at or _LONG_AGO, status.address.id


async def _recorded(broker: Broker, address: TaskAddress, stored: Stored) -> TaskStatus:
    return of_record(address, await broker.payloads.look_at_record(address, stored.record))


async def _with_worker(broker: Broker, known: TaskStatus) -> TaskStatus:
    """Return the status with the worker that says it runs the task, if one does."""
    address = known.address
    asked = Request(task=f"{address.kind}.{address.id}")
    running = await ask_workers(broker, address.namespace, address.queue, Verb.PING, asked)
    if running is None:
        return known
    progress = None
    with suppress(EncryptionError):
        progress = await progress_of(broker, address)
    return msgspec.structs.replace(
        known,
        phase=Phase.RUNNING,
        progress=progress,
        worker=running.worker,
        started_at=running.started_at,
        attempt=max(1, known.attempt),
        due_at=None,
        failure=None,
    )


async def _with_permits(broker: Broker, known: TaskStatus) -> TaskStatus:
    """Return the status of a task that waits under its key, with what is known of that key."""
    address = known.address
    permits = KeyPermits(broker, address.namespace, address.queue)
    state = (await permits.read(digest_of_key(known.key))).permits
    held = state.held
    if not held:
        if state.full_at <= datetime.now(UTC).timestamp():
            return known
        return msgspec.structs.replace(known, waits=f"{known.waits}, which starts as fast as its rate allows")
    running = ", ".join(held[:_SHOWN]) + (", ..." if len(held) > _SHOWN else "")
    return msgspec.structs.replace(known, waits=f"{known.waits}; tasks of that key that may run: {running}")


def _known(message: Message, recorded: TaskStatus | None) -> TaskStatus:
    """Return what a task's message says, with what its record adds to that."""
    phase = Phase.SCHEDULED if message.scheduled else Phase.QUEUED
    envelope = message.envelope
    if envelope is None:
        return recorded or TaskStatus(message.address, phase)
    content = NOT_KNOWN if envelope.sealed else shown_input(envelope)
    waits = f"for the turn of its key {envelope.key!r}" if message.waits else ""
    if recorded is not None:
        return msgspec.structs.replace(
            recorded, input=content, deadline=envelope.deadline, labels=envelope.labels or {},
            key=envelope.key, waits=waits,
        )  # fmt: skip
    return TaskStatus(
        message.address,
        phase,
        handler=envelope.handler,
        submitted_at=envelope.submitted_at,
        due_at=envelope.not_before if message.scheduled else None,
        deadline=envelope.deadline,
        history=envelope.history,
        input=content,
        labels=envelope.labels or {},
        key=envelope.key,
        waits=waits,
        encrypted_with=key_in(envelope.sealed) if envelope.sealed else "",
    )


async def peek(broker: Broker, namespace: str, queue: str, lane: Lane, most: int) -> list[TaskStatus]:
    """Return the oldest tasks of a lane that have not ended, running ones first.

    A task that was handed to a worker counts as running; one that worker lost or gave back does so
    until the next one takes it.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    found: list[TaskStatus] = []
    for stream, subjects in (
        (topology.later_stream(namespace, queue), topology.later_of_lane(namespace, queue, lane)),
        (topology.work_stream(namespace, queue), topology.ready_of_lane(namespace, queue, lane)),
    ):
        last = await handed_out(broker, stream, lane)
        if last is None:
            continue
        request = {"seq": 1, "next_by_subj": subjects, "batch": most, "max_bytes": 4 * BYTES_AT_ONCE}
        async for answer in broker.request_many(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request)):
            headers = answer.headers or {}
            if "Nats-Subject" not in headers:
                break
            with suppress(ValueError):  # not the subject of a task
                if topology.parse_task_subject(headers["Nats-Subject"]).kind is not Kind.TURN:
                    found.append(await _peeked(broker, answer, headers, last))
    found.sort(key=lambda status: status.phase is not Phase.RUNNING)
    return found[:most]


async def handed_out(broker: Broker, stream: str, lane: Lane) -> int | None:
    """Return the sequence up to which the tasks of a lane were given to workers, None if it has none.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    try:
        figures = await broker.api(f"look at lane {lane}", f"CONSUMER.INFO.{stream}.{lane}")
    except BrokerRefused:
        return None
    return int(figures["delivered"]["stream_seq"])


async def _peeked(broker: Broker, message: Msg, headers: dict[str, Any], last: int) -> TaskStatus:
    address = topology.parse_task_subject(headers["Nats-Subject"])
    if topology.SCHEDULE in headers:
        phase = Phase.SCHEDULED
    else:
        phase = Phase.RUNNING if int(headers["Nats-Sequence"]) <= last else Phase.QUEUED
    try:
        envelope = await broker.payloads.look_at_task(address, message.data)
    except EnvelopeInvalid:
        return TaskStatus(address, phase)
    return TaskStatus(
        address,
        phase,
        handler=envelope.handler,
        attempt=len(envelope.history.attempts),
        submitted_at=envelope.submitted_at,
        due_at=envelope.not_before if phase is Phase.SCHEDULED else None,
        history=envelope.history,
        labels=envelope.labels or {},
    )
