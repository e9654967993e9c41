"""An exception in any callback of the worker costs one attempt or one look, and the worker goes on.

A callback is a method that is handed to another part (found in the code, so that a new one is tried as well).
In each in turn an exception is raised the first time it is called, in a whole worker over a server in memory.
"""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import pytest
from msgspec import Raw

import galley_worker
from galley.address import TaskAddress
from galley.broker.control import Question, Request, Verb, ask_holder, ask_workers
from galley.broker.errors import BrokerUnreachable
from galley.calls import call
from galley.client import AsyncClient
from galley.record import Failure, Outcome
from galley.resources import Metadata, TaskQueue, TaskQueueSpec
from galley_worker import supervisor
from galley_worker.attempts import Attempts
from galley_worker.ending import Finish, Raised, Returned
from galley_worker.roster import Roster
from galley_worker.runners.execution import Execution, Service
from galley_worker.runners.frames import HandlerRules, Progressed
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import Line, RunnerSettings
from galley_worker.settings import WorkerSettings
from galley_worker.slots import WorkerSlots
from galley_worker.supervisor import Supervisor
from galley_worker.work import Work
from tests.support.builders import an_address
from tests.support.callbacks import Callbacks, Raising
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

ELSEWHERE: Final = {
    "Supervisor.run": "the process itself: it ends, and is started again",
    "Hands.run": "the process itself; what it does with one delivery is Attempts.run and FastPath.begin",
    "Runners._sweep": "its first call is the start; the later ones are Runners._look, below",
    "HealthPages.": "of a page: the request fails; test_health.py",
    "Measures.": "of a page, or within an attempt; test_health.py",
    "Attempts._fenced": "within the settling of an attempt; test_faulty_attempts.py",
    "Attempts._runs_here": "within the settling of a step; test_faulty_attempts.py",
    "Circuit._try": "sets a state, and what it tells is Changes.tell",
    "Fanout._copy_some": "within Feed.run, as Planner._move is",
    "Feed._renew": "the next timer is set first; test_feed.py",
    "Puller._end_hold": "of handlers that are quick; test_puller.py",
    "Runners._told": "of batches; runners/test_batches.py",
    "Batches.": "of batches; runners/test_batches.py",
    "Values.": "within an attempt",
    "ReturnedLarge.": "within an attempt",
    "SigningKeys.": "within an attempt",
}
"""Callbacks that are not tried here, by how their names begin, and why."""

OF_PROCESSES: Final = (
    "galley_worker.runners.child.", "galley_worker.runners.blame", "galley_worker.runners.commands",
    "galley_worker.runners.fork_server", "galley_worker.runners.output", "galley_worker.runners.pool",
    "galley_worker.runners.starter",
)  # fmt: skip
"""Modules of which all is of one handler's process, that is of no use without a real one."""

CALLBACKS: Final = Callbacks(galley_worker)
TRIED: Final = sorted(
    name
    for name, each in CALLBACKS.all.items()
    if not (name.startswith(tuple(ELSEWHERE)) or each.module.startswith(OF_PROCESSES))
)


class Handlers(Runners):
    """Runs nothing: works say something and return after a second; those whose id says so fail first."""

    def __init__(self, settings: RunnerSettings, grown: Callable[[], None]) -> None:
        super().__init__(settings, asyncio.get_running_loop().time, grown)
        self.failed: set[str] = set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.handlers, self.rules = frozenset({"resize"}), {"resize": HandlerRules()}
        self._sweep()
        return self

    def start(self, work: Work) -> Execution:
        execution = Execution(work, Service(), lambda each: each.end(each.because))  # type: ignore[arg-type]
        self._loop.call_soon(self._settings.before_orders)
        self._loop.call_later(0.5, self._say, work)
        ending: Finish = Returned(Raw(b"1"))
        if work.task_id.startswith("fails") and work.task_id not in self.failed:
            self.failed.add(work.task_id)
            ending = Raised(Failure("ValueError", "no"), retryable=True)
        self._loop.call_later(15 if work.task_id == "long" else 1, execution.end, ending)
        return execution

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _say(self, work: Work) -> None:
        self._settings.on_line(Line(work, "stdout", "hello", logging.INFO))
        self._settings.on_report(work, Progressed(0, 0.5, "half"))
        self._grown()


@dataclass
class Stage:
    """A whole worker, and a producer beside it."""

    bench: Bench
    worker: MemoryBroker
    supervisor: Supervisor
    running: "asyncio.Task[None]"

    async def submit(self, name: str, **changes: Any) -> TaskAddress:
        address = an_address(of=self.bench.layout, id=name)
        return await self.bench.submit(address, chosen_id=name.startswith("chosen"), **changes)

    async def ended(self, *addresses: TaskAddress) -> list[Outcome | None]:
        def left() -> list[str]:
            stored = {each.id: self.bench.record(each) for each in addresses}
            return [name for name, each in stored.items() if each is None or not each.record.done]

        try:
            await eventually(lambda: self.running.done() or not left(), within=1_000)
        finally:
            assert not self.running.done(), self.running.exception()
            assert not left()
        return [self.bench.final(each).outcome for each in addresses]


