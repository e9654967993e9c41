"""The tasks of `galley dev`, read at a cost that does not grow with their number."""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker import inspect, topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.inspect import peek
from galley.broker.records import Records
from galley.broker.waiting import hearing_changes
from galley.errors import EnvelopeInvalid, TaskNotFound
from galley.lanes import Lane
from galley.record import Record, Stored
from galley.task_status import Phase, TaskStatus, of_record

log = logging.getLogger(__name__)

_READ_AT_ONCE: Final = 200
"""Records read at one look, of declared tasks and of others: of many only the latest are shown."""

_READ_EACH_LOOK: Final = 25
"""Records of undeclared tasks read at each of many looks: more cannot be followed, and each is a request."""

_KEPT: Final = 500
"""Tasks kept in memory besides the declared ones."""

_PEEKED: Final = 8
"""Unfinished tasks shown per lane."""

_LOOK_AGAIN_LOOKS: Final = 8
"""The declared tasks are read again every so many updates, since notifications can be lost."""


class Key(NamedTuple):
    """Identifies a task; its lane does not matter."""

    namespace: str
    queue: str
    kind: Kind
    id: str


def key_of(address: TaskAddress) -> Key:
    """Return the key of the task at an address."""
    return Key(address.namespace, address.queue, address.kind, address.id)


