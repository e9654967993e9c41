"""Admitting declared tasks: one look at a Task after the other.

Each look goes one way: read, decide, act, report. It begins with what is left to do about an earlier Task of
the same name, so that the two are never in each other's way.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final, Protocol

from galley.address import TaskAddress
from galley.errors import GalleyError
from galley_operator.cluster.reflector import Key
from galley_operator.faults import Faults
from galley_operator.intake.departures import Departures
from galley_operator.intake.look import Look
from galley_operator.intake.turns import Turns
from galley_operator.status.keeper import StatusKeeper
from galley_operator.status.records import RecordStreams
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.report import Report

log = logging.getLogger(__name__)

AT_ONCE: Final = 256
"""Tasks looked at at once, nearly all of them waiting for the broker to answer."""

_PATIENCE_SECONDS: Final = 5.0
"""How long it is waited for word of a reconnection before the connection is looked at."""


class Connection(Protocol):
    """Whether the broker can be reached."""

    @property
    def connected(self) -> bool:
        """Whether it can be reached now."""
        ...


class Intake:
    """Admits tasks for as long as `run` runs; only the leader runs it. A `TaskListener`."""

    def __init__(  # noqa: PLR0917 - what a look goes through
        self,
        tasks: ActiveTasks,
        queues: KnownQueues,
        departures: Departures,
        records: RecordStreams,
        look: Look,
        statuses: StatusKeeper,
        faults: Faults,
        connection: Connection,
    ) -> None:
        self.turns = Turns(tasks, statuses.report)
        self._tasks, self._queues, self._departures, self._records = tasks, queues, departures, records
        self._look, self._statuses = look, statuses
        self._faults, self._connection = faults, connection
        self._room = asyncio.Semaphore(AT_ONCE)
        self._back = asyncio.Event()

    async def run(self) -> None:
        """Admit what is there and what comes, until cancelled."""
        with self._tasks.told_to(self), self._queues.told_to(self._queue_changed):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.turns.open_gates(), name="open gates")
                while True:
                    await self._connected()
                    await self._room.acquire()
                    try:
                        key = await self.turns.next()
                    except BaseException:
                        self._room.release()
                        raise
                    group.create_task(self._turn(key), name=f"look at {'/'.join(key)}")

    async def resync(self, seconds: float) -> None:
        """Look for every admitted Task in the broker now and then, for what nothing told."""
        while True:
            await asyncio.sleep(seconds)
            for task in self._tasks:
                if task.in_broker and not task.ended:
                    self._look_again(task)

    def new(self, task: ActiveTask, *, listed: bool) -> None:
        """Take in a Task that was not known (see `TaskListener`)."""
        if listed or task.in_broker:
            # Another operator, or this one before a crash, may have published it.
            self._look_again(task)
        else:
            self.turns.add(task.key)

    def gone(self, task: ActiveTask) -> None:
        """Take in that a Task was deleted or has ended (see `TaskListener`)."""
        self.turns.gates.leave(task)
        self._statuses.forget(task)
        if not task.ended:
            self.turns.add(self._departures.add(task.address, task.uid, task.name))
        self._let_go((task.namespace, task.queue))

    def withdraw(self, address: TaskAddress, uid: str) -> None:
        """Cancel the task of a Task object that was deleted."""
        self.turns.add(self._departures.add(address, uid))

    async def reconnected(self) -> None:
        """Take in that the broker can be reached again."""
        self._back.set()

    def _queue_changed(self, queue: Key, *, appeared: bool) -> None:
        self.turns.queue_changed(queue)
        if appeared:
            # It is there again, or is gone: what waits in the broker has to say so.
            for task in self._tasks.of_queue(queue):
                if task.in_broker:
                    self._look_again(task)
            self._let_go(queue)

    def _let_go(self, queue: Key) -> None:
        """Follow the records of a queue no longer that is gone, with all Tasks that name it."""
        if queue not in self._queues and not self._tasks.name(queue):
            self._records.forget(queue)

    def _look_again(self, task: ActiveTask) -> None:
        self._tasks.doubted(task)
        self.turns.add(task.key, patient=True)

    async def _connected(self) -> None:
        """Return once the broker can be reached: without it, each task would only find out by itself."""
        while not self._connection.connected:
            self._back.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._back.wait()

    async def _turn(self, key: Key) -> None:
        """Look at one name; what goes wrong concerns no other, and is reported if it lasts."""
        labels = {"namespace": key[0], "task": key[1]}
        report: Report | None = None
        try:
            try:
                report = await self._look_at(key)
            except GalleyError as error:
                log.info("task waits", extra=labels | {"error": str(error), "hint": error.hint})
                report = self._statuses.failing(key, error)
        except Exception as error:
            report = self._statuses.failing(key, self._faults.caught("intake", error, "/".join(key)))
        finally:
            self.turns.done(key, report)
            self._room.release()

    async def _look_at(self, key: Key) -> Report | None:
        """Look at a Task and report; returns what that came to."""
        await self._departures.settle(key)
        task = self._tasks.get(key)
        if task is None or task.ended or (task.in_broker and not task.unsure):
            return None
        queue = task.namespace, task.queue
        # A Task can name any queue, and each that is followed costs requests to the broker, there or not.
        if task.in_broker or queue in self._queues:
            await self._records.followed(queue)
        return self._statuses.report(*await self._look.once(task))
