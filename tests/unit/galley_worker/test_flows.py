"""Workflows over the server in memory: whatever dies, each step runs, each join fires once, each one ends."""

import asyncio
import itertools
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley import (
    Graph,
    Phase,
    TaskCancelled,
    TaskFailed,
    WorkflowCancelled,
    WorkflowFailed,
    call,
    chain,
    chord,
    group,
    previous,
    record,
    task,
)
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.cancel import Cancelled, cancel_flow
from galley.broker.control import Answer, Request, Verb, answering
from galley.broker.errors import BrokerError
from galley.broker.flow_values import FlowGone, FlowsFull, FlowValues, Place
from galley.broker.flows import Flows
from galley.broker.pull import Pulls
from galley.broker.unique_keys import Keys
from galley.calls import Call
from galley.cli.workflow import drawn
from galley.client import AsyncClient
from galley.envelope import Envelope
from galley.errors import GalleyError, QueueFull
from galley.objects.errors import ObjectMissing, ObjectsFull, ObjectStoreUnavailable
from galley.objects.store import Objects
from galley.record import Failure, Outcome, Record, State
from galley.reference import Reference
from galley.workflow.continuation import Continuation, onward
from galley.workflow.errors import (
    WorkflowConflict,
    WorkflowInvalid,
    WorkflowNotFailed,
    WorkflowNotFound,
    WorkflowsFull,
)
from galley.workflow.plan import START
from galley.workflow.result import StepResult
from galley.workflow.shape import Item
from galley.workflow.state import (
    OnFailure,
    Root,
    Slot,
    Slots,
    decode_slots,
    ended,
    outcome_address,
    with_slot,
)
from galley.workflows import AsyncWorkflow
from galley_worker.attempts import Attempts, Parts
from galley_worker.claim import Held, Who
from galley_worker.claimant import Claimant
from galley_worker.continuation import Continuations
from galley_worker.ending import Continued, Crashed, Raised, Returned
from galley_worker.flows import Workflows
from galley_worker.judge import Rules
from galley_worker.leases import LeaseKeeper
from galley_worker.ledger import Ledger
from galley_worker.measures import Measures
from galley_worker.notebook import Notebook
from galley_worker.presence import told_of
from galley_worker.runners.execution import Execution, Service
from galley_worker.runners.frames import HandlerRules
from galley_worker.settle import Settler
from galley_worker.solitude import Solitude
from galley_worker.under_way import message_of
from galley_worker.uniqueness import Uniqueness
from galley_worker.values import Values, filled
from galley_worker.work import Work
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.one_attempt import run_attempt
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import payloads
from tests.unit.galley_worker.bench import KEEP_SECONDS, POLICY, Bench, Hands, Worker, a_bench

T = TypeVar("T")

LATE: Final = datetime(2030, 1, 1, tzinfo=UTC)
GRAPHS: Final = int(os.environ.get("GALLEY_GRAPHS", "5"))
LEASE: Final = 30.0
PATIENT: Final = replace(POLICY, crashes=20)
"""In a storm a step dies with its worker more often than one that kills it may."""
SEEDS: Final = [int(seed) for seed in os.environ.get("GALLEY_GRAPH_SEEDS", "0 1").split()]
"""Of the storm; `make storm-graphs` runs a big one."""


def step(name: str, **arguments: Any) -> Call[Any]:
    return call("images", name, **arguments)


@task(queue="images")
def shout(value: int) -> int:
    return value


def the_children(kind: str) -> Continuation:
    """Return what the handler `then` returns: for `again` a workflow that does the same once more."""
    if kind == "fail":
        item: Item = chain(step("echo", value=1), step("fail"))
    elif kind == "slow":
        item = chain(step("echo", value=1).options(not_before=LATE), step("echo", value=2))
    elif kind == "large":
        item = group(step("echo", value="x" * 100_000) for _ in range(3))
    elif kind == "again":
        item = chord(group(step("echo", value=n) for n in range(2)), step("then", value="plain"))
    else:
        item = chord(group(step("echo", value=n) for n in range(3)), step("echo", value=previous))
    return Continuation(item, OnFailure.STOP, 3600.0)


