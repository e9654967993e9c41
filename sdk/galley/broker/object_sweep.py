"""Deletes the objects that no task refers to. Nothing waits for it.

Workers of a queue look every two minutes; the operator and `galley dev` look at all queues, also those that
have no workers (`galley.broker.object_collector`).

An object that is found without a task twice, with a pause between, is deleted: see `galley.broker.objects`
for why a producer that refers to it meanwhile loses nothing. If a process is killed on the way, the next one
finds the same.
"""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.dead_letters import last_letter
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerUnreachable
from galley.broker.last_message import last_message
from galley.broker.lean_client import header_block
from galley.broker.listing import subjects_of
from galley.broker.objects import Place, held_until, whole_in
from galley.broker.records import Records
from galley.failpoint import failpoint
from galley.lanes import Lane
from galley.record import Outcome, Record
from galley.reference import is_object_name

GRACE_SECONDS: Final = 3600.0
"""How long a producer may take from storing the first object of a task to submitting the task."""

LEAVING_SECONDS: Final = 120.0
"""Pause between the two looks: longer than a producer takes to find that an object it refers to is there."""

SWEEP_SECONDS: Final = 120.0
"""How often the objects of a queue are looked at, however many workers it has."""

Remove = Callable[[str, str], Awaitable[bool]]
"""Deletes an object, given the address of its store and its name; returns False if it is not known here."""


class Swept(NamedTuple):
    """What a sweep did."""

    leaving: int = 0
    """Objects that no task refers to, and that go at the next look."""
    deleted: int = 0
    bytes: int = 0
    """Bytes the stream holds now."""


class Sweep:
    """One look at the objects of a queue."""

    def __init__(
        self, broker: Broker, place: Place, remove: Remove, now: Callable[[], datetime] | None = None
    ) -> None:
        """Args: remove: deletes what is not in the stream; now: the time of day."""
        self._broker, self._place, self._remove = broker, place, remove
        self._now = now or (lambda: datetime.now(UTC))
        self._stream = topology.object_stream(*place)
        self._records = Records(broker)

    async def taken(self, seconds: float = SWEEP_SECONDS) -> bool:
        """Return whether it is our turn: no other process has looked for so long.

        Raises:
            BrokerUnreachable: if the broker does not answer.
        """
        headers = header_block({topology.EXPECTED_SEQUENCE: "0", topology.TTL: str(max(1, int(seconds)))})
        ack = await (await self._broker.pipeline.send(topology.sweep_subject(*self._place), b"", headers))
        return ack.stored

    async def run(self) -> Swept:
        """Delete what may go, and mark what may go next.

        Raises:
            BrokerUnreachable, BrokerRefused: if the broker does not do what is asked. The next look
                goes on.
        """
        info = await stream_info(self._broker, self._stream)
        if info is None or info["state"]["messages"] == 0:
            return Swept()
        if topology.RESTORING_KEY in (info["config"].get("metadata") or {}):
            return Swept()  # the tasks that refer to its objects are not there yet
        uses, names, leaving = await self._listed()
        unused = [name for name in names if name not in leaving and not await self._used(uses.get(name, ()))]
        for name in unused:
            failpoint("sweep.before_leaving")
            await self._send(topology.leaving_subject(*self._place, name))
        deleted = 0
        for name in leaving:
            if await self._used(uses.get(name, ())):
                await self._purge(topology.leaving_subject(*self._place, name))
            elif await self._age(topology.leaving_subject(*self._place, name)) >= LEAVING_SECONDS:
                deleted += await self._delete(name)
        info = await stream_info(self._broker, self._stream)
        return Swept(len(unused), deleted, info["state"]["bytes"] if info else 0)

    async def _listed(self) -> tuple[dict[str, list[str]], set[str], set[str]]:
        """Return who uses which object, the names of all, and those that are leaving."""
        uses: dict[str, list[str]] = {}
        names: set[str] = set()
        leaving: set[str] = set()
        pattern = topology.objects_of_queue(*self._place)
        depth = pattern.count(".")
        async for page in subjects_of(self._broker, self._stream, pattern):
            for subject in page:
                verb, *words = subject.split(".")[depth:]
                if words and not is_object_name(words[0]):
                    continue  # as a pattern it would be the name of all objects
                if verb == "use" and len(words) == 4:
                    uses.setdefault(words[0], []).append(subject)
                if verb == "leaving":
                    leaving.add(words[0])
                elif words:
                    names.add(words[0])
        return uses, names | leaving, leaving

    async def _used(self, subjects: Iterable[str]) -> bool:
        """Return whether one of several tasks still refers to an object."""
        for subject in subjects:
            *_, role, kind, task_id = subject.split(".")
            try:
                address = TaskAddress(*self._place, Lane.NORMAL, Kind(kind), task_id)
            except ValueError:
                continue
            if await self._refers(address, role, subject):
                return True
        return False

    async def _refers(self, address: TaskAddress, role: str, subject: str) -> bool:
        if held_until(address.id) > self._now().timestamp():
            return True
        record = await self._record(address)
        if record is not None and not record.done:
            return True
        if role != "input":
            # A result is stored before its record.
            return record is not None or await self._age(subject) < GRACE_SECONDS
        if record is not None and record.outcome is not Outcome.FAILED:
            return await self._waits(address)
        if await self._waits(address) or await self._dead(address):
            return True
        return record is None and await self._age(subject) < GRACE_SECONDS

    async def _record(self, address: TaskAddress) -> Record | None:
        stored = await self._records.read(address)
        return None if stored is None else stored.record

    async def _waits(self, address: TaskAddress) -> bool:
        """Return whether a task has a message in its queue."""
        pattern = topology.in_any_lane(address)
        for stream in (topology.work_stream(*self._place), topology.later_stream(*self._place)):
            info = await stream_info(self._broker, stream, {"subjects_filter": pattern})
            if info is not None and info["state"].get("subjects"):
                return True
        return False

    async def _dead(self, address: TaskAddress) -> bool:
        return await last_letter(self._broker, address) is not None

    async def _age(self, subject: str) -> float:
        """Return for how long a message has been there; 0 if it is not."""
        found = await last_message(self._broker, self._stream, subject)
        stamp = found.headers.get("Nats-Time-Stamp", "") if found is not None else ""
        if not stamp:
            return 0.0
        # Python reads microseconds at most.
        seconds, _, fraction = stamp.rstrip("Z").partition(".")
        at = datetime.fromisoformat(f"{seconds}.{fraction[:6] or '0'}+00:00")
        return (self._now() - at).total_seconds()

    async def _delete(self, name: str) -> bool:
        found = await last_message(self._broker, self._stream, topology.whole_subject(*self._place, name))
        whole = None if found is None else whole_in(found.body)
        store = "" if whole is None else whole.store
        failpoint("sweep.before_delete")
        if store and not await self._remove(store, name):
            return False
        for verb in ("use", "whole", "part"):
            tail = f"{verb}.{name}" if verb == "whole" else f"{verb}.{name}.>"
            await self._purge(topology.objects_of_queue(*self._place, tail))
        # Last: the next sweep finds it if this one ends here.
        failpoint("sweep.before_forget")
        await self._purge(topology.leaving_subject(*self._place, name))
        return True

    async def _purge(self, pattern: str) -> None:
        await self._broker.api(
            f"delete objects of {self._stream}", f"STREAM.PURGE.{self._stream}", {"filter": pattern}
        )

    async def _send(self, subject: str) -> None:
        ack = await (await self._broker.pipeline.send(subject, b"", b""))
        if ack.unanswered:
            raise BrokerUnreachable(self._broker.server, ack.problem)