@asynccontextmanager
async def a_worker(monkeypatch: pytest.MonkeyPatch, folder: Path, **spec: Any) -> AsyncIterator[Stage]:
    async with a_bench() as bench:
        given = {"worker": {"modules": ["images"], "concurrency": 2}, **spec}
        queue = TaskQueue(
            metadata=Metadata(name="images", namespace="default"), spec=TaskQueueSpec.model_validate(given)
        )
        settings = WorkerSettings(
            server="nats://memory:4222", queue_manifest=folder / "none", worker="w1", cache=folder / "cache"
        )
        broker = MemoryBroker(bench.server, "w1")
        whole = Supervisor(settings, queue)
        monkeypatch.setattr(supervisor, "Runners", Handlers)
        monkeypatch.setattr(supervisor, "uninterrupted", asyncio.get_running_loop().time)
        monkeypatch.setattr(supervisor, "utc_now", bench.server.now)
        whole._notebook._now = bench.server.now
        monkeypatch.setattr(whole, "_connect", broker.__aenter__)
        running = bench.start(whole.run())
        await asyncio.sleep(1)
        yield Stage(bench, broker, whole, running)
        assert not running.done(), running
        whole.stop()
        await asyncio.wait([running], timeout=200)
        assert running.done()
        running.result()


async def use(stage: Stage) -> None:
    """Have all happen that happens to a worker; all tasks must end well, and the last one is served."""
    bench = stage.bench
    client = AsyncClient.over(bench.producer, "default")
    first = [await stage.submit(name) for name in ("first", "chosen", "fails-1", "fails-2", "fails-3")]
    await client.schedules.create("often", call("images", "resize", width=3), "@every 20s")
    first.append(await stage.submit("planned", not_before=bench.server.now() + timedelta(seconds=20)))
    await asyncio.sleep(5)
    stage.worker.line.cut()
    await asyncio.sleep(5)
    place = "default", "images"
    await ask_workers(bench.producer, *place, Verb.PING, Request(task="direct.first"))
    question = Question(f"GW_{place[0]}_{place[1]}", 1)
    with suppress(BrokerUnreachable):
        await ask_holder(bench.producer, *place, stage.supervisor._who.holder, question)
    long = await stage.submit("long")
    await asyncio.sleep(30)
    assert set(await stage.ended(*first, long)) == {Outcome.SUCCEEDED}
    last = await stage.submit("last")
    assert await stage.ended(last) == [Outcome.SUCCEEDED]
    await eventually(lambda: not bench.in_work, within=600)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """Count what was logged with a traceback, which is what the metric counts."""
    return lambda: sum(one.levelno >= logging.ERROR and bool(one.exc_info) for one in caplog.records)


LIMITED: Final = {
    "limits": {"concurrency": 2, "rate": {"tasks": 10}},
    "circuit": {"failures": 2, "seconds": 5},
    "retry": {"attempts": 3, "backoffSeconds": 1},
}


@pytest.mark.parametrize("name", TRIED)
def test_an_exception_in_a_callback_costs_no_more_than_it_must(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Callable[[], int]
) -> None:
    each = CALLBACKS.all[name]
    cls = getattr(importlib.import_module(each.module), each.owner)
    raising = Raising(cls.__dict__[each.name])
    monkeypatch.setattr(cls, each.name, raising.method)
    use_of_all(raising, monkeypatch, tmp_path)
    if name in CALLBACKS.certain:
        assert raising.times, f"nothing called {name}: try it here, or say in ELSEWHERE where it is tried"
    if raising.times:
        assert said(), "it is logged, and so counted"


@pytest.mark.parametrize("method", ["_look", "start"])
def test_an_exception_in_what_runs_handlers_costs_no_more(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Callable[[], int]
) -> None:
    owner = Runners if method == "_look" else Handlers
    raising = Raising(owner.__dict__[method])
    raising.spared = int(method == "_look")
    monkeypatch.setattr(owner, method, raising.method)
    use_of_all(raising, monkeypatch, tmp_path)
    assert raising.times
    assert said()


def test_an_exception_in_stopping_what_is_left_lets_a_worker_end_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Callable[[], int]
) -> None:
    raising = Raising(Roster.cut)
    monkeypatch.setattr(Roster, "cut", raising.method)

    async def run() -> None:
        async with a_worker(monkeypatch, tmp_path) as stage:
            await stage.submit("long")
            await asyncio.sleep(2)

    in_virtual_time(run)()
    assert raising.times == 1
    assert said()


def test_an_exception_when_a_slot_becomes_free_leaves_it_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Callable[[], int]
) -> None:
    raising = Raising(WorkerSlots.leave)

    def leave(slots: WorkerSlots) -> None:
        raising.original(slots)
        raising.once()

    monkeypatch.setattr(WorkerSlots, "leave", leave)
    use_of_all(raising, monkeypatch, tmp_path)
    assert raising.times
    assert said()


def test_an_exception_at_the_end_of_an_attempt_that_the_fast_path_began_leaves_its_slot_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Callable[[], int]
) -> None:
    raising = Raising(Attempts.resume)

    async def resume(*given: Any) -> None:
        await raising.original(*given)
        raising.once()

    monkeypatch.setattr(Attempts, "resume", resume)
    use_of_all(raising, monkeypatch, tmp_path)
    assert raising.times
    assert said()


def use_of_all(raising: Raising, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Use a worker until something was raised, of a queue without and with limits."""

    async def run(spec: dict[str, Any]) -> None:
        async with a_worker(monkeypatch, folder, **spec) as stage:
            await use(stage)

    in_virtual_time(run)({})
    if not raising.times:
        in_virtual_time(run)(LIMITED)


@pytest.mark.parametrize("spec", [{}, LIMITED], ids=["plain", "limited"])
def test_without_an_exception_nothing_is_logged_with_a_traceback(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: Callable[[], int]
) -> None:
    async def run() -> None:
        async with a_worker(monkeypatch, tmp_path, **spec) as stage:
            await use(stage)

    in_virtual_time(run)()
    assert not said()


def test_what_is_not_tried_here_is_there() -> None:
    assert len(TRIED) > 20
    for start in ELSEWHERE:
        assert any(name.startswith(start) for name in CALLBACKS.all), f"{start} is not needed any more"