@dataclass
class Crew:
    """Workers that die now and then; their handlers return what they were given, or fail."""

    bench: Bench
    chance: random.Random
    dies: float = 0.0
    """The share of attempts in whose midst a worker dies, with all that it has under way."""
    ran: Counter[str] = field(default_factory=Counter)
    """How often the handler of each task ran to its end and was recorded by this crew."""
    measures: list[Measures] = field(default_factory=list)
    """Of each worker there was."""
    number: int = 0
    encrypted: bool = False
    crashes: float = 0.0
    """The share of attempts whose child dies, the first time."""
    crashed: set[str] = field(default_factory=set)
    attempts: list[Attempts] = field(default_factory=list)
    """Of each worker there was."""
    begun: Counter[str] = field(default_factory=Counter)
    """How often the handler of each task began."""
    idle: float = 0.5
    """How often a worker sees that no task waits, so that the next step may run in place of one."""

    async def run(self) -> None:
        """Start one worker after the other, each until it dies."""
        while True:
            self.number += 1
            work = asyncio.create_task(self._one(f"w{self.number}"))
            try:
                await asyncio.wait({work})
                error = None if work.cancelled() else work.exception()
                # A worker whose broker is away when it looks at its queue ends, and the next one begins.
                if error is not None and BaseExceptionGroup("", [error]).split(BrokerError)[1]:
                    raise AssertionError from error
            finally:
                work.cancel()
                await asyncio.wait({work})

    async def _one(self, name: str) -> None:
        bench, clock = self.bench, asyncio.get_running_loop().time
        async with MemoryBroker(bench.server, name, lambda: 0.001 * self.chance.random()) as broker:
            if self.encrypted:
                broker.payloads = payloads()
            ledger, who, now = Ledger(broker), Who(name, name), bench.server.now
            flows = Workflows(broker, "default", "images", ledger, KEEP_SECONDS, now)
            settler = Settler(ledger, who, KEEP_SECONDS, now, flows)
            claimant = Claimant(ledger, settler, who, now, bench.ask, solitude := Solitude())
            leases = LeaseKeeper(broker, clock, LEASE)
            handlers, measures = Handlers(self), Measures("default", "images", lambda: 4, lambda: 0)
            flows.measures = measures
            self.measures.append(measures)
            parts = Parts(
                handlers, claimant, settler, leases, measures,  # type: ignore[arg-type]
                Uniqueness(Keys(broker, now)), Notebook("default", who, now, broker), solitude,
                broker.payloads, flows=flows, clock=clock, now=now,
                continuations=Continuations(broker, ledger, flows, now),
            )  # fmt: skip
            attempts = Attempts(Rules("default", "images", who, PATIENT, 60.0, 120.0), parts)
            attempts.idle = lambda: self.chance.random() < self.idle
            self.attempts.append(attempts)
            hands = Hands()
            async with Pulls(broker, bench.layout, hands) as pulls, asyncio.TaskGroup() as tasks:
                tasks.create_task(leases.run())
                worker = Worker(broker, pulls, hands, ledger, settler, claimant, who, solitude)
                doomed, loop = asyncio.current_task(), asyncio.get_running_loop()
                assert doomed is not None
                while True:
                    tasks.create_task(run_attempt(attempts, await bench.take_any(worker)))
                    # By what it does and not by time: a worker that waits for a lease has nothing to lose.
                    if self.chance.random() < self.dies:
                        loop.call_later(0.02 * self.chance.random(), doomed.cancel)


class Handlers:
    """Return what they were given a moment later, or fail. They die with their worker."""

    def __init__(self, crew: Crew) -> None:
        self.handlers, self.rules = ("echo", "fail", "then"), dict[str, HandlerRules]()
        self._crew, self._worker = crew, asyncio.current_task()

    @staticmethod
    def quick(_handler: str) -> bool:
        return True

    def start(self, work: Work) -> Execution:
        loop = asyncio.get_running_loop()
        self._crew.begun[work.task_id] += 1
        execution = Execution(work, Service(), self._stop)
        loop.call_later(0.01 * self._crew.chance.random(), self._end, execution)
        return execution

    def _end(self, execution: Execution) -> None:
        assert self._worker is not None
        if execution.ending.done() or self._worker.cancelling() or self._worker.done():
            return
        work = execution.work
        if work.task_id not in self._crew.crashed and self._crew.chance.random() < self._crew.crashes:
            self._crew.crashed.add(work.task_id)
            execution.end(Crashed("signal 9 (SIGKILL)"))
            return
        self._crew.ran[work.task_id] += 1
        value = msgspec.json.decode(work.input).get("value")
        if work.handler == "then":
            execution.end(Continued(onward(the_children(value))))
            return
        failed = Raised(Failure("NonRetryable", "no luck"), retryable=False)
        execution.end(failed if work.handler == "fail" else Returned(Raw(msgspec.json.encode(value))))

    @staticmethod
    def _stop(execution: Execution) -> None:
        assert execution.because is not None
        execution.end(execution.because)


def joins_fired(server: MemoryServer) -> Counter[str]:
    """Return how often each join became complete, as the history has it."""
    written = (each for each in server.log if each.what == "stored" and ".join." in each.subject)
    return Counter(
        each.subject for each in written if None not in decode_slots(record.decode(each.body).result)
    )


async def broken(server: MemoryServer, chance: random.Random) -> None:
    """Kill the broker now and then, and start it again."""
    while True:
        await asyncio.sleep(chance.expovariate(0.1))
        server.kill()
        await asyncio.sleep(chance.random())
        server.start()


async def insisted(ask: Callable[[], Awaitable[T]]) -> T:
    """Return an answer, asking again while the broker is away or the queue is full."""
    while True:
        try:
            return await ask()
        except (BrokerError, QueueFull, WorkflowsFull):
            await asyncio.sleep(1)


@dataclass
class Stage:
    bench: Bench
    client: AsyncClient
    crew: Crew

    async def submit(self, item: Item, **rules: Any) -> AsyncWorkflow[Any]:
        return await self.client.workflows.submit(item, **rules)

    def records(self) -> Counter[str]:
        """Return how many records each workflow has, those of its steps and its own."""
        stream = self.bench.server.streams[topology.records_stream("default", "images")]
        return Counter(subject.split("flow_")[1].split("_")[0] for subject in stream.subjects(">"))


@asynccontextmanager
async def a_stage(seed: int = 0, dies: float = 0.0, crews: int = 2) -> AsyncIterator[Stage]:
    async with a_bench() as bench:
        crew = Crew(bench, random.Random(seed), dies)
        for _ in range(crews):
            bench.start(crew.run())
        yield Stage(bench, AsyncClient.over(bench.producer, "default"), crew)


@in_virtual_time
async def test_results_flow_through_chains_groups_and_graphs() -> None:
    async with a_stage() as stage:
        graph = Graph()
        left = graph.add("left", step("echo", value={"size": [1, 2]}))
        right = graph.add("right", chain(step("echo", value=3), step("echo", value=previous)))
        graph.add("both", step("echo", value=left["size"][1]), after=[right])
        graph.add("alone", group(step("echo", value=n) for n in range(3)))
        made = await stage.submit(graph)
        wide = await stage.submit(
            chord(group(step("echo", value=n) for n in range(230)), step("echo", value=previous))
        )

        assert await made.result(within=100) == {"both": 2, "alone": [0, 1, 2]}
        assert await wide.result(within=100) == list(range(230))
        assert (await wide.status()).progress == "231 of 231"


