"""A TaskSchedule manifest as the schedule that fires: the same one, whichever command applied it."""

from typing import Any

import msgspec

from galley.client import AsyncClient
from galley.envelope import encode_input
from galley.handler import Call
from galley.resources.task_schedule import TaskSchedule, TaskScheduleSpec
from galley.schedule import Origin, Schedule
from galley.when import When


async def schedule_of(
    client: AsyncClient, name: str, spec: TaskScheduleSpec, uid: str = "", generation: int = 0
) -> Schedule:
    """Return the schedule that a spec asks for.

    Args:
        client: of the namespace it is in.
        name: of the TaskSchedule.
        spec: what it asks for.
        uid: of the object; empty if there is none.
        generation: of the object.

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
    wanted = await client.schedules.prepared(name, call, spec.repeat(), Origin.OBJECT)
    return msgspec.structs.replace(wanted, uid=uid, generation=generation)


async def apply_schedule(client: AsyncClient, manifest: TaskSchedule) -> bool:
    """Make the schedule of a manifest what it says; returns whether something was changed.

    One that an operator keeps for an object of that name is changed for as long as the object is not.

    Raises:
        As `schedule_of`, and ScheduleTaken, ScheduleChanged, NotAllowed.
    """
    if manifest.metadata.namespace != client.namespace:
        client = AsyncClient.over(client.broker, manifest.metadata.namespace)
    spec = manifest.spec
    wanted = await schedule_of(client, manifest.metadata.name, spec)
    kept = await client.schedules.put(spec.queue_name, wanted, spec.suspend)
    return kept.changed
