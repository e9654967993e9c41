"""The workers of one queue as processes of this machine."""

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from itertools import count
from types import TracebackType
from typing import Final, Self

from galley.broker.connection import Broker
from galley.broker.control import Heartbeat, Request, Verb, ask_workers, hearing
from galley.faults import Faults
from galley.resources import TaskQueue
from galley_local.seat import Seat
from galley_local.worker_process import WorkerPlace
from galley_operator.errors import FleetRefused
from galley_operator.fleet.fleet import WorkerPhase, Workforce, removable

_GIVEN_UP_AFTER: Final = 3
"""Starts of a worker in a row that fail before nothing else is expected of it."""


class ProcessFleet:
    """A `galley_operator.fleet.fleet.Fleet` of local processes.

    Use it as `async with`: on exit it drains all workers and waits until they are gone; if it is cancelled
    meanwhile, it kills them.
    """

    def __init__(self, broker: Broker, queue: TaskQueue, place: WorkerPlace) -> None:
        self._broker, self._queue, self._place = broker, queue, place
        self._seats: dict[str, Seat] = {}
        self._numbers = count(1)
        self._running = asyncio.TaskGroup()
        self._open = AsyncExitStack()
        self._problem = ""
        self._faults = Faults()

    async def __aenter__(self) -> Self:
        self._write_manifest()
        async with AsyncExitStack() as opening:
            metadata = self._queue.metadata
            await opening.enter_async_context(
                hearing(self._broker, metadata.namespace, metadata.name, self._hear)
            )
            await opening.enter_async_context(self._running)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss()
        await self._open.__aexit__(None, None, None)

    def _write_manifest(self) -> None:
        self._place.manifest.parent.mkdir(parents=True, exist_ok=True)
        self._place.manifest.write_text(self._queue.model_dump_json(by_alias=True, indent=2) + "\n")

    async def change(self, queue: TaskQueue, place: WorkerPlace) -> None:
        """Run the workers of a queue by another manifest from now on: those there are end by their drain."""
        self._queue, self._place = queue, place
        self._write_manifest()
        await self.replace()

    async def replace(self) -> None:
        """Have all workers end by their drain; `scale` starts others.

        Returns once they take nothing more. Of one that does not answer in time this is not known.
        """
        present = list(self._seats.values())  # not those that start meanwhile
        ready = [seat.name for seat in present if seat.view().phase is WorkerPhase.READY]
        grace = self._queue.spec.worker.grace_period_seconds
        self._problem = ""
        try:
            await asyncio.gather(*(self.drain([name], grace) for name in ready))
        finally:  # the signal has them drain as well
            for seat in present:
                seat.remove()

    def dismiss(self) -> None:
        """Drain all workers without waiting for it."""
        for seat in self._seats.values():
            seat.remove()

    async def observe(self) -> Workforce:
        """Return the current workers."""
        problems = (seat.problem for seat in self._seats.values() if seat.view().phase is WorkerPhase.FAILED)
        return Workforce(
            tuple(seat.view() for seat in self._seats.values()), next((each for each in problems if each), "")
        )

    @property
    def problem(self) -> str:
        """Why the last worker that was started did not become ready; empty once one has."""
        return self._problem

    @property
    def stuck(self) -> bool:
        """Whether no worker has become ready, and each was started several times."""
        seats = [seat for seat in self._seats.values() if not seat.removed]
        return bool(seats and self._problem) and all(seat.failures >= _GIVEN_UP_AFTER for seat in seats)

    async def scale(self, workers: int) -> None:
        """Start or drain workers until there are this many.

        Raises:
            FleetRefused: if too few workers can be removed.
        """
        present = [(seat, seat.view()) for seat in self._seats.values() if not seat.removed]
        for _ in range(workers - len(present)):
            self._add()
        surplus = len(present) - workers
        if surplus <= 0:
            return
        going = sorted(
            ((seat, view) for seat, view in present if removable(view)),
            key=lambda each: (each[1].phase is not WorkerPhase.FAILED, -each[1].since.timestamp()),
        )
        if len(going) < surplus:
            raise FleetRefused(self._queue.metadata.name, len(present), workers, len(going))
        for seat, _ in going[:surplus]:
            seat.remove()

    async def drain(self, names: Collection[str], seconds: float) -> None:
        """Tell workers to take no new tasks for this many seconds; 0 ends that."""
        known = tuple(name for name in names if name in self._seats)
        if known:
            metadata = self._queue.metadata
            await ask_workers(
                self._broker,
                metadata.namespace,
                metadata.name,
                Verb.DRAIN,
                Request(workers=known, seconds=seconds),
            )

    def _add(self) -> None:
        spec = self._queue.spec.worker
        name = f"{self._queue.metadata.name}-{next(self._numbers)}"
        seat = Seat(
            name, self._place, self._note, slots=spec.concurrency, grace_seconds=spec.grace_period_seconds
        )
        self._seats[name] = seat
        self._running.create_task(self._occupy(seat), name=f"worker {name}")

    async def _occupy(self, seat: Seat) -> None:
        try:
            await self._faults.keep_running("worker", seat.run)
        finally:
            del self._seats[seat.name]

    def _note(self, problem: str) -> None:
        self._problem = problem

    def _hear(self, beat: Heartbeat) -> None:
        if beat.ready:
            self._problem = ""
        if (seat := self._seats.get(beat.worker)) is not None:
            seat.hear(beat)