class TaskBoard:
    """All declared tasks, and the latest of the others."""

    def __init__(self, broker: Broker, lanes: dict[tuple[str, str], tuple[Lane, ...]]) -> None:
        """Args: lanes: of each queue, by its namespace and name."""
        self._broker, self._lanes = broker, lanes
        self._records = Records(broker)
        self._heard: OrderedDict[str, None] = OrderedDict()
        """Subjects of the news about undeclared tasks, latest last."""
        self._followed: dict[str, TaskAddress] = {}
        """Declared tasks by the subject of their news."""
        self._changed: dict[Key, TaskAddress] = {}
        """Declared tasks to be read again."""
        self._ended: dict[Key, Record] = {}
        self._latest: OrderedDict[Key, TaskStatus] = OrderedDict()
        self._active: dict[Key, TaskStatus] = {}
        self._looks = 0
        self._allowance = _READ_AT_ONCE
        """Records of undeclared tasks that may be read at this look."""
        self.passed_over = 0
        """Changes of undeclared tasks that were not read, so far: there were too many."""
        self.declared: dict[Key, TaskAddress] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Subscribe to changes of tasks."""
        async with AsyncExitStack() as stack:
            for namespace in {namespace for namespace, _ in self._lanes}:
                await stack.enter_async_context(hearing_changes(self._broker, namespace, self._note))
            yield

    def declare(self, address: TaskAddress) -> None:
        """Follow a task until it has ended."""
        self.declared[key_of(address)] = address
        self._changed[key_of(address)] = address
        self._followed[topology.done_subject(address)] = address

    def open_tasks(self) -> list[TaskAddress]:
        """Return the declared tasks that are not known to have ended."""
        return [address for key, address in self.declared.items() if key not in self._ended]

    def ended(self, address: TaskAddress) -> Record | None:
        """Return the last record of a declared task, once it has ended."""
        return self._ended.get(key_of(address))

    def tasks(self) -> list[TaskStatus]:
        """Return the known tasks: running ones, then the latest changes, then waiting ones."""
        running = [status for status in self._active.values() if status.phase is Phase.RUNNING]
        waiting = [status for status in self._active.values() if status.phase is not Phase.RUNNING]
        rest = [status for key, status in reversed(self._latest.items()) if key not in self._active]
        return [*running, *rest, *waiting]

    async def look(self, empty: Collection[tuple[tuple[str, str], Lane]] = ()) -> None:
        """Update everything; what the broker does not answer stays as it was.

        Args:
            empty: lanes that are known to have no tasks, each after its queue's namespace and name.
        """
        self._looks += 1
        if self._looks % _LOOK_AGAIN_LOOKS == 0:
            for address in self.open_tasks()[:_READ_AT_ONCE]:
                self._changed.setdefault(key_of(address), address)
        with contextlib.suppress(BrokerError):
            await self._read_changed()
            await self._peek(empty)

    def _note(self, subject: str) -> None:
        """Note that a record changed. Thousands may in a second, so nothing is looked up here."""
        if (declared := self._followed.get(subject)) is not None:
            self._changed[key_of(declared)] = declared
            return
        heard = self._heard
        heard[subject] = None
        heard.move_to_end(subject)
        if len(heard) > _READ_AT_ONCE:
            heard.popitem(last=False)
            self.passed_over += 1

    async def _read_changed(self) -> None:
        declared = [self._changed.pop(key) for key in list(self._changed)[:_READ_AT_ONCE]]
        heard, self._heard = list(self._heard), OrderedDict()
        self._allowance = min(_READ_AT_ONCE, self._allowance + _READ_EACH_LOOK)
        self.passed_over += len(heard[: -self._allowance])
        del heard[: -self._allowance]
        self._allowance -= len(heard)
        addresses = [*declared, *self._served(heard)]
        try:
            found = await asyncio.gather(*(self._read(address) for address in addresses))
        except BaseException:  # cancelled, too: another look follows, at the end of `galley dev`
            self._changed = {key_of(address): address for address in declared} | self._changed
            self._heard = OrderedDict.fromkeys([*heard, *self._heard][-_READ_AT_ONCE:])
            raise
        for address, stored in zip(addresses, found, strict=True):
            if stored is not None:
                self._take(key_of(address), of_record(address, stored.record), stored.record)

    def _served(self, subjects: Iterable[str]) -> Iterator[TaskAddress]:
        """Yield the tasks of our queues that news are about; those of unique keys are about none."""
        for subject in subjects:
            with contextlib.suppress(ValueError):
                address = topology.parse_task_subject(subject)
                if (address.namespace, address.queue) in self._lanes:
                    yield address

    async def _read(self, address: TaskAddress) -> Stored | None:
        try:
            stored = await self._records.read(address)
            if stored is None:
                return None
            record = await self._broker.payloads.look_at_record(address, stored.record)
            return Stored(record, stored.sequence)
        except EnvelopeInvalid as error:
            log.warning("record not readable", extra={"task": str(address), "error": str(error)})
            return None

    def _take(self, key: Key, status: TaskStatus, record: Record) -> None:
        self._latest[key] = status
        self._latest.move_to_end(key)
        if key in self.declared and record.done:
            self._ended[key] = record
        while len(self._latest) > _KEPT:
            self._latest.popitem(last=False)

    async def _peek(self, empty: Collection[tuple[tuple[str, str], Lane]]) -> None:
        every = ((name, lane) for name, lanes in self._lanes.items() for lane in lanes)
        lanes = [each for each in every if each not in empty]
        found = await asyncio.gather(*(peek(self._broker, *name, lane, _PEEKED) for name, lane in lanes))
        seen = {key_of(status.address): status for statuses in found for status in statuses}
        for key in seen.keys() & self._latest.keys():
            # The record has more about a task that was tried before; a task that ended is about to leave.
            recorded = self._latest[key]
            if recorded.phase.ended:
                del seen[key]
            else:
                seen[key] = self._joined(seen[key], recorded)
        # What began since the last look may have ended by the next one, and costs a worker three answers.
        before = self._active
        unnamed = [
            status for key, status in seen.items()
            if status.phase is Phase.RUNNING and not status.worker
            and key in before and before[key].phase is Phase.RUNNING
        ]  # fmt: skip
        self._active = seen | dict(await self._named(unnamed))

    def _joined(self, seen: TaskStatus, recorded: TaskStatus) -> TaskStatus:
        if seen.phase is Phase.SCHEDULED and recorded.phase is Phase.RETRYING:
            return recorded
        return replace(recorded, phase=seen.phase, failure=None) if seen.phase is Phase.RUNNING else recorded

    async def _named(self, running: Iterable[TaskStatus]) -> list[tuple[Key, TaskStatus]]:
        """Return running tasks with their workers, asking the workers about new ones."""
        named, asking = [], []
        for status in running:
            key = key_of(status.address)
            before = self._active.get(key)
            if before is not None and before.worker and before.phase is Phase.RUNNING:
                named.append((key, before))
            else:
                asking.append(status.address)
        answers = await asyncio.gather(*(self._ask(address) for address in asking))
        return named + [(key_of(answer.address), answer) for answer in answers if answer is not None]

    async def _ask(self, address: TaskAddress) -> TaskStatus | None:
        try:
            return await inspect.status(self._broker, address)
        except (TaskNotFound, EnvelopeInvalid, BrokerError):
            return None


def summary_of(record: Record) -> str:
    """Return the outcome of a task in one line."""
    if record.failure is not None:
        return f"{record.failure.reason}: {record.failure.message}"
    if record.large is not None:
        return f"a result of {record.large.size} bytes"
    if record.outcome is None or not bytes(record.result) or bytes(record.result) == b"null":
        return ""
    return msgspec.json.format(bytes(record.result), indent=-1).decode()
