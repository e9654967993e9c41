"""Steps of workflows that run in the place of the one before them: they have no message and no record yet.

Only the worker that runs one knows of it, so it is asked.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker.connection import Broker
from galley.broker.control import Answer, Request, Verb, ask_workers
from galley.broker.held import Message
from galley.task_status import Phase, TaskStatus
from galley.workflow.state import parse_step, step_id

_ASKED_AT_ONCE: Final = 64


async def running_in_place(broker: Broker, address: TaskAddress) -> Answer | None:
    """Return the answer of the worker that runs a step of a workflow; None if none says so."""
    return await _ask(broker, address, Request(task=_name(address)))


def status_in_place(address: TaskAddress, answer: Answer) -> TaskStatus:
    """Return the status of a step that a worker says it runs."""
    return TaskStatus(
        address,
        Phase.RUNNING,
        handler=answer.handler,
        attempt=1,
        worker=answer.worker,
        started_at=answer.started_at,
    )


async def in_places_of(broker: Broker, ended: Sequence[Message]) -> list[TaskStatus]:
    """Return the steps that run in the place of such that have ended, by the messages of these."""
    found: list[TaskStatus] = []
    for first in range(0, len(ended), _ASKED_AT_ONCE):
        some = ended[first : first + _ASKED_AT_ONCE]
        statuses = await asyncio.gather(*(_in_place_of(broker, message) for message in some))
        found += [status for status in statuses if status is not None]
    return found


async def _in_place_of(broker: Broker, message: Message) -> TaskStatus | None:
    address = message.address
    asked = Request(task=_name(address), stream=message.stream, sequence=message.sequence)
    answer = await _ask(broker, address, asked)
    if answer is None:
        return None
    with suppress(ValueError):  # no step, which is not to be believed
        flow, number = parse_step(answer.task.removeprefix(f"{address.kind}."))
        if flow == parse_step(address.id)[0]:
            return status_in_place(replace(address, id=step_id(flow, number)), answer)
    return None


async def _ask(broker: Broker, address: TaskAddress, asked: Request) -> Answer | None:
    answer = await ask_workers(broker, address.namespace, address.queue, Verb.PING, asked)
    return answer if answer is not None and answer.started_at is not None else None


def _name(address: TaskAddress) -> str:
    return f"{address.kind}.{address.id}"
