"""Cancelling a task in whatever state it is.

Only the record decides; clearing the streams and telling the worker save work.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker import counts, topology
from galley.broker.connection import Broker
from galley.broker.control import Request, Verb, ask_workers
from galley.broker.errors import BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.flow_values import FlowGone, Place
from galley.broker.flows import Flows
from galley.broker.pipeline import DENIED, WRONG_SEQUENCE
from galley.broker.records import Records
from galley.error_group import ungrouped
from galley.failpoint import failpoint
from galley.record import Outcome, Record, State
from galley.workflow.state import Root, ended, is_step, outcome_address

CANCELLED_KEPT_SECONDS: Final = 24 * 3600
"""How long the record of what was cancelled is kept, so that no copy of it can run."""


class Cancelled(StrEnum):
    """What a request to cancel came to."""

    BEFORE_START = "cancelled before it ran"
    RUNNING = "cancelled while it ran"
    TOO_LATE = "it had ended already"


async def cancel(broker: Broker, address: TaskAddress, about: Record, keep_seconds: int) -> Cancelled:
    """Cancel a task; when this returns, no attempt of it will begin.

    Args:
        broker: an open connection.
        address: the task.
        about: what is known of it (handler, lane, times), kept in its last record.
        keep_seconds: how long that record is kept.

    Raises:
        BrokerUnreachable: if the broker does not answer; the task may or may not be cancelled.
        NotAllowed: if our credentials are not a manager's.
        BrokerRefused: if it refuses the record.
    """
    records = Records(broker)
    at_least = 0
    while True:
        stored = await records.read(address, at_least)
        if stored is not None and stored.record.done:
            if stored.record.outcome is Outcome.CANCELLED:
                # The process that wrote that may have died before the rest, or never had an answer.
                await _end(broker, replace(address, lane=stored.record.lane))
            return Cancelled.TOO_LATE
        present = stored.record if stored is not None else about
        failpoint("cancel.before_record")
        ack = await records.write(
            address,
            replace(
                present,
                state=State.DONE,
                outcome=Outcome.CANCELLED,
                ended_at=datetime.now(UTC),
                claim=None,
                handed_back=False,
                due_at=None,
            ),
            stored.sequence if stored is not None else 0,
            keep_seconds,
        )
        if ack.stored:
            break
        if ack.unanswered:
            raise BrokerUnreachable(broker.server, f"cancelling {address}: {ack.problem}")
        if ack.code == DENIED:
            raise NotAllowed(topology.record_subject(address))
        if ack.code != WRONG_SEQUENCE:
            raise BrokerRefused(f"cancel task {address}", ack.code, ack.problem)
        at_least = ack.last_sequence
    address = replace(address, lane=present.lane)
    counts.add_one(broker, address, counts.CANCELLED)
    running = await _end(broker, address)
    if present.awaits:
        await _cancel_awaited(broker, Place(address.namespace, address.queue, present.awaits))
    return Cancelled.RUNNING if running else Cancelled.BEFORE_START


async def cancel_flow(broker: Broker, flows: Flows, place: Place, root: Root) -> Cancelled:
    """Cancel a workflow: no further step of it begins, and what runs is stopped.

    Raises:
        FlowGone: it is not there any more.
        BrokerUnreachable, NotAllowed, BrokerRefused: as `cancel`.
    """
    address, now = outcome_address(*place), datetime.now(UTC)
    final = Record(
        State.DONE, 0, handler=place.flow, submitted_at=root.created_at, ended_at=now,
        outcome=Outcome.CANCELLED, labels=root.labels, uid=root.uid, digest=root.digest,
    )  # fmt: skip
    records = Records(broker)
    ack = await records.write(address, final, 0, CANCELLED_KEPT_SECONDS)
    if ack.unanswered:
        raise BrokerUnreachable(broker.server, f"cancelling workflow {place.flow}: {ack.problem}")
    if ack.code == DENIED:
        raise NotAllowed(topology.record_subject(address))
    if not ack.stored and ack.code != WRONG_SEQUENCE:
        raise BrokerRefused(f"cancel workflow {place.flow}", ack.code, ack.problem)
    if not ack.stored:
        stored = await records.read(address, ack.last_sequence)
        if stored is None or stored.record.outcome is not Outcome.CANCELLED:
            return Cancelled.TOO_LATE
    keep = max(1, int((root.deadline - now).total_seconds() + CANCELLED_KEPT_SECONDS))
    await flows.change_root(place, keep, lambda it: ended(it, Outcome.CANCELLED, now))
    request = msgspec.json.encode(Request(flow=place.flow, home=place.queue))
    for queue in {place.queue, *root.queues}:
        broker.publish(topology.control_subject(place.namespace, queue, Verb.CANCEL), request)
    return Cancelled.RUNNING if ack.stored else Cancelled.TOO_LATE


async def _cancel_awaited(broker: Broker, place: Place) -> None:
    """Cancel the workflow that took the place of a task, if it is still there."""
    flows = Flows(broker)
    root = await flows.root(place)
    if root is None or root.ended is not None:
        return
    with suppress(FlowGone):
        await cancel_flow(broker, flows, place, root)


async def _end(broker: Broker, address: TaskAddress) -> bool:
    """Take the messages of a cancelled task away and tell the workers; returns whether one ran it."""
    failpoint("cancel.before_purge")
    if not is_step(address.id):
        # The message of a step stays: a worker finds its record, and carries its workflow on.
        await _purge(broker, address)
    failpoint("cancel.before_request")
    asked = Request(task=f"{address.kind}.{address.id}")
    return await ask_workers(broker, address.namespace, address.queue, Verb.CANCEL, asked) is not None


async def _purge(broker: Broker, address: TaskAddress) -> None:
    # By exact subject, since only then the server forgets at once that a worker held the task.
    work = topology.work_stream(address.namespace, address.queue)
    later = topology.later_stream(address.namespace, address.queue)
    with ungrouped():
        async with asyncio.TaskGroup() as purges:
            for stream, subject in (
                (work, topology.task_subject(address)),
                (work, topology.plan_subject(address)),
                (work, topology.waiting_anywhere(address)),
                (later, topology.schedule_subject(address)),
                (later, topology.again_subject(address)),
                (later, topology.due_subject(address)),
            ):
                action = f"clear {address} from {stream}"
                purges.create_task(broker.api(action, f"STREAM.PURGE.{stream}", {"filter": subject}))
