"""The schedules of `@task(cron=...)`: made by each worker that starts, and by `galley schedule register`."""

from collections.abc import Mapping
from typing import Any, Protocol

from galley.calls import Call
from galley.envelope import NO_INPUT
from galley.lanes import Lane
from galley.repeat import Repeat
from galley.schedule import Origin, schedule_name_of
from galley.schedules import AsyncSchedules


class Rules(Protocol):
    """What `@task` says of a handler, as far as it matters here."""

    @property
    def repeat(self) -> Repeat | None:
        """When it runs by itself; None if it does not."""

    @property
    def lane(self) -> Lane | None:
        """The lane of its tasks; None for that of the queue."""

    @property
    def labels(self) -> Mapping[str, str] | None:
        """Those of its tasks."""


async def declare(schedules: AsyncSchedules, queue: str, handler: str, rules: Rules) -> str:
    """Make the schedule of a handler, or change it to what the code says; return its name, or `""`.

    Raises:
        As `AsyncSchedules.create`.
    """
    if rules.repeat is None:
        return ""
    name = schedule_name_of(handler)
    labels = None if rules.labels is None else dict(rules.labels)
    call = Call[Any](queue, handler, NO_INPUT, lane=rules.lane, labels=labels)
    await schedules.put(queue, await schedules.prepared(name, call, rules.repeat, Origin.CODE))
    return name
