"""One running queue on this machine: its workers, their scaler, and its decisions."""

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import msgspec

from galley.backlog import QueueBacklog, Unknown
from galley.broker.connection import Broker
from galley.broker.control import Supply, answering_supply
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.schedules import wake
from galley.broker.signals import SignalReader
from galley_local.module import file_of
from galley_local.plan import LocalQueue
from galley_local.process_fleet import ProcessFleet
from galley_local.project import Project
from galley_local.warm_start import WarmStarter
from galley_local.worker_process import WorkerPlace
from galley_operator.autoscaler.explain import supply_of
from galley_operator.autoscaler.scaler import Scaler
from galley_operator.autoscaler.signals import ScalingPolicy
from galley_operator.fleet.fleet import Workforce
from galley_operator.queues.scaling_condition import TO_CORRECT, scaling_finding

INSTALL: Final = "local"

_KEPT_MOVES: Final = 1000


@dataclass(frozen=True)
class Move:
    """One change of the number of workers, with its reason."""

    at: datetime
    before: int
    after: int
    reason: str


class QueueRuntime:
    """Use it as `async with`; `run` scales until it is cancelled, and the exit drains the workers."""

    def __init__(  # noqa: PLR0917 - what a queue runs on
        self, broker: Broker, reader: SignalReader, starter: WarmStarter, queue: LocalQueue, project: Project,
        keys: str = "", signing_keys: str = "",
    ) -> None:  # fmt: skip
        """Args: keys, signing_keys: as `GALLEY_KEYS` and `GALLEY_SIGNING_KEYS` have them."""
        self._signing_keys = signing_keys
        self.queue = queue
        self.moves: list[Move] = []
        self._broker, self._reader, self._project, self._keys = broker, reader, project, keys
        self._starter = starter
        namespace, name = queue.name
        self.fleet = ProcessFleet(broker, queue.resource, self._place(queue))
        self._bell = Doorbell(broker, namespace, name)
        self.scaler = Scaler(
            reader, self._bell, _Noting(self), ScalingPolicy.of(queue.resource), queue=queue.name
        )
        self._scaling = False
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Create the streams of the queue and prepare to start workers.

        Raises:
            QueueConflict, BrokerRefused, BrokerUnreachable: if the broker refuses or does not answer.
        """
        await ensure(self._broker, layout_of(self.queue.resource, INSTALL))
        if may_repeat(self.queue):
            await wake(self._broker, *self.queue.name)
        async with AsyncExitStack() as opening:
            await opening.enter_async_context(self._bell)
            await opening.enter_async_context(self.fleet)
            await opening.enter_async_context(answering_supply(self._broker, *self.queue.name, self._supply))
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.__aexit__(None, None, None)

    def _place(self, queue: LocalQueue) -> WorkerPlace:
        namespace, name = queue.name
        return WorkerPlace(
            folder=queue.folder,
            import_paths=queue.import_paths,
            manifest=self._project.manifests / f"{namespace}.{name}.json",
            logs=self._project.logs,
            server=self._broker.server,
            namespace=namespace,
            starter=self._starter,
            keys=self._keys,
            signing_keys=self._signing_keys,
        )

    async def change(self, queue: LocalQueue) -> None:
        """Take over a changed manifest: limits and scaling at once, the rest with workers that replace these.

        Raises:
            QueueConflict, BrokerRefused, BrokerUnreachable: if the broker refuses; the queue stays as it was.
        """
        await ensure(self._broker, layout_of(queue.resource, INSTALL))
        before, self.queue = self.queue.resource.spec, queue
        self.scaler.policy = ScalingPolicy.of(queue.resource)
        now = queue.resource.spec
        scaled_alike = before.model_copy(update={"scaling": now.scaling, "paused": now.paused})
        if scaled_alike != now:
            await self.fleet.change(queue.resource, self._place(queue))
        elif now.paused and not before.paused:
            await self.fleet.replace()  # at once, not when they are idle; the scaler starts none
        self.scaler.wake()

    def finish(self) -> None:
        """Let workers go as soon as nothing waits or runs: no more work is expected."""
        self.scaler.policy = replace(self.scaler.policy, idle_seconds=0.0)
        self.scaler.wake()

    async def replace_workers(self) -> None:
        """Have others take the places of all workers; return once these take nothing more."""
        await self.fleet.replace()
        self.scaler.wake()

    def _supply(self, _namespace: str, _queue: str) -> Supply:
        supply = supply_of(self.fleet.problem, self.scaler, self.queue.resource)
        return msgspec.structs.replace(supply, scaling_problem=self.scaling_problem)

    @property
    def scaling_problem(self) -> str:
        """What is to be corrected while scaling goes on; empty if nothing is."""
        _, reason, message = scaling_finding(self.queue.resource, self.scaler.last, None, "")
        return message if reason in TO_CORRECT else ""

    async def run(self) -> None:
        """Scale the workers to the work."""
        self._scaling = True
        try:
            await self.scaler.run()
        finally:
            self._scaling = False

    async def backlog(self) -> QueueBacklog | Unknown | None:
        """Return the backlog as the scaler last saw it; once it has stopped, the current one."""
        if self._scaling or self.scaler.signals is None:
            return self.scaler.signals.backlog if self.scaler.signals is not None else None
        return await self._reader.read(*self.queue.name)

    @property
    def grace_seconds(self) -> int:
        """Longest time of a drain of its workers."""
        return self.queue.resource.spec.worker.grace_period_seconds

    def note(self, before: int, after: int) -> None:
        """Record a change of the number of workers with the decision that caused it."""
        decision = self.scaler.last
        reason = decision.reason if decision is not None else ""
        if before != after and len(self.moves) < _KEPT_MOVES:
            self.moves.append(Move(datetime.now(UTC), before, after, reason))


def may_repeat(queue: LocalQueue) -> bool:
    """Return whether the code of a queue may have schedules or subscriptions, which only a worker makes.

    By its text: a worker that is started in vain costs little.
    """
    files = (file_of(name, queue.import_paths) for name in queue.resource.spec.worker.modules)
    texts = (file.read_bytes() for file in files if file is not None)
    return any(word in text for text in texts for word in (b"cron", b"subscribe"))


class _Noting:
    """The fleet of a runtime, which records each scaling."""

    def __init__(self, runtime: QueueRuntime) -> None:
        self._runtime = runtime

    async def observe(self) -> Workforce:
        return await self._runtime.fleet.observe()

    async def scale(self, workers: int) -> None:
        before = len((await self._runtime.fleet.observe()).present)
        await self._runtime.fleet.scale(workers)
        self._runtime.note(before, workers)

    async def drain(self, names: Collection[str], seconds: float) -> None:
        await self._runtime.fleet.drain(names, seconds)


async def gone(runtimes: Collection[QueueRuntime]) -> None:
    """Return when no queue has more workers than its minimum."""
    while True:
        forces = [(runtime, await runtime.fleet.observe()) for runtime in runtimes]
        if all(len(force.workers) <= runtime.queue.resource.spec.scaled.fewest for runtime, force in forces):
            return
        await asyncio.sleep(0.1)
