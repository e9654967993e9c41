"""A TaskSchedule manifest as the schedule that fires: the same one, whichever command applied it."""

from typing import Any

import msgspec
from msgspec import Struct

from galley.calls import Call
from galley.client import AsyncClient
from galley.envelope import encode_input
from galley.resources.task_schedule import TaskSchedule, TaskScheduleSpec
from galley.schedule import Origin, Schedule
from galley.when import When


class ScheduleMetadata(Struct, frozen=True):
    """What counts of a TaskSchedule's metadata."""

    name: str
    uid: str = ""
    """Empty where there is no object."""
    generation: int = 0
    labels: dict[str, str] | None = None


async def schedule_of(
    client: AsyncClient,
    metadata: ScheduleMetadata,
    spec: TaskScheduleSpec,
) -> Schedule:
    """Return the schedule that a spec asks for.

    Args:
        client: of the namespace it is in.
        metadata: of the TaskSchedule, whose labels its tasks carry.
        spec: what it asks for.

    Raises:
        ScheduleInvalid, QueueNotFound, LaneNotEnabled, EncryptionRequired, QueueNotEncrypted,
            KeyServiceUnavailable, BrokerUnreachable: as `AsyncSchedules.create`.
    """
    rules = When(
        timeout_seconds=None if spec.timeout_seconds is None else float(spec.timeout_seconds),
        retry=spec.retry.policy() if spec.retry else None,
    )
    content = encode_input(spec.handler, spec.input)
    call = Call[Any](spec.queue_name, spec.handler, content, lane=spec.priority, rules=rules)
    if metadata.labels:
        call = msgspec.structs.replace(call, labels=metadata.labels)
    wanted = await client.schedules.prepared(metadata.name, call, spec.repeat(), Origin.OBJECT)
    return msgspec.structs.replace(wanted, uid=metadata.uid, generation=metadata.generation)


async def apply_schedule(client: AsyncClient, manifest: TaskSchedule) -> bool:
    """Make the schedule of a manifest what it says; returns whether something was changed.

    One that an operator keeps for an object of that name is changed for as long as the object is not.

    Raises:
        As `schedule_of`, and ScheduleTaken, ScheduleChanged, NotAllowed.
    """
    if manifest.metadata.namespace != client.namespace:
        client = AsyncClient.over(client.broker, manifest.metadata.namespace)
    spec = manifest.spec
    wanted = await schedule_of(
        client, ScheduleMetadata(manifest.metadata.name, labels=manifest.metadata.labels), spec
    )
    kept = await client.schedules.put(spec.queue_name, wanted, spec.suspend)
    return kept.changed
