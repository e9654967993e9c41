"""Letting declared tasks in: look at a Task, decide, put it into the broker, say so in its status.

What decides is in `admission`; here is who gathers and who does. Every publish of a declared task is flagged
as one that may have been made before, so that whoever repeats it after a crash does no harm: the broker takes
no second message while there is one, and the worker that is given one after the end finds the record.
"""

import asyncio
import logging
import random
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import msgspec

from galley.broker.connection import Broker
from galley.broker.publish import Publisher
from galley.declared import DeclaredSpec, envelope_of, read_spec
from galley.errors import (
    GalleyError,
    InputInvalid,
    LaneNotEnabled,
    ManifestInvalid,
    QueueFull,
    QueueNotFound,
)
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.reflector import Key
from galley_operator.cluster.resource import TASKS
from galley_operator.errors import ObjectNotFound
from galley_operator.intake.admission import Refusal, Situation, Until, refusal
from galley_operator.intake.gates import Gates
from galley_operator.intake.traces import Traces
from galley_operator.key_queue import Backoff, KeyQueue
from galley_operator.status.keeper import StatusKeeper
from galley_operator.status.written_status import pending, queued, rejected
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from galley_operator.tasks.known_queues import KnownQueues

log = logging.getLogger(__name__)

AT_ONCE: Final = 256
"""Tasks looked at at once, nearly all of them waiting for the broker to say that it has them."""

GATE_SECONDS: Final = 0.5
"""How often a queue without room is asked whether it has some."""

_PATIENCE_SECONDS: Final = 2.0
"""How long a publish is tried before the task waits its turn again."""

_LATER_SECONDS: Final = 5.0

_LINGER: Final = {Until.NEVER: 0.0, Until.QUEUE_CHANGES: 1.0, Until.ROOM: 5.0, Until.LATER: 1.0}
"""Seconds before a task says that it was not let in: queue and tasks are often applied together, and
room is often there a moment later."""


