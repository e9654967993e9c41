"""Schedules of the clients for tests: they fire by the client's clock, as `advance` moves it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from msgspec import Raw
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.calls import Call, check_queue_name
from galley.errors import GalleyError, ScheduleInvalid, ScheduleNotFound
from galley.handler import check_call
from galley.lanes import Lane
from galley.repeat import Overlap, Repeat, repeat_of
from galley.schedule import (
    Action,
    Schedule,
    Tick,
    check_schedule_name,
    decode,
    encode,
    jitter_of,
    look,
    moved_on,
    run_now_id,
    tick_id,
)
from galley.schedules import ScheduleView
from galley.when import When


class Held(Protocol):
    """What a client for tests offers to its schedules."""

    now: datetime

    def add(self, call: Call[Any], when: When | None, task_id: str | None) -> tuple[TaskAddress, bool]:
        """Take in a task."""
        ...

    def has_ended(self, queue: str, task_id: str) -> bool:
        """Return whether a task has ended."""
        ...

    def cancel(self, address: TaskAddress) -> object:
        """Cancel a task."""
        ...

    def address_of(self, queue: str, task_id: str) -> TaskAddress:
        """Return the address of a task."""
        ...


@dataclass
class _Kept:
    queue: str
    call: Call[Any]
    schedule: Schedule


class Clockwork:
    """The schedules of one client, and when they fire."""

    def __init__(self, tasks: Held) -> None:
        self._tasks = tasks
        self._kept: dict[tuple[str, str], _Kept] = {}

    def next_at(self) -> datetime | None:
        """Return when one of them fires next."""
        times = (kept.schedule.next_at for kept in self._kept.values())
        return min((each for each in times if each is not None), default=None)

    def fire(self) -> None:
        """Submit the tasks of the ticks that have come, by the rules that workers use."""
        for kept in self._kept.values():
            at = kept.schedule.next_at
            if at is not None and at <= self._tasks.now:
                self._look(kept)

    def _look(self, kept: _Kept) -> None:
        due = look(kept.schedule, self._tasks.now)
        done = [self._tick(kept, tick) for tick in due.ticks]
        kept.schedule = moved_on(kept.schedule, self._tasks.now, due, done)

    def _tick(self, kept: _Kept, tick: datetime) -> Tick:
        schedule, last = kept.schedule, kept.schedule.progress.last_id
        task_id = tick_id(schedule.name, tick)
        allowed = schedule.repeat.overlap is Overlap.ALLOW
        if last and not allowed and not self._tasks.has_ended(kept.queue, last):
            if schedule.repeat.overlap is Overlap.SKIP:
                return Tick(tick, Action.SKIPPED, why=f"task {last} has not ended")
            self._tasks.cancel(self._tasks.address_of(kept.queue, last))
        starts = tick + jitter_of(task_id, schedule.repeat.jitter_seconds)
        try:
            self._tasks.add(kept.call, When(not_before=starts if starts > tick else None), task_id)
        except GalleyError as error:
            return Tick(tick, Action.REFUSED, why=f"{error}"[:200])
        return Tick(tick, Action.FIRED, task_id)

    def create(self, name: str, call: Call[Any], repeat: Repeat, *, suspended: bool | None) -> ScheduleView:
        """Make or change a schedule."""
        check_call(call)
        queue = check_queue_name(call.queue)
        check_schedule_name(name)
        if call.rules is not None and (call.rules.not_before or call.rules.deadline):
            raise ScheduleInvalid(
                "call", "has a time of its own", "leave out not_before and deadline: ticks have their own"
            )
        if call.task_id is not None:
            raise ScheduleInvalid("call", "has an id of its own", "leave out task_id: each tick makes one")
        lane = Lane((call.rules.lane if call.rules else None) or call.lane or Lane.NORMAL)
        before = self._kept.get((queue, name))
        known = before.schedule.suspended if before is not None else False
        # As it comes back from the broker: words such as overlap="skip" are read there.
        state = known if suspended is None else suspended
        wanted = decode(
            encode(Schedule(name, repeat, Raw(call.input), call.handler, lane, state, reset=True))
        )
        if before is not None:
            if before.schedule.same_as(wanted) and before.call.input == call.input:
                return self.view(before)
            wanted = replace(wanted, progress=before.schedule.progress)
        kept = self._kept[queue, name] = _Kept(queue, call, wanted)
        self._look(kept)
        return self.view(kept)

    def suspend(self, queue: str, name: str, *, suspended: bool) -> ScheduleView:
        """Suspend or resume a schedule."""
        kept = self.get(queue, name)
        kept.schedule = replace(kept.schedule, suspended=suspended, reset=True)
        self._look(kept)
        return self.view(kept)

    def run_now(self, queue: str, name: str, token: str) -> tuple[TaskAddress, bool]:
        """Submit what a schedule runs, beside its ticks."""
        return self._tasks.add(self.get(queue, name).call, None, run_now_id(name, token))

    def get(self, queue: str, name: str) -> _Kept:
        """Return a schedule.

        Raises:
            ScheduleNotFound: if there is none of that name.
        """
        kept = self._kept.get((queue, name))
        if kept is None:
            raise ScheduleNotFound(queue, name)
        return kept

    def delete(self, queue: str, name: str) -> None:
        """Delete a schedule."""
        self.get(queue, name)
        del self._kept[queue, name]

    def of_queue(self, queue: str) -> list[ScheduleView]:
        """Return the schedules of a queue, by name."""
        found = [self.view(kept) for kept in self._kept.values() if kept.queue == queue]
        return sorted(found, key=lambda view: view.name)

    def view(self, kept: _Kept) -> ScheduleView:
        """Return what a program sees of a schedule."""
        schedule, progress = kept.schedule, kept.schedule.progress
        starts = schedule.next_at
        if starts is not None:
            starts += jitter_of(tick_id(schedule.name, starts), schedule.repeat.jitter_seconds)
        return ScheduleView(
            kept.queue, schedule.name, schedule.handler, schedule.repeat, schedule.lane, schedule.suspended,
            schedule.origin, starts, progress.last_at, progress.last_id, progress.fired, progress.skipped,
            progress.recent, Raw(kept.call.input),
        )  # fmt: skip


class EagerSchedules:
    """Takes the place of `galley.Schedules`. Ticks fire as the client's clock moves past them."""

    def __init__(self, works: Clockwork, run: Callable[[TaskAddress, bool], Any]) -> None:
        """Args: run: runs what is due, and returns a handle."""
        self._works, self._run = works, run

    def create(
        self, name: str, call: Call[Any], cron: str | Repeat, *, suspended: bool | None = None, **rules: Any
    ) -> ScheduleView:
        """Make a schedule, or change the one of that name.

        Raises:
            ScheduleInvalid, QueueNameInvalid: as `galley.Schedules.create`.
        """
        return self._works.create(name, call, repeat_of(cron, **rules), suspended=suspended)

    def get(self, queue: str, name: str) -> ScheduleView:
        """Return a schedule.

        Raises:
            ScheduleNotFound: the queue has none of that name.
        """
        return self._works.view(self._works.get(queue, name))

    def list(self, queue: str) -> list[ScheduleView]:
        """Return the schedules of a queue, by name."""
        return self._works.of_queue(queue)

    def delete(self, queue: str, name: str) -> None:
        """Delete a schedule.

        Raises:
            ScheduleNotFound: the queue has none of that name.
        """
        self._works.delete(queue, name)

    def suspend(self, queue: str, name: str) -> ScheduleView:
        """Have a schedule fire no more until `resume`.

        Raises:
            ScheduleNotFound: the queue has none of that name.
        """
        return self._works.suspend(queue, name, suspended=True)

    def resume(self, queue: str, name: str) -> ScheduleView:
        """Have a suspended schedule fire again, from its next tick on.

        Raises:
            ScheduleNotFound: the queue has none of that name.
        """
        return self._works.suspend(queue, name, suspended=False)

    def run_now(self, queue: str, name: str, token: str = "") -> Any:
        """Run what a schedule runs, once and now; returns a handle of the client.

        Raises:
            ScheduleNotFound: the queue has none of that name.
        """
        return self._run(*self._works.run_now(queue, name, token))


