"""Presence: what others see of a worker, and what they may ask of it: heartbeats, answers, a drain."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final

from galley.broker.connection import Broker
from galley.broker.control import (
    HEARTBEAT_SECONDS,
    Answer,
    Heartbeat,
    Question,
    Request,
    Verb,
    answering,
    answering_as,
    send_heartbeat,
)
from galley.faults import Faults
from galley_worker.claim import Who
from galley_worker.health import Condition
from galley_worker.puller import Puller
from galley_worker.roster import Roster, task_of
from galley_worker.slots import WorkerSlots
from galley_worker.stop import Stop
from galley_worker.under_way import UnderWay


class Presence:
    """The worker as the operator, other workers, cancellers and the kubelet see it."""

    def __init__(  # noqa: PLR0917 - whom it speaks for
        self,
        broker: Broker,
        who: Who,
        roster: Roster,
        puller: Puller,
        slots: WorkerSlots,
        stop: Stop,
        faults: Faults,
    ) -> None:
        self._broker, self._who, self._roster, self._puller = broker, who, roster, puller
        self._slots, self._stop, self._faults = slots, stop, faults
        self._drained_until = 0.0
        self._told = asyncio.Event()
        """Set when a drain begins or ends, so that a heartbeat says so at once."""
        self._since = asyncio.get_running_loop().time()

    @asynccontextmanager
    async def shown(self, namespace: str, queue: str) -> AsyncIterator[None]:
        """Answer, and send heartbeats, for the duration of the block."""
        place = self._broker, namespace, queue

        async def beat() -> None:
            await self._beat(namespace, queue)

        async with AsyncExitStack() as parts:
            await parts.enter_async_context(answering(*place, self._answer))
            await parts.enter_async_context(answering_as(*place, self._who.holder, self._answer_as_holder))
            await parts.enter_async_context(self._faults.beside("heartbeat", beat, HEARTBEAT_SECONDS))
            yield

    def condition(self) -> Condition:
        """Return what the health pages depend on."""
        return Condition(
            connected=self._broker.connected,
            open=not self._stop.asked.is_set() and not self._drained_until,
            free=self._slots.free,
            silent_seconds=asyncio.get_running_loop().time() - max(self._since, self._puller.heard_at),
        )

    async def _answer(self, verb: Verb, request: Request) -> Answer | None:
        match verb:
            case Verb.DRAIN:
                if self._who.name not in request.workers:
                    return None
                self._drain_for(request.seconds)
                return Answer(self._who.name)
            case Verb.CANCEL if request.flow:
                self._roster.cancel_flow(request.flow, request.home)
                return None
            case Verb.CANCEL:
                present = self._roster.cancel(request.task)
            case _:
                present = self._roster.running(request.task, (request.stream, request.sequence))
        return None if present is None else told_of(self._who, present)

    def _answer_as_holder(self, question: Question) -> Answer:
        present = self._roster.holds((question.stream, question.sequence))
        return Answer(self._who.name, None if present is None else _began_at(present))

    def _drain_for(self, seconds: float) -> None:
        """Take no tasks for a while. It expires, so that a worker that is not stopped continues by itself."""
        if self._stop.asked.is_set():
            return
        self._drained_until = time.monotonic() + seconds if seconds > 0 else 0.0
        if seconds > 0:
            self._puller.pause()
        else:
            self._puller.resume()
        self._told.set()

    async def _beat(self, namespace: str, queue: str) -> None:
        while True:
            if self._drained_until and time.monotonic() >= self._drained_until:
                self._drain_for(0.0)
            draining = bool(self._drained_until) or self._stop.asked.is_set()
            slots = self._slots
            beat = Heartbeat(
                self._who.name, slots.concurrency, slots.taken, draining, not draining, slots.done,
                round(slots.busy_seconds, 3), slots.circuit is not None and slots.circuit.is_open, _VERSION,
            )  # fmt: skip
            send_heartbeat(self._broker, namespace, queue, beat)
            self._told.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._told.wait()


_VERSION: Final = version("galley-tasks")


def told_of(who: Who, present: UnderWay) -> Answer:
    """Return what a worker says of an attempt that it has under way."""
    handler = "" if present.held is None else present.held.envelope.handler
    return Answer(who.name, _began_at(present), handler, task_of(present.delivery))


def _began_at(present: UnderWay) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=time.monotonic() - present.began)