class Intake:
    """Lets tasks in for as long as `run` runs; only the leader runs it."""

    def __init__(
        self, cluster: Cluster, broker: Broker, tasks: ActiveTasks, queues: KnownQueues, keeper: StatusKeeper
    ) -> None:
        self.let_in = 0
        """Tasks put into the broker so far."""
        self.gates = Gates()
        loop = asyncio.get_running_loop()
        self._cluster, self._broker, self._tasks, self._queues = cluster, broker, tasks, queues
        self._keeper = keeper
        self._publisher = Publisher(broker, patience_seconds=_PATIENCE_SECONDS)
        self._traces = Traces(broker)
        self._turns: KeyQueue[str] = KeyQueue(loop.time)
        self._backoff: Backoff[str] = Backoff(random.random)
        self._unsure: set[str] = set()
        self._missing: set[Key] = set()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._back = asyncio.Event()
        broker.on_reconnect(self._reconnected)

    async def run(self) -> None:
        """Let in what is there and what comes, until cancelled."""
        self._tasks.on_new = self._on_new
        self._queues.on_change = self._on_queue
        self._missing = self._tasks.by_queue.keys() - self._queues.queues.keys()
        for task in list(self._tasks.by_uid.values()):
            self._on_new(task, True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._open_gates(), name="open gates")
            while True:
                await self._connected()
                await self._room.acquire()
                uid = await self._turns.get()
                group.create_task(self._turn(uid), name=f"let in {uid}")

    def look_again(self, task: ActiveTask) -> None:
        """Have a task looked for in the broker, and put there if nothing is known of it."""
        self._unsure.add(task.uid)
        self._turns.add(task.uid, patient=True)

    def forget(self, task: ActiveTask) -> None:
        """Take in that a Task is gone."""
        self.gates.leave(task)
        self._backoff.forget(task.uid)
        self._unsure.discard(task.uid)

    def _on_new(self, task: ActiveTask, listed: bool) -> None:
        if listed or task.in_broker:
            # It was there before us: another operator, or we before a crash, may have published it.
            self.look_again(task)
        else:
            self._turns.add(task.uid)

    def _on_queue(self, queue: Key) -> None:
        for uid in self.gates.open(queue):
            self._turns.add(uid)
        if (queue in self._queues.queues) == (queue in self._missing):
            # It was deleted, or is back: what waits in the broker has to say so.
            self._missing ^= {queue}
            self._traces.forget(queue)
            for task in self._tasks.of_queue(queue):
                if task.in_broker:
                    self.look_again(task)

    async def _connected(self) -> None:
        """Return once the broker can be spoken to: without it, each task would only find out by itself."""
        while not self._broker.connected:
            self._back.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LATER_SECONDS):
                    await self._back.wait()

    async def _reconnected(self) -> None:
        self._back.set()

    async def _open_gates(self) -> None:
        while True:
            await asyncio.sleep(GATE_SECONDS)
            for uid in self.gates.let_through():
                self._turns.add(uid)

    async def _turn(self, uid: str) -> None:
        """Look at one task; whatever goes wrong concerns no other."""
        task = self._tasks.by_uid.get(uid)
        try:
            if task is not None:
                await self._look(task)
            self._backoff.forget(uid)
        except GalleyError as error:
            log.info("task waits", extra=_about(uid, task) | {"error": str(error), "hint": error.hint})
            self._turns.add_later(uid, self._backoff.after_failure(uid))
        except Exception:
            log.exception("task waits", extra=_about(uid, task))
            self._turns.add_later(uid, self._backoff.after_failure(uid))
        finally:
            self._turns.done(uid)
            self._room.release()

    async def _look(self, task: ActiveTask) -> None:
        if task.ended or (task.in_broker and task.uid not in self._unsure):
            return
        await self._keeper.following(task.namespace)
        if task.uid in self._unsure:
            if await self._known_to_broker(task):
                return
            self._unsure.discard(task.uid)
            task.in_broker = False
        if self.gates.wait_at(task):
            return
        spec = await self._spec(task)
        if spec is None:
            return
        now = datetime.now(UTC)
        queue = self._queues.queues.get((task.namespace, task.queue))
        no = refusal(Situation(spec, task.namespace, queue, now))
        if no is None:
            no = await self._publish(task, spec, now)
        if no is not None:
            self._refuse(task, no, now)

    async def _known_to_broker(self, task: ActiveTask) -> bool:
        """Return whether the broker has a record or a message of a task, and take in what it says."""
        address = task.address
        message = await self._traces.message(address)
        # The message goes after the record is written, so whoever missed it finds the record now.
        stored = await self._traces.record(address)
        if stored is not None:
            self._unsure.discard(task.uid)
            self._keeper.heard(address, stored)
            return True
        if message:
            self._unsure.discard(task.uid)
            self._taken_in(task)
        return message

    async def _spec(self, task: ActiveTask) -> DeclaredSpec | None:
        """Return what a task asks for, or None if it cannot be read, or is gone."""
        body = task.spec
        try:
            if body is None:
                present = await self._cluster.get(TASKS, task.namespace, task.name)
                if present["metadata"]["uid"] != task.uid:
                    return None
                body = msgspec.json.encode(present["spec"])
            return read_spec(task.name, body)
        except ObjectNotFound:
            return None
        except ManifestInvalid as error:
            no = Refusal(error.reason, f"{error}; {error.hint}", Until.NEVER)
            self._refuse(task, no, datetime.now(UTC))
            return None

    async def _publish(self, task: ActiveTask, spec: DeclaredSpec, now: datetime) -> Refusal | None:
        try:
            envelope = envelope_of(spec, task.created, now)
            await self._publisher.publish(task.address, envelope, chosen_id=True)
        except (QueueFull, QueueNotFound) as error:
            # Its TaskQueue is there, or it would not have come so far: streams follow in a moment.
            reason = "QueueNotReady" if isinstance(error, QueueNotFound) else error.reason
            return Refusal(reason, f"{error}; it is tried again until the queue takes it", Until.ROOM)
        except LaneNotEnabled as error:
            return Refusal(error.reason, f"{error}; {error.hint}", Until.LATER)
        except InputInvalid as error:
            return Refusal(error.reason, f"{error}; {error.hint}", Until.NEVER)
        self.let_in += 1
        self._taken_in(task)
        return None

    def _taken_in(self, task: ActiveTask) -> None:
        """Note that the broker has a task, and say so unless more is known of it already."""
        task.in_broker = True
        self._tasks.keeper.drop_spec(task)
        self.gates.leave(task)
        if task.uid not in self._tasks:
            # Deleted while it was on its way in.
            self._tasks.on_gone(task)
            return
        if not task.recorded:
            task.queued_at = task.queued_at or datetime.now(UTC)
            self._keeper.write(task, queued(task, task.queued_at))

    def _refuse(self, task: ActiveTask, no: Refusal, now: datetime) -> None:
        if task.uid not in self._tasks:
            return
        if no.until is Until.NEVER:
            self._tasks.keeper.drop_spec(task)
            task.ended = True
            status = rejected(task, no.reason, no.message, now)
        else:
            status = pending(task, no.reason, no.message)
        if no.until is Until.LATER:
            self._turns.add_later(task.uid, _LATER_SECONDS)
        elif no.until is not Until.NEVER:
            self.gates.park(task, no.until)
        self._keeper.write(task, status, linger=_LINGER[no.until])


def _about(uid: str, task: ActiveTask | None) -> dict[str, str]:
    return {"uid": uid} if task is None else {"uid": uid, "task": f"{task.namespace}/{task.name}"}