class AsyncEagerSchedules:
    """Takes the place of `galley.AsyncSchedules`: `EagerSchedules` with `await`."""

    def __init__(self, works: Clockwork, run: Callable[[TaskAddress, bool], Any]) -> None:
        """Args: run: runs what is due, and returns a handle; it is awaited."""
        self._schedules, self._run = EagerSchedules(works, lambda address, existed: (address, existed)), run

    async def create(
        self, name: str, call: Call[Any], cron: str | Repeat, *, suspended: bool | None = None, **rules: Any
    ) -> ScheduleView:
        """Make a schedule, or change the one of that name: `EagerSchedules.create`."""
        return self._schedules.create(name, call, cron, suspended=suspended, **rules)

    async def get(self, queue: str, name: str) -> ScheduleView:
        """Return a schedule: `EagerSchedules.get`."""
        return self._schedules.get(queue, name)

    async def list(self, queue: str) -> list[ScheduleView]:
        """Return the schedules of a queue, by name."""
        return self._schedules.list(queue)

    async def delete(self, queue: str, name: str) -> None:
        """Delete a schedule: `EagerSchedules.delete`."""
        self._schedules.delete(queue, name)

    async def suspend(self, queue: str, name: str) -> ScheduleView:
        """Have a schedule fire no more until `resume`."""
        return self._schedules.suspend(queue, name)

    async def resume(self, queue: str, name: str) -> ScheduleView:
        """Have a suspended schedule fire again."""
        return self._schedules.resume(queue, name)

    async def run_now(self, queue: str, name: str, token: str = "") -> Any:
        """Run what a schedule runs, once and now; returns a handle of the client."""
        return await self._run(*self._schedules.run_now(queue, name, token))
