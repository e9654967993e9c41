"""Tasks for later: schedules kept by the server, which hold no slot and survive restarts."""

import asyncio
from datetime import UTC, datetime
from enum import StrEnum

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.lean_client import header_block
from galley.broker.pipeline import Ack
from galley.envelope import Flags


class Door(StrEnum):
    """Which subject a schedule comes in by."""

    FIRST = "schedule"
    """Of a task that is submitted for later: stored only if no other message of the task is there."""
    AGAIN = "again"
    """Of a further attempt: it replaces what is there."""


async def send_later(  # noqa: PLR0917 - what travels, when, and by which door
    broker: Broker, address: TaskAddress, body: bytes, flags: Flags, at: datetime, door: Door
) -> asyncio.Future[Ack]:
    """Have the server make the task due at `at`; a later schedule of the same task replaces it.

    A time in the past, or nearer than `SHORTEST_DELAY_SECONDS`, is due after that.
    """
    first = door is Door.FIRST
    subject = topology.schedule_subject(address) if first else topology.again_subject(address)
    headers = {
        topology.SCHEDULE: f"@at {at.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z",
        topology.SCHEDULE_TARGET: topology.due_subject(address),
        topology.FLAGS_HEADER: flags.encode(),
    }
    if first:
        headers[topology.EXPECTED_SEQUENCE] = "0"
        headers[topology.EXPECTED_SUBJECT] = topology.in_any_lane(address)
    return await broker.pipeline.send(subject, body, header_block(headers))