@in_virtual_time
async def test_a_failure_stops_goes_on_or_is_collected() -> None:
    async with a_stage() as stage:
        item = group(step("fail"), chain(step("echo", value=1), step("echo", value=2)))
        stopped = await stage.submit(chain(item, step("echo", value=previous)))
        going = await stage.submit(chain(item, step("echo", value=previous)), on_failure="continue")
        collected = await stage.submit(chain(item, step("echo", value=previous)), on_failure="collect")

        for failed in (stopped, going):
            with pytest.raises(WorkflowFailed, match="step fail: NonRetryable: no luck"):
                await failed.result(within=100)
        status = await going.status()
        assert (status.succeeded, status.failed, status.skipped) == (2, 1, 1)
        ended = await stopped.status()
        never = [each.name for each in await stopped.steps() if each.state == "Skipped"]
        assert (ended.progress, ended.skipped) == ("4 of 4", len(never))
        error = {"error": {"step": "fail", "reason": "NonRetryable", "message": "no luck"}}
        assert await collected.result(within=100) == [error, 2]


@in_virtual_time
async def test_a_task_ends_as_the_workflow_that_took_its_place() -> None:
    async with a_stage() as stage:
        task = await stage.client.submit(step("then", value="plain"))
        assert await task.result(within=100) == [0, 1, 2]
        nested = await stage.submit(chain(step("then", value="again"), step("echo", value=previous)))
        assert await nested.result(within=100) == [0, 1, 2]

        failing = await stage.client.submit(step("then", value="fail"))
        with pytest.raises(TaskFailed, match="step fail: NonRetryable: no luck"):
            await failing.result(within=100)
        assert (await failing.status()).failure is not None
        assert all(count == 1 for count in stage.crew.ran.values())


def of_results(monkeypatch: pytest.MonkeyPatch, errors: Iterator[GalleyError]) -> None:
    """Have the next errors be what a task gets that is to refer to the result of its workflow."""
    refer = Objects.refer

    async def fail(objects: Objects, address: TaskAddress, reference: Reference, role: str) -> bool:
        error = next(errors, None)
        if error is not None:
            raise error
        return await refer(objects, address, reference, role)

    monkeypatch.setattr(Objects, "refer", fail)


@in_virtual_time
async def test_a_task_waits_for_the_object_store_that_has_the_result_of_its_workflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_stage() as stage:
        of_results(monkeypatch, iter([ObjectStoreUnavailable("nats", "answer", "no leader")] * 3))
        task = await stage.client.submit(step("then", value="large"))
        assert await task.result(within=300) == ["x" * 100_000] * 3


@in_virtual_time
async def test_a_task_whose_workflow_has_a_result_that_it_cannot_have_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_stage() as stage:
        of_results(monkeypatch, iter([ObjectsFull("images", 300_000)]))
        task = await stage.client.submit(step("then", value="large"))
        with pytest.raises(TaskFailed, match=r"ObjectsFull.* have no room for 300000 bytes"):
            await task.result(within=300)


@in_virtual_time
async def test_a_workflow_whose_result_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> Record:
        raise ObjectMissing("object 1", "nats")

    monkeypatch.setattr(Values, "result", lost)
    async with a_stage() as stage:
        flow = await stage.submit(group(step("echo", value=n) for n in range(2)))
        with pytest.raises(WorkflowFailed, match=r"could not be made: object 1 is not in object store nats"):
            await flow.result(within=100)


