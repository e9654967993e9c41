"""A fleet without processes: shows that the suite can be passed, and serves tests of what drives fleets."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from galley_operator.errors import FleetRefused
from galley_operator.fleet.fleet import WorkerPhase, WorkerView, Workforce, removable


@dataclass
class Member:
    """A worker that exists only here."""

    name: str
    since: datetime
    phase: WorkerPhase = WorkerPhase.STARTING
    tasks: int = 0
    drained_until: float = 0.0


@dataclass
class FleetInMemory:
    """A `Fleet` whose workers come up in the next turn of the loop, and take tasks from `waiting`."""

    slots: int = 2
    broken: bool = False
    members: dict[str, Member] = field(default_factory=dict)
    waiting: int = 0
    ended: int = 0
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    async def observe(self) -> Workforce:
        seen = self._view()
        self._live()
        return seen

    async def scale(self, workers: int) -> None:
        views = self._view().present
        for _ in range(workers - len(views)):
            self._start()
        surplus = len(views) - workers
        free = sorted((w for w in views if removable(w)), key=lambda w: w.since, reverse=True)
        free.sort(key=lambda w: w.phase is not WorkerPhase.FAILED)
        if surplus > len(free):
            raise FleetRefused("imagined", len(views), workers, len(free))
        for view in free[: max(0, surplus)]:
            del self.members[view.name]

    async def drain(self, names: Collection[str], seconds: float) -> None:
        for name in names:
            if name in self.members:
                self.members[name].drained_until = asyncio.get_running_loop().time() + seconds

    def kill(self, name: str) -> None:
        self.waiting += self.members.pop(name).tasks
        self._start()

    def release(self) -> None:
        self.ended += self.waiting + sum(member.tasks for member in self.members.values())
        self.waiting = 0
        for member in self.members.values():
            member.tasks = 0

    def _start(self) -> None:
        name = f"w{next(self.numbers)}"
        self.members[name] = Member(name, datetime.now(UTC))

    def _view(self) -> Workforce:
        views = (
            WorkerView(each.name, each.phase, each.tasks, self.slots, each.since)
            for each in self.members.values()
        )
        return Workforce(tuple(views), "module imagined does not import" if self.broken else "")

    def _live(self) -> None:
        now = asyncio.get_running_loop().time()
        for member in self.members.values():
            if self.broken:
                member.phase = WorkerPhase.FAILED
                continue
            member.phase = WorkerPhase.DRAINING if member.drained_until > now else WorkerPhase.READY
            while member.phase is WorkerPhase.READY and self.waiting and member.tasks < self.slots:
                self.waiting -= 1
                member.tasks += 1


class TrialInMemory:
    """Its trial."""

    patience = 5.0

    def __init__(self, fleet: FleetInMemory) -> None:
        self.fleet = fleet
        self.slots = fleet.slots

    async def hold(self) -> None:
        self.fleet.waiting += 1

    async def release(self) -> None:
        self.fleet.release()

    async def ended(self) -> int:
        return self.fleet.ended

    async def kill(self, name: str) -> None:
        self.fleet.kill(name)


@asynccontextmanager
async def make_trial(*, broken: bool = False) -> AsyncIterator[TrialInMemory]:
    yield TrialInMemory(FleetInMemory(broken=broken))
