"""The schedules of the queues of a namespace, for programs: make, look at, suspend, resume, run now, delete.

A worker of the queue fires them; nothing else has to run. Credentials of a manager are needed to change one.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Raw, Struct
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.audit import Action
from galley.broker import schedules as stored
from galley.broker.audit import note
from galley.broker.connection import Broker
from galley.broker.encryption_rules import EncryptionRules
from galley.broker.ensure import stream_info
from galley.broker.publish import Publisher
from galley.broker.schedules import Kept
from galley.broker.topology import LANES_KEY, work_stream
from galley.calls import Call, check_queue_name
from galley.envelope import INPUT_LIMIT, Envelope, digest_of
from galley.errors import (
    EnvelopeInvalid,
    LaneNotEnabled,
    QueueNotFound,
    ScheduleChanged,
    ScheduleInvalid,
    ScheduleNotFound,
    ScheduleTaken,
)
from galley.handle import AsyncHandle
from galley.handler import check_call
from galley.lanes import Lane
from galley.repeat import Repeat, repeat_of
from galley.schedule import (
    Origin,
    Schedule,
    Tick,
    address_of,
    check_schedule_name,
    jitter_of,
    run_now_id,
    tick_id,
)

_TRIES: Final = 10
_PATIENCE_SECONDS: Final = 30.0


class ScheduleView(Struct, frozen=True):
    """A schedule, and how far it is."""

    queue: str
    name: str
    handler: str
    repeat: Repeat
    lane: Lane
    suspended: bool
    origin: Origin
    """Where it was declared: `client`, `code` (`@task(cron=...)`) or `object` (a TaskSchedule)."""
    next_at: datetime | None
    """When it fires next; None if it is suspended or has ended."""
    last_at: datetime | None
    """The last tick that fired."""
    last_id: str
    """The id of its task."""
    fired: int
    """Ticks that fired so far."""
    skipped: int
    """Ticks that did not, whether they were missed or overlapped."""
    recent: tuple[Tick, ...]
    """The latest ticks and what became of them, newest first."""
    input: Raw | None
    """None if it cannot be decrypted here, or its task cannot be read."""
    problem: str = ""
    """Why it does not fire; empty if it does."""


class AsyncSchedules:
    """The schedules of the queues of a namespace."""

    def __init__(
        self, broker: Broker, namespace: str, publisher: Publisher, task: Callable[[Call[Any]], Envelope]
    ) -> None:
        """Args: task: returns a call as it travels."""
        self._broker, self._namespace, self._publisher = broker, namespace, publisher
        self._rules = EncryptionRules(broker)
        self._task = task

    async def create(
        self,
        name: str,
        call: Call[Any],
        cron: str | Repeat,
        *,
        suspended: bool | None = None,
        **rules: Any,
    ) -> ScheduleView:
        """Make a schedule, or change the one of that name; returns when the broker has it on disk.

        One that exists and asks for the same is left as it is, so a program may do this whenever it starts.
        Ticks before a change do not count any more.

        Args:
            name: 1 to 48 characters of A-Z, a-z, 0-9, `_` and `-`.
            call: what each tick runs: `handler.call(...)`, with options for lane, timeout and retries.
            cron: when, in the words of `Repeat.cron`; or a `Repeat`.
            suspended: whether it waits for `resume`; None leaves one that exists as it is.
            **rules: fields of `Repeat`, such as `time_zone="Europe/Berlin"` or `overlap="allow"`.

        Raises:
            ScheduleInvalid: it can never fire, or its name or rules are not valid.
            QueueNotFound, LaneNotEnabled, QueueNameInvalid: there is no such queue, or it lacks the lane.
            EncryptionRequired, QueueNotEncrypted, KeyServiceUnavailable: as `submit`.
            SubmissionInvalid: `call` is none.
            NotAllowed: the credentials are not those of a manager of the queue.
            ScheduleTaken: the name is that of a schedule of `@task(cron=...)` or of a TaskSchedule.
            ScheduleChanged: others changed it at the same moment, each time.
            BrokerUnreachable: no answer; doing it again is safe.
            ClientClosed, ClientElsewhere: the client is closed, or belongs to another event loop.
        """
        self._broker.check_usable()
        schedule = await self.prepared(name, call, repeat_of(cron, **rules))
        kept = await self.put(call.queue, schedule, suspended)
        if kept.changed:
            await self._note(call.queue, Action.SCHEDULE, name, f"{schedule.repeat.cron} runs {call.handler}")
        return await self._view(kept)

    async def prepared(
        self, name: str, call: Call[Any], repeat: Repeat, origin: Origin = Origin.CLIENT
    ) -> Schedule:
        """Return a schedule as it is stored, after checking that its queue can have it.

        Raises:
            As `create`.
        """
        check_call(call)
        queue = check_queue_name(call.queue)
        check_schedule_name(name)
        if call.rules is not None and (call.rules.not_before or call.rules.deadline):
            raise ScheduleInvalid(
                "call", "has a time of its own", "leave out not_before and deadline: ticks have their own"
            )
        if call.task_id is not None:
            raise ScheduleInvalid("call", "has an id of its own", "leave out task_id: each tick makes one")
        if call.files or len(call.input) > INPUT_LIMIT:
            problem = "has files" if call.files else f"has an input of {len(call.input)} bytes of JSON"
            raise ScheduleInvalid(
                "call", f"{problem}; a schedule keeps {INPUT_LIMIT} bytes, and no objects",
                "pass the place of the data, such as a URL, and read it in the handler",
            )  # fmt: skip
        lane = (call.rules.lane if call.rules else None) or call.lane or Lane.NORMAL
        await self._check_queue(queue, lane)
        address = address_of(self._namespace, queue, lane, name)
        await self._rules.check(address, _PATIENCE_SECONDS)
        envelope = replace(self._task(call), digest=digest_of(call.handler, call.input))
        body = await self._broker.payloads.task_bytes(address, envelope)
        return Schedule(name, repeat, Raw(body), call.handler, lane, origin=origin, reset=True)

    async def _check_queue(self, queue: str, lane: Lane) -> None:
        info = await stream_info(self._broker, work_stream(self._namespace, queue))
        if info is None:
            raise QueueNotFound(self._namespace, queue)
        lanes = tuple(Lane(word) for word in info["config"]["metadata"][LANES_KEY].split(","))
        if lane not in lanes:
            raise LaneNotEnabled(queue, lane, lanes)

    async def put(self, queue: str, wanted: Schedule, suspended: bool | None = None) -> Kept:
        """Store a schedule in place of what has its name, unless that asks for the same.

        Args:
            queue: name of the queue.
            wanted: the schedule.
            suspended: whether it is; None leaves that as it is.

        Raises:
            ScheduleTaken, ScheduleChanged, QueueNotFound, NotAllowed, BrokerUnreachable: as `create`.
        """
        for _ in range(_TRIES):
            present = await stored.find(self._broker, self._namespace, queue, wanted.name)
            if present is not None and present.schedule.origin is not wanted.origin:
                raise ScheduleTaken(queue, wanted.name, present.schedule.origin)
            known = present.schedule.suspended if present is not None else False
            wanted = replace(wanted, suspended=known if suspended is None else suspended)
            if present is not None and not wanted.uid:
                # An operator that keeps it for an object goes on doing so.
                of = present.schedule
                wanted = replace(wanted, uid=of.uid, generation=of.generation)
            if present is not None and await self._same(present, wanted):
                return present
            progress = wanted.progress if present is None else present.schedule.progress
            new = replace(wanted, progress=replace(progress, next_at=self._next(wanted)))
            at = present.sequence if present is not None else 0
            if await stored.replaced(
                self._broker, (self._namespace, queue), new, stored.AT_ONCE, instead_of=at
            ):
                return Kept(self._namespace, queue, new, at, changed=True)
        raise ScheduleChanged(queue, wanted.name)

    def _next(self, wanted: Schedule) -> datetime | None:
        """Return when it fires next, to be shown until a worker has looked at it."""
        return wanted.repeat.timetable().next_after(datetime.now(UTC))

    async def _same(self, present: Kept, wanted: Schedule) -> bool:
        known = present.schedule
        if not known.same_as(wanted) or (known.uid, known.generation) != (wanted.uid, wanted.generation):
            return False
        address = address_of(self._namespace, present.queue, known.lane, known.name)
        mine, theirs = [
            await self._broker.payloads.look_at_task(address, bytes(each.task)) for each in (wanted, known)
        ]
        neutral = {"submitted_at": mine.submitted_at, "sealed": ""}
        return not theirs.sealed and replace(mine, **neutral) == replace(theirs, **neutral)

    async def get(self, queue: str, name: str) -> ScheduleView:
        """Return a schedule.

        Raises:
            ScheduleNotFound: the queue has none of that name.
            QueueNotFound, QueueNameInvalid, ScheduleInvalid: there is no such queue, or there can be none.
            NotAllowed, BrokerUnreachable, ClientClosed, ClientElsewhere: as `create`.
        """
        return await self._view(await self._kept(queue, name))

    async def list(self, queue: str) -> list[ScheduleView]:
        """Return the schedules of a queue, by name.

        Raises:
            QueueNotFound, QueueNameInvalid: there is no such queue, or there can be none.
            NotAllowed, BrokerUnreachable, ClientClosed, ClientElsewhere: as `create`.
        """
        self._broker.check_usable()
        found = [
            await self._view(kept)
            async for kept in stored.schedules_of(self._broker, self._namespace, check_queue_name(queue))
        ]
        if not found and await stream_info(self._broker, work_stream(self._namespace, queue)) is None:
            raise QueueNotFound(self._namespace, queue)
        return sorted(found, key=lambda view: view.name)

    async def delete(self, queue: str, name: str) -> None:
        """Delete a schedule: when this returns it fires no more. Tasks of past ticks are not touched.

        Raises:
            ScheduleNotFound: the queue has none of that name.
            QueueNotFound, NotAllowed, BrokerUnreachable, ClientClosed, ClientElsewhere: as `get`.
        """
        await self._kept(queue, name)
        await stored.remove(self._broker, self._namespace, queue, name)
        await self._note(queue, Action.DELETE, name, "schedule")

    async def suspend(self, queue: str, name: str) -> ScheduleView:
        """Have a schedule fire no more until `resume`.

        Raises:
            ScheduleNotFound, ScheduleChanged, QueueNotFound, NotAllowed, BrokerUnreachable: as above.
        """
        return await self._change(queue, name, suspended=True)

    async def resume(self, queue: str, name: str) -> ScheduleView:
        """Have a suspended schedule fire again, from its next tick on; those in between do not count.

        Raises:
            ScheduleNotFound, ScheduleChanged, QueueNotFound, NotAllowed, BrokerUnreachable: as above.
        """
        return await self._change(queue, name, suspended=False)

    async def _change(self, queue: str, name: str, *, suspended: bool) -> ScheduleView:
        for _ in range(_TRIES):
            kept = await self._kept(queue, name)
            if kept.schedule.suspended is suspended:
                return await self._view(kept)
            progress = replace(kept.schedule.progress, next_at=self._next(kept.schedule))
            changed = replace(kept.schedule, suspended=suspended, reset=True, progress=progress)
            place = self._namespace, queue
            if await stored.replaced(self._broker, place, changed, stored.AT_ONCE, instead_of=kept.sequence):
                await self._note(queue, Action.PAUSE if suspended else Action.RESUME, name, "schedule")
                return await self._view(kept._replace(schedule=changed))
        raise ScheduleChanged(queue, name)

    async def run_now(self, queue: str, name: str, token: str = "") -> AsyncHandle[Any]:
        """Submit what a schedule runs, once and now, beside its ticks and whatever its overlap policy.

        Args:
            queue: name of the queue.
            name: of the schedule, which may be suspended.
            token: any text; the same one submits the same task, so that a repetition runs nothing twice.

        Raises:
            ScheduleNotFound: the queue has none of that name.
            DecryptionKeyMissing, PayloadAltered: its input is encrypted and cannot be decrypted here.
            QueueNotFound, LaneNotEnabled, QueueFull, NotAllowed, BrokerUnreachable: as `submit`.
        """
        handle = await self.run(await self._kept(queue, name), token)
        await self._note(queue, Action.RUN, name, f"task {handle.id}")
        return handle

    async def run(self, kept: Kept, token: str = "") -> AsyncHandle[Any]:
        """As `run_now`, for a schedule at hand."""
        schedule, payloads = kept.schedule, self._broker.payloads
        pattern = address_of(kept.namespace, kept.queue, schedule.lane, schedule.name)
        envelope = await payloads.read_task(pattern, bytes(schedule.task))
        if envelope.sealed:
            raise payloads.missing(pattern, envelope.sealed)
        address = replace(pattern, id=run_now_id(schedule.name, token))
        task = replace(envelope, submitted_at=datetime.now(UTC), schedule=schedule.name)
        receipt = await self._publisher.publish_once(address, task)
        return AsyncHandle(self._broker, receipt.address, task, existed=receipt.duplicate)

    async def _note(self, queue: str, action: Action, name: str, detail: str) -> None:
        await note(self._broker, self._namespace, queue, action, name, detail=detail)

    async def _kept(self, queue: str, name: str) -> Kept:
        self._broker.check_usable()
        check_queue_name(queue)
        check_schedule_name(name)
        kept = await stored.find(self._broker, self._namespace, queue, name)
        if kept is not None:
            return kept
        if await stream_info(self._broker, work_stream(self._namespace, queue)) is None:
            raise QueueNotFound(self._namespace, queue)
        raise ScheduleNotFound(queue, name)

    async def _view(self, kept: Kept) -> ScheduleView:
        schedule, progress = kept.schedule, kept.schedule.progress
        address: TaskAddress = address_of(kept.namespace, kept.queue, schedule.lane, schedule.name)
        given, problem = None, schedule.problem
        try:
            envelope = await self._broker.payloads.look_at_task(address, bytes(schedule.task))
            given = None if envelope.sealed else envelope.input
        except EnvelopeInvalid as error:  # one that another program wrote must not hide the others
            problem = problem or f"its task cannot be read: {error}"
        starts = schedule.next_at
        if starts is not None and schedule.repeat.jitter_seconds:
            starts += jitter_of(tick_id(schedule.name, starts), schedule.repeat.jitter_seconds)
        return ScheduleView(
            kept.queue, schedule.name, schedule.handler, schedule.repeat, schedule.lane, schedule.suspended,
            schedule.origin, starts, progress.last_at, progress.last_id, progress.fired, progress.skipped,
            progress.recent, given, problem,
        )  # fmt: skip