@in_virtual_time
@pytest.mark.parametrize("lost", [False, True], ids=["drains", "loses its lease"])
async def test_a_task_whose_workflow_has_ended_is_handed_back_if_its_worker(
    monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    claim, cut = Attempts._claim, list[str]()

    async def claim_and_cut(attempts: Attempts, held: Held, *, step: bool) -> tuple[Failure | None, bool]:
        claimed = await claim(attempts, held, step=step)
        if held.flags.awaits and not cut:
            cut.append(held.delivery.address.id)
            if lost:
                attempts.roster._lose(message_of(held.delivery))
            else:
                attempts.roster.cut("its worker drains")
        return claimed

    monkeypatch.setattr(Attempts, "_claim", claim_and_cut)
    async with a_stage() as stage:
        task = await stage.client.submit(step("then", value="plain"))
        assert await task.result(within=100) == [0, 1, 2]
        assert cut == [task.id]
        assert stage.crew.ran[task.id] == 1
        status = await task.status()
        assert (status.attempt, status.history.preemptions) == (1, 1)


@in_virtual_time
async def test_a_workflow_that_finds_no_room_is_refused_with_figures() -> None:
    """Others may fill it after it was looked at, which is a second ago at most."""
    async with a_stage() as stage:
        item = chain(step("echo", value=1), step("echo", value=previous))
        await (await stage.submit(item)).result(within=100)
        stream = stage.bench.server.streams[topology.flow_stream("default", "images")]
        room, used = stream.definition["max_bytes"], stream.bytes
        stage.client.workflows._room_seen["images"] = asyncio.get_running_loop().time()
        stream.definition["max_bytes"] = used + 1
        with pytest.raises(WorkflowsFull) as told:
            await stage.submit(item)
        assert (told.value.used, told.value.limit) == (used, used + 1)
        stream.definition["max_bytes"] = room
        assert await (await stage.submit(item)).result(within=100) == 1


@in_virtual_time
async def test_cancelling_a_task_cancels_the_workflow_that_took_its_place() -> None:
    async with a_stage() as stage:
        task = await stage.client.submit(step("then", value="slow"))

        async def begun() -> bool:
            return any(status.steps for status in await stage.client.workflows.list("images"))

        await eventually(begun, within=100)
        await task.cancel()
        (status,) = await stage.client.workflows.list("images")
        assert status.phase == "Cancelled"
        assert (await task.status()).phase == "Cancelled"


@in_virtual_time
async def test_what_aged_out_while_it_was_cancelled_is_told_as_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def gone(*_: Any) -> None:
        raise FlowGone

    async with a_stage() as stage:
        task = await stage.client.submit(step("then", value="slow"))

        async def begun() -> bool:
            return any(status.steps for status in await stage.client.workflows.list("images"))

        await eventually(begun, within=100)
        slow = chain(step("echo", value=1).options(not_before=LATE), step("echo", value=2))
        workflow = await stage.submit(slow)
        monkeypatch.setattr(Flows, "change_root", gone)
        assert await workflow.cancel() is Cancelled.TOO_LATE
        await task.cancel()
        assert (await task.status()).phase == "Cancelled"


@in_virtual_time
async def test_a_task_whose_workflow_is_cancelled_is_cancelled() -> None:
    async with a_stage() as stage:
        task = await stage.client.submit(step("then", value="slow"))

        async def begun() -> bool:
            return bool(await stage.client.workflows.list("images"))

        await eventually(begun, within=100)
        (status,) = await stage.client.workflows.list("images")
        await stage.client.workflows.get("images", status.id).cancel()
        with pytest.raises(TaskCancelled, match="was cancelled"):
            await task.result(within=1000)


@in_virtual_time
async def test_a_task_whose_workflow_goes_on_waits_for_it_while_its_queue_has_no_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_stage() as stage:
        task = await stage.client.submit(step("then", value="slow"))

        async def begun() -> bool:
            return bool(await stage.client.workflows.list("images"))

        await eventually(begun, within=100)
        later = stage.bench.server.streams[topology.later_stream("default", "images")].definition
        room, later["max_bytes"] = later.get("max_bytes", -1), 1
        await eventually(
            lambda: "no room in the queue, the task is kept and tried again" in caplog.messages, within=1000
        )
        later["max_bytes"] = room
        (status,) = await stage.client.workflows.list("images")
        assert status.phase == "Running"
        await stage.client.workflows.get("images", status.id).cancel()
        with pytest.raises(TaskCancelled, match="was cancelled"):
            await task.result(within=1000)


@in_virtual_time
@pytest.mark.parametrize("seed", range(1))
async def test_a_storm_over_tasks_that_a_workflow_takes_the_place_of(seed: int) -> None:
    async with a_stage(seed, dies=0.2, crews=3) as stage:
        tasks = [await stage.client.submit(step("then", value="again")) for _ in range(max(4, GRAPHS // 10))]
        for task in tasks:
            assert await task.result(within=100_000) == [0, 1, 2]
        # One workflow for each handler that returned one, however often a worker died.
        assert len(await stage.client.workflows.list("images")) == 2 * len(tasks)
        assert stage.crew.number > 3


@in_virtual_time
async def test_a_redrive_runs_what_did_not_succeed_and_nothing_else() -> None:
    async with a_stage() as stage:
        flow = await stage.submit(chain(step("echo", value=1), step("fail"), step("echo", value=previous)))
        with pytest.raises(WorkflowFailed):
            await flow.result(within=100)
        first = set(stage.crew.ran)

        again = await flow.redrive()

        with pytest.raises(WorkflowFailed):
            await again.result(within=100)
        assert (await flow.redrive()).id == again.id
        assert {each.rpartition("_")[2] for each in set(stage.crew.ran) - first} == {"1"}
        done = await stage.submit(step("echo", value=1))
        await done.result(within=100)
        with pytest.raises(WorkflowNotFailed, match="succeeded"):
            await done.redrive()


@in_virtual_time
async def test_a_workflow_is_drawn_with_what_comes_before_each_step() -> None:
    async with a_stage() as stage:
        flow = await stage.submit(
            chain(group(step("echo", value=1), step("fail")), step("echo", value=previous))
        )
        with pytest.raises(WorkflowFailed):
            await flow.result(within=100)
        await asyncio.sleep(1)

        assert list(drawn(await flow.steps())) == [
            "  + echo  Succeeded",
            "  x fail  Failed",
            "  ~   echo-2  Skipped  after echo, fail",
        ]
        [listed] = await stage.client.workflows.list("images")
        assert (listed.id, listed.phase, listed.failed_step) == (flow.id, "Failed", "fail")


@in_virtual_time
async def test_workflows_and_joins_are_counted_by_who_ended_them() -> None:
    async with a_stage() as stage:
        wide = await stage.submit(
            chord(group(step("echo", value=n) for n in range(3)), step("echo", value=previous))
        )
        await wide.result(within=100)
        bad = await stage.submit(chain(step("echo", value=1), step("fail")))
        with pytest.raises(WorkflowFailed):
            await bad.result(within=100)
        await asyncio.sleep(1)  # the worker has the answer to its last write
        texts = [each.text().decode() for each in stage.crew.measures]
        counted = Counter[tuple[str, str]]()
        for name, labels, value in re.findall(r"^(galley_\w+){(.*)} (\S+)$", "\n".join(texts), re.MULTILINE):
            counted[name, "".join(re.findall('outcome="([^"]*)"', labels))] += int(float(value))
        assert [counted["galley_joins_total", ""]] == [1]
        for outcome in ("succeeded", "failed"):
            assert counted["galley_workflows_ended_total", outcome] == 1
            assert counted["galley_workflow_seconds_count", outcome] == 1


@in_virtual_time
async def test_a_step_that_runs_is_shown_as_running() -> None:
    async with a_stage() as stage:
        stage.crew.idle = 0.0  # who runs a step in place is asked, which this crew does not answer
        flow = await stage.submit(chain(step("echo", value=1), step("echo", value=previous)))
        seen = set[tuple[str, ...]]()
        while (await flow.status()).ended_at is None:
            seen.add(tuple(each.state for each in await flow.steps()))
            await asyncio.sleep(0.0005)  # time passes only while nothing is asked
        order = [("Running", "Waiting"), ("Succeeded", "Running")]
        assert seen >= set(order)
        assert not any(states[1] == "Running" and states[0] != "Succeeded" for states in seen)


def published(stage: Stage, flow: AsyncWorkflow[Any]) -> list[str]:
    """Return the steps of a workflow that were stored as messages, in this order."""
    stored = (each.subject for each in stage.bench.seen("stored") if each.subject.startswith("galley.task."))
    return [subject.rpartition("_")[2] for subject in stored if f"flow_{flow.id}_" in subject]


@in_virtual_time
async def test_a_step_that_runs_in_place_is_shown_with_its_handler() -> None:
    async def answer(_verb: Verb, request: Request) -> Answer | None:
        message = request.stream, request.sequence
        found = (each.roster.running(request.task, message) for each in stage.crew.attempts)
        return next((told_of(Who("w", "w"), each) for each in found if each is not None), None)

    async with a_stage() as stage, answering(stage.bench.producer, "default", "images", answer):
        stage.crew.idle = 1.0
        seen, listed = set[tuple[Phase, str, str]](), set[tuple[Phase, str, str]]()
        for _ in range(20):  # it takes up to ten milliseconds, and so may asking
            flow = await stage.submit(chain(step("echo", value=1), step("echo", value=previous)))
            while not stage.crew.begun[second := f"flow_{flow.id}_1"]:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.0005)
            status = await stage.client.handle("images", second).status()
            seen.add((status.phase, status.handler, status.worker))
            found = [each for each in await stage.client.tasks("images") if each.address.id == second]
            listed |= {(each.phase, each.handler, each.worker) for each in found}
            await flow.result(within=100)
            assert published(stage, flow) == ["0"]
        assert (Phase.RUNNING, "echo", "w") in seen
        assert (Phase.RUNNING, "echo", "w") in listed


@in_virtual_time
async def test_a_chain_runs_under_one_message_while_no_task_waits() -> None:
    async with a_stage() as stage:
        stage.crew.idle = 1.0
        flow = await stage.submit(chain(step("echo", value=7), *[step("echo", value=previous)] * 4))
        assert await flow.result(within=100) == 7
        assert published(stage, flow) == ["0"]
        assert (await flow.status()).progress == "5 of 5"
        assert stage.records() == {flow.id: 6}
        await asyncio.sleep(60)
        assert len(stage.bench.server.streams[topology.work_stream("default", "images")].subjects(">")) == 0

        stage.crew.idle = 0.0
        flow = await stage.submit(chain(*[step("echo", value=7)] * 3))
        await flow.result(within=100)
        assert published(stage, flow) == ["0", "1", "2"]


@in_virtual_time
async def test_a_chain_whose_steps_run_in_place_goes_on_after_deaths() -> None:
    async with a_stage(dies=0.5) as stage:
        stage.crew.idle = 1.0
        flows = [await stage.submit(chain(*[step("echo", value=n)] * 20)) for n in range(10)]
        for number, flow in enumerate(flows):
            assert await flow.result(within=100_000) == number
        assert stage.records() == {flow.id: 21 for flow in flows}
        assert stage.crew.number > 4


@in_virtual_time
async def test_no_step_begins_in_place_after_a_cancellation() -> None:
    async with a_stage() as stage:
        stage.crew.idle, late, flows = 1.0, 0, Flows(stage.bench.producer)
        for _ in range(12):
            flow, before = await stage.submit(chain(*[step("echo", value=1)] * 50)), stage.crew.ran.total()

            async def ran_some(before: int = before) -> bool:
                return stage.crew.ran.total() > before + 2

            await eventually(ran_some, within=100)
            place = Place("default", "images", flow.id)
            root = await flows.root(place)
            assert root is not None
            await cancel_flow(stage.bench.producer, flows, place, root)
            begun = stage.crew.begun.total()
            await asyncio.sleep(60)
            late += stage.crew.begun.total() - begun
            assert published(stage, flow) == ["0"]
        assert late <= 4  # those whose mark was written before, and whose worker did not know yet


@in_virtual_time
async def test_a_step_that_was_cancelled_does_not_run_in_place() -> None:
    async with a_stage() as stage:
        stage.crew.idle = 1.0

        async def started() -> bool:
            return len(stage.crew.attempts) == 2

        await eventually(started, within=10)
        for attempts in stage.crew.attempts:
            attempts.roster.cancel("sdk.flow_mine_1")
        flow = await stage.submit(chain(*[step("echo", value=1)] * 3), id="mine")
        with pytest.raises(WorkflowFailed, match="Cancelled"):
            await flow.result(within=1000)
        assert dict(stage.crew.ran) == {"flow_mine_0": 1}
        assert published(stage, flow) == ["0", "1"]


@in_virtual_time
async def test_a_worker_whose_lease_has_ended_leaves_a_step_that_it_finds_ended() -> None:
    async with a_stage(crews=0) as stage:
        flow = await stage.submit(chain(*[step("echo", value=1)] * 2))
        bench = stage.bench
        async with MemoryBroker(bench.server, "late") as broker:
            ledger, who, now = Ledger(broker), Who("late", "late"), bench.server.now
            flows = Workflows(broker, "default", "images", ledger, KEEP_SECONDS, now)
            settler = Settler(ledger, who, KEEP_SECONDS, now, flows)
            claimant = Claimant(ledger, settler, who, now, bench.ask, solitude := Solitude())
            hands = Hands()
            async with Pulls(broker, bench.layout, hands) as pulls:
                worker = Worker(broker, pulls, hands, ledger, settler, claimant, who, solitude)
                delivery = await bench.take_any(worker)
                final = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, result=Raw(b"1"), ended_at=now())
                lost = {True}
                settler.fenced = lambda _delivery: bool(lost)
                await settler.finish(delivery, final)
                assert published(stage, flow) == ["0"]
                lost.clear()
                await settler.finish(delivery, final)
                assert published(stage, flow) == ["0", "1"]


@in_virtual_time
async def test_a_worker_that_comes_too_late_does_not_make_a_join_fire_again() -> None:
    async with a_stage(crews=0) as stage:
        bench = stage.bench
        flow = await stage.submit(
            chord(group(step("echo", value=n) for n in range(2)), step("echo", value=0))
        )
        place = Place("default", "images", flow.id)
        async with MemoryBroker(bench.server, "late") as broker:
            late = Workflows(broker, "default", "images", Ledger(broker), KEEP_SECONDS, bench.server.now)
            await late.start(place.address(4), Envelope(START, bench.server.now()))
            bench.start(stage.crew.run())
            assert await flow.result(within=100) == 0
            await asyncio.sleep(10)
            # It wrote both records, and was frozen; others did what follows, and the workflow ended.
            final = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, result=Raw(b"1"))
            final = replace(final, ended_at=bench.server.now())
            await asyncio.gather(*(late.settled(place.address(number), None, final) for number in range(2)))
            await asyncio.sleep(60)
        assert set(joins_fired(bench.server).values()) == {1}
        assert sorted(published(stage, flow)) == ["0", "1", "2", "4"]
        kept = bench.server.streams[topology.flow_stream("default", "images")].subjects(">")
        assert list(kept) == [place.root]


@in_virtual_time
async def test_a_join_that_is_removed_while_a_worker_looks_at_it_is_not_waited_for() -> None:
    async with a_stage(crews=0) as stage, MemoryBroker(stage.bench.server, "late") as broker:
        flow = await stage.submit(
            chord(group(step("echo", value=n) for n in range(2)), step("echo", value=0))
        )
        place, others = Place("default", "images", flow.id), Flows(stage.bench.producer)
        now = stage.bench.server.now()

        class Frozen(FlowValues):
            """Between the refusal of its write and its look, the workflow ends."""

            async def read(self, stream: str, subject: str) -> tuple[bytes, int] | None:
                await others.change_root(place, 100, lambda root: ended(root, Outcome.SUCCEEDED, now, ""))
                await others.forget_parts(place)
                return await super().read(stream, subject)

        late = Flows(broker)
        await late.change_join(place, 3, 2, 100, lambda slots: with_slot(slots, 0, Slot()))
        await others.change_join(place, 3, 2, 100, lambda slots: with_slot(slots, 1, Slot()))
        frozen = Frozen(broker)
        frozen._known = late._values._known
        late._values = frozen
        with pytest.raises(FlowGone):
            async with asyncio.timeout(600):
                await late.change_join(place, 3, 2, 100, lambda slots: with_slot(slots, 1, Slot()))


@in_virtual_time
async def test_nothing_of_an_encrypted_workflow_is_stored_in_the_clear() -> None:
    async with a_bench() as bench:
        stream = bench.server.streams[topology.work_stream("default", "images")]
        stream.definition["metadata"][topology.ENCRYPTION_KEY] = topology.ENCRYPTED
        bench.producer.payloads = payloads()
        crew = Crew(bench, random.Random(1), encrypted=True)
        bench.start(crew.run())
        stage = Stage(bench, AsyncClient.over(bench.producer, "default"), crew)
        members = group(step("echo", value=f"card-{n}") for n in range(3))
        flow = await stage.submit(chord(members, step("echo", value=previous)))

        assert await flow.result(within=100) == ["card-0", "card-1", "card-2"]
        stored = [seen.body for seen in bench.seen("stored")]
        assert len(stored) > 10
        assert [seen.subject for seen in bench.seen("stored") if b"card-" in seen.body] == []


@in_virtual_time
async def test_after_a_cancellation_no_step_begins_and_there_is_one_end() -> None:
    async with a_stage() as stage:
        flow = await stage.submit(
            chord(group(step("echo", value=n) for n in range(40)), step("echo", value=previous))
        )
        await asyncio.sleep(0.05)

        assert await flow.cancel() is Cancelled.RUNNING
        begun = sum(stage.crew.ran.values())

        with pytest.raises(WorkflowCancelled):
            await flow.result(within=100)
        await asyncio.sleep(30)
        assert sum(stage.crew.ran.values()) - begun <= 40  # those whose look came before
        assert await flow.cancel() is Cancelled.TOO_LATE
        assert (await flow.status()).phase == "Cancelled"
        assert not any(each.endswith("_40") for each in stage.crew.ran)


@in_virtual_time
async def test_a_step_that_waited_while_its_workflow_ended_does_not_run() -> None:
    async with a_stage(crews=0) as stage:
        flow = await stage.submit(chain(step("echo", value=1), step("echo", value=2)))
        assert await flow.cancel() is not Cancelled.TOO_LATE
        stage.bench.start(stage.crew.run())
        await asyncio.sleep(30)
        assert (stage.bench.in_work, dict(stage.crew.ran)) == (0, {})


@in_virtual_time
async def test_after_a_failure_the_other_steps_are_stopped() -> None:
    stopped: list[tuple[Verb, str]] = []

    async def stop(verb: Verb, request: Request) -> None:
        stopped.append((verb, request.flow))

    async with a_stage() as stage, answering(stage.bench.producer, "default", "images", stop):
        others = chain(*(step("echo", value=n) for n in range(20)))
        flow = await stage.submit(group(step("fail"), others))
        with pytest.raises(WorkflowFailed, match="no luck"):
            await flow.result(within=100)
        await asyncio.sleep(30)
        assert 0 < len(stage.crew.ran) < 15
        assert stopped == [(Verb.CANCEL, flow.id)]


@in_virtual_time
async def test_a_member_that_is_cancelled_by_hand_ends_the_workflow() -> None:
    async with a_stage(crews=0) as stage:
        flow = await stage.submit(chain(step("echo", value=1), step("echo", value=previous)))
        member = stage.client.handle("images", (await flow.steps())[0].task_id)
        await member.cancel()
        stage.bench.start(stage.crew.run())

        with pytest.raises(WorkflowFailed, match="Cancelled"):
            await flow.result(within=100)


@in_virtual_time
async def test_a_member_that_is_cancelled_by_hand_stops_the_others() -> None:
    async with a_stage(crews=0) as stage:
        others = chain(*(step("echo", value=n) for n in range(20)))
        flow = await stage.submit(group(step("echo", value=1), others))
        beginning = stage.bench.start(stage.crew.run())
        member = stage.client.handle("images", (await flow.steps())[0].task_id)
        # Its task is there, and the worker dies before it has claimed it.
        await eventually(lambda: stage.bench.in_work > 1, within=30)
        beginning.cancel()
        assert await member.cancel() is not Cancelled.TOO_LATE
        await asyncio.sleep(2 * LEASE)
        stage.bench.start(stage.crew.run())
        with pytest.raises(WorkflowFailed, match="Cancelled"):
            await flow.result(within=1000)
        await asyncio.sleep(30)
        assert len(stage.crew.ran) < 15


@in_virtual_time
async def test_the_root_of_a_workflow_says_the_end_that_its_record_says() -> None:
    async with a_stage(crews=0) as stage:
        flow = await stage.submit(chain(step("fail"), step("echo")))
        # One who cancels it writes the record first, and dies.
        cancelled = Record(State.DONE, 1, outcome=Outcome.CANCELLED)
        stage.bench.put(outcome_address("default", "images", flow.id), cancelled)
        stage.bench.start(stage.crew.run())
        await asyncio.sleep(30)
        root = await stage.client.workflows.root_of(Place("default", "images", flow.id))
        assert root.ended is Outcome.CANCELLED


@in_virtual_time
async def test_arrivals_at_one_moment_are_all_stored_or_all_hear_that_there_is_no_room() -> None:
    async with a_bench() as bench:
        stream = bench.server.streams[topology.flow_stream("default", "images")]
        flows = Flows(bench.producer)
        for name in ("one", "two"):
            place, now = Place("default", "images", name), bench.server.now()
            root = Root(name, 3, 4, (0,), 0, 3, now, now + timedelta(days=1), marks="...")
            assert await flows.create(place, root, 60)

        def arrive(flow: str, at: int) -> Coroutine[Any, Any, Slots]:
            place, slot = Place("default", "images", flow), Slot(task=f"t{at}")
            return flows.change_join(place, 0, 3, 60, lambda slots: with_slot(slots, at, slot))

        await asyncio.gather(*(arrive("one", at) for at in range(3)))
        slots = await Flows(bench.producer).join(Place("default", "images", "one"), 0)
        assert slots == (Slot(task="t0"), Slot(task="t1"), Slot(task="t2"))

        stream.definition |= {"discard": "new", "max_bytes": 1}
        came = await asyncio.gather(*(arrive("two", at) for at in range(3)), return_exceptions=True)
        assert [type(each) for each in came] == [FlowsFull] * 3


@in_virtual_time
async def test_what_follows_waits_for_room_and_then_happens_once() -> None:
    async with a_stage() as stage:
        stream = stage.bench.server.streams[topology.flow_stream("default", "images")]
        work = stage.bench.server.streams[topology.work_stream("default", "images")]
        item = chord(group(step("echo", value=n) for n in range(3)), step("echo", value=previous))
        flow = await stage.submit(item)
        task = await stage.client.submit(step("then", value="plain"))
        room = dict(stream.definition)
        stream.definition |= {"discard": "new", "max_bytes": 1}
        await asyncio.sleep(60)
        assert work.subjects(">"), "what could not be stored keeps its message"
        assert not joins_fired(stage.bench.server)
        stream.definition = room
        assert await flow.result(within=300) == [0, 1, 2]
        assert await task.result(within=300) == [0, 1, 2]
        steps = [each for each in stage.crew.ran if each.startswith("flow_")]
        assert [stage.crew.ran[each] for each in steps] == [1] * len(steps)


@in_virtual_time
async def test_a_workflow_for_which_there_is_no_room_is_refused_with_what_to_raise() -> None:
    async with a_stage() as stage:
        stream = stage.bench.server.streams[topology.flow_stream("default", "images")]
        stream.definition |= {"discard": "new", "max_bytes": 1}
        with pytest.raises(WorkflowsFull, match=r"(?s)images.*workflowBytes"):
            await stage.submit(group(step("echo", value=n) for n in range(2)))


@in_virtual_time
async def test_of_a_workflow_whose_plan_is_gone_there_are_no_steps_and_it_can_be_cancelled() -> None:
    async with a_stage(crews=0) as stage:
        flow = await stage.submit(group(step("echo", value=n) for n in range(2)))
        stream = stage.bench.server.streams[topology.flow_stream("default", "images")]
        [plan] = [each.sequence for each in stream.messages.values() if ".plan." in each.subject]
        stream.remove(plan)
        assert (await flow.status()).progress == "0 of 2"
        with pytest.raises(WorkflowNotFound):
            await flow.steps()
        assert await flow.cancel() is Cancelled.RUNNING


@in_virtual_time
async def test_a_workflow_begins_once_its_queue_has_room_for_its_first_steps() -> None:
    async with a_stage(crews=0) as stage:
        flow = await stage.submit(group(step("echo", value=n) for n in range(2)))
        streams = [
            stage.bench.server.streams[name("default", "images")]
            for name in (topology.work_stream, topology.later_stream)
        ]
        room = [dict(each.definition) for each in streams]
        for each in streams:
            each.definition |= {"discard": "new", "max_bytes": 1, "max_msgs": 1}
        stage.bench.start(stage.crew.run())
        await asyncio.sleep(30)
        assert (stage.bench.in_work, stage.crew.ran) == (1, {}), "the message it begins with"
        for each, definition in zip(streams, room, strict=True):
            each.definition = definition
        assert await flow.result(within=300) == [0, 1]


@in_virtual_time
async def test_a_part_of_a_result_that_is_missing_fails_the_step_with_a_reason() -> None:
    async with a_stage() as stage:
        flow = await stage.submit(chain(step("echo", value=1), step("echo", value=previous["size"])))
        with pytest.raises(WorkflowFailed, match=r"StepInvalid.*no part"):
            await flow.result(within=100)


@in_virtual_time
async def test_a_step_that_is_given_too_much_fails_before_it_is_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A manifest of 1 MiB can ask for 64 MiB thousands of times, in the process that runs all tasks."""
    made: list[int] = []

    def counted(template: Raw, given: dict[str, bytes]) -> bytes:
        made.append(sum(map(len, given.values())))
        return filled(template, given)

    monkeypatch.setattr("galley_worker.values.filled", counted)
    async with a_stage() as stage:
        graph = Graph()
        large = graph.add("large", step("echo", value="x" * 200_000))
        graph.add("few", step("echo", **{f"a{n}": large for n in range(3)}))
        graph.add("many", step("echo", **{f"a{n}": large for n in range(400)}))
        flow = await stage.submit(graph)
        with pytest.raises(WorkflowFailed, match=r"step many: StepInvalid.* more than 67108864 bytes"):
            await flow.result(within=100)
    assert set(made) <= {3 * 200_002}


@in_virtual_time
async def test_a_result_that_is_asked_for_many_times_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    record = Values.record

    async def counted(self: Values, address: TaskAddress) -> Record | None:
        read[address.id] += 1
        return await record(self, address)

    monkeypatch.setattr(Values, "record", counted)
    async with a_stage() as stage:
        graph = Graph()
        large = graph.add("large", step("echo", value={"text": "x" * 2_000, "n": [1, 2]}))
        parts = {f"a{n}": large["n"][n % 2] for n in range(50)} | {"value": large["n"]}
        graph.add("many", step("echo", **parts))
        flow = await stage.submit(graph)
        assert await flow.result(within=100) == {"many": [1, 2]}
    assert max(read.values()) <= 2, "when it might run in place, and when it is published"


@in_virtual_time
async def test_the_same_workflow_under_the_same_id_is_one() -> None:
    async with a_stage() as stage:
        item = chain(step("echo", value=1), step("echo", value=2))
        first = await stage.submit(item, id="order-1")
        again = await stage.submit(item, id="order-1")
        assert (first.existed, again.existed) == (False, True)
        with pytest.raises(WorkflowConflict):
            await stage.submit(chain(step("echo", value=3)), id="order-1")
        assert await again.result(within=100) == 2
        assert all(count == 1 for count in stage.crew.ran.values())
        with pytest.raises(WorkflowNotFound):
            await stage.client.workflows.get("images", "none").result(within=1)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (lambda: chain(step("echo", value=previous)), "nothing does"),
        (Graph, "has no steps"),
        (lambda: group(step("echo") for _ in itertools.count()), "more than 10000 steps"),
        (lambda: shout.map(itertools.count()), "more than 10000 steps"),
        (lambda: chain(step("echo").options(task_id="x")), "an id of its own"),
        (lambda: chain(step("echo").options(unique="x")), "a unique key"),
    ],
)
@in_virtual_time
async def test_what_cannot_be_is_refused_at_the_edge(item: Any, words: str) -> None:
    async with a_stage(crews=0) as stage:
        with pytest.raises(WorkflowInvalid, match=words):
            await stage.submit(item())


def a_graph(chance: random.Random) -> tuple[Item, int]:
    """Return some workflow, and how many steps it has."""
    graph, count = Graph(), 0
    names: list[StepResult] = []
    for number in range(chance.randint(2, 8)):
        after = chance.sample(names, min(len(names), chance.randint(0, 3)))
        wide = chance.choice((0, 0, 3))
        item: Item = step("echo", value=number)
        if wide:
            item = chord(group(step("echo", value=n) for n in range(wide)), step("echo", value=previous))
        count += wide + 1
        names.append(graph.add(f"s{number}", item, after=after))
    return graph, count


@pytest.mark.parametrize("seed", SEEDS)
@in_virtual_time
@pytest.mark.filterwarnings("ignore:.*never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_storm_over_graphs_ends_each_once_and_runs_each_step(seed: int) -> None:
    chance = random.Random(seed)
    async with a_stage(seed, dies=0.2, crews=3) as stage:
        stage.crew.crashes = 0.02
        flows = []
        for number in range(GRAPHS):
            item, count = a_graph(chance)
            flows.append((await insisted(partial(stage.submit, item, id=f"g{number:05}")), count))
        stage.bench.start(broken(stage.bench.server, chance))
        for flow, count in flows:
            await insisted(partial(flow.result, within=100_000))
            status = await insisted(flow.status)
            assert (status.phase, status.done) == ("Succeeded", count)
        # One record for each step, and one for the whole.
        assert stage.records() == {flow.id: count + 1 for flow, count in flows}
        server, crew = stage.bench.server, stage.crew
        fired = joins_fired(server)
        assert set(fired.values()) == {1}, "a join fires once"
        assert crew.number > 4
        told = (
            f"{GRAPHS} graphs, {len(fired)} joins, {sum(crew.ran.values())} attempts, {crew.number} workers, "
            f"{len(crew.crashed)} children died, {server.starts} lives of the broker"
        )
        sys.stdout.write(f"{told}\n")
