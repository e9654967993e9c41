"""A trial of a fleet: the fleet, tasks for it, and the looks at it that wait."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from galley_operator.fleet.fleet import Fleet, WorkerPhase, WorkerView
from tests.support.eventually import eventually


class Trial(Protocol):
    """A fleet, and what a trial of it needs."""

    @property
    def fleet(self) -> Fleet: ...

    @property
    def slots(self) -> int:
        """Of one worker; at least 2."""
        ...

    @property
    def patience(self) -> float:
        """Seconds within which a worker comes up, confirms a drain, ends, or a task is taken."""
        ...

    async def hold(self) -> None:
        """Submit a task that runs until `release`."""
        ...

    async def release(self) -> None:
        """Let all held tasks end well."""
        ...

    async def ended(self) -> int:
        """Return how many of the held tasks have ended well."""
        ...

    async def kill(self, name: str) -> None:
        """End a worker without warning, as a machine that fails would."""
        ...


class MakeTrial(Protocol):
    """Opens a fleet without workers."""

    def __call__(self, *, broken: bool = False) -> AbstractAsyncContextManager[Trial]: ...


async def ready(trial: Trial, number: int) -> tuple[WorkerView, ...]:
    """Return the workers once so many are there, all of them ready."""

    async def all_ready() -> tuple[WorkerView, ...] | None:
        present = (await trial.fleet.observe()).present
        phases = {worker.phase for worker in present}
        return present if len(present) == number and phases == {WorkerPhase.READY} else None

    present = await eventually(all_ready, within=trial.patience, why=f"{number} workers ready")
    assert present is not None
    return present


async def named(trial: Trial, name: str, condition: Callable[[WorkerView], bool]) -> WorkerView:
    """Return the worker of that name once the condition holds of it."""

    async def found() -> WorkerView | None:
        workers = [worker for worker in (await trial.fleet.observe()).workers if worker.name == name]
        assert len(workers) == 1, f"no worker {name}"
        assert condition(workers[0]), workers[0]
        return workers[0]

    worker = await eventually(found, within=trial.patience, why=f"worker {name} as wanted")
    assert worker is not None
    return worker


async def one(trial: Trial, condition: Callable[[WorkerView], bool]) -> WorkerView:
    """Return the only worker once the condition holds of it."""

    async def found() -> WorkerView | None:
        [worker] = (await trial.fleet.observe()).workers
        assert condition(worker), worker
        return worker

    worker = await eventually(found, within=trial.patience, why="the only worker as wanted")
    assert worker is not None
    return worker


async def all_ended(trial: Trial, number: int) -> None:
    async def enough() -> bool:
        return await trial.ended() == number

    await eventually(enough, within=trial.patience, why=f"{number} tasks ended well")


async def gone(trial: Trial, name: str) -> bool:
    return name not in names_of((await trial.fleet.observe()).workers)


async def busy(trial: Trial, name: str) -> bool:
    return any(worker.name == name and worker.busy for worker in (await trial.fleet.observe()).workers)


async def no_worker(trial: Trial) -> bool:
    return (await trial.fleet.observe()).workers == ()


async def any_ready(trial: Trial) -> bool:
    return any(worker.phase is WorkerPhase.READY for worker in (await trial.fleet.observe()).workers)


def names_of(workers: Iterable[WorkerView]) -> set[str]:
    return {worker.name for worker in workers}
