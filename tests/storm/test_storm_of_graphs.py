"""Each workflow ends once, each step has one outcome and each join fires once, whatever is killed or frozen.

Chains, groups, chords, graphs and handlers that go on as a workflow, on a real server with real workers; some
are Workflow objects, which an operator submits that is killed, too, over an API in memory.
`GALLEY_STORM_GRAPHS` and `GALLEY_STORM_GRAPH_FAULTS` set its size (40 workflows and 4 faults unless set;
`make storm-graphs` runs 2,000 and 120), `GALLEY_STORM_SEED` its course.
"""

import asyncio
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest

from galley import AsyncClient, AsyncWorkflow, Graph, call, chain, chord, connect, group, previous
from galley import record as wire
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.mark import write_mark
from galley.errors import QueueFull
from galley.record import Outcome
from galley.workflow.errors import WorkflowsFull
from galley.workflow.shape import Item
from galley.workflow.state import Slots, decode_slots, workflow_id
from galley_local.nats_server import NatsServer
from galley_operator.cluster.resource import WORKFLOWS
from galley_operator.faults import Faults
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.workflows.keeper import WorkflowKeeper
from tests.storm.faults import Storm
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.observed import all_revisions, keep_revisions, time_of
from tests.support.workers import WorkerProcess, a_task_queue, ensure_with_leases, workers

GRAPHS = int(os.environ.get("GALLEY_STORM_GRAPHS", "40"))
FAULTS = int(os.environ.get("GALLEY_STORM_GRAPH_FAULTS", "4"))
SEED = int(os.environ.get("GALLEY_STORM_SEED", "20261129"))
LEASE = 3.0
WITHIN = 120.0 + GRAPHS
"""Seconds that one workflow may take: what is lost would be waited for without end."""
OBJECT_EVERY = 10
"""One workflow of so many is declared as an object, and submitted by the operator."""
T = TypeVar("T")


@dataclass
class Operator:
    """Submits the workflows of objects, until it is killed; then there is another one."""

    server: NatsServer
    namespace: str
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    unexpected: list[str] = field(default_factory=list)
    """Where it met an exception that is not expected."""
    _life: "asyncio.Task[None] | None" = None

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Operator"]:
        running = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def kill_operator(self) -> None:
        """End it wherever it is."""
        if self._life is not None:
            self._life.cancel()

    def declare(self, name: str, *steps: dict[str, Any]) -> str:
        """Have a Workflow object, and return the id of its workflow."""
        metadata = {
            "name": name, "namespace": self.namespace, "uid": f"uid-{name}", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        self.cluster.put(WORKFLOWS, {"metadata": metadata, "spec": {"steps": list(steps)}})
        return workflow_id(name, f"uid-{name}")

    def has_succeeded(self, name: str) -> bool:
        found = self.cluster.objects["workflows", self.namespace, name].get("status") or {}
        return bool(found.get("phase") == "Succeeded")

    async def _run(self) -> None:
        queues, self._faults = KnownQueues(), Faults(self.unexpected.append)
        queue = a_task_queue(self.namespace).model_dump(mode="json", by_alias=True)
        queue["metadata"] |= {"uid": "uid-drills", "generation": 1}
        queues.seen(queue)
        while True:
            self._life = asyncio.create_task(self._one(queues))
            try:
                await asyncio.wait({self._life})
            finally:
                self._life.cancel()
            if not self._life.cancelled():
                self._life.result()

    async def _one(self, queues: KnownQueues) -> None:
        async with Broker(self.server.url, name="operator") as broker:
            keeper = WorkflowKeeper(self.cluster, broker, queues, (self.namespace,), self._faults)
            await keeper.run()


# nats-py forgets the writer of an attempt to connect in whose midst the broker is killed.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*StreamWriter:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.timeout(7200)
async def test_every_workflow_ends_once_after_a_storm(
    own_nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    queue = a_task_queue(
        namespace,
        worker={"concurrency": 6, "gracePeriodSeconds": 1},
        retry={"backoffSeconds": 0.2, "maxBackoffSeconds": 1, "crashes": 20},
    )
    environment = {"GALLEY_LEASE_SECONDS": str(LEASE)}
    async with connect(own_nats_server.url, namespace) as client:
        await ensure_with_leases(client.broker, queue, LEASE)
        await keep_revisions(client)
        await keep_joins(client)

        async def mark() -> None:
            async with Broker(own_nats_server.url, name="operator") as broker:
                await write_mark(broker, topology.work_stream(namespace, "drills"), broker.nats.life)

        names = ("w1", "w2", "w3")
        with workers(own_nats_server.url, queue, tmp_path, names, **environment) as fleet:
            storm = Storm(own_nats_server, fleet, LEASE, SEED, mark)
            async with Operator(own_nats_server, namespace).at_work() as operator:
                storm.faults[operator.kill_operator] = 15
                sent, declared = await submit_through(storm, client, operator)
                for flow, (steps, expected) in sent.items():
                    workflow = client.workflows.get("drills", flow)
                    result = await insisted(partial(workflow.result, within=WITHIN))
                    assert result == expected, flow
                    status = await insisted(workflow.status)
                    assert (status.phase, status.done) == ("Succeeded", steps), flow
                for name in declared:
                    await eventually(partial(operator.has_succeeded, name), within=120)
                assert operator.unexpected == []
            for worker in fleet:
                assert worker.end() == 0
        joins = await states_of_joins(client)
        fired = {join: sum(state.complete for state in states) for join, states in joins.items()}
        again = [join for join, times in fired.items() if times > 1]
        histories = [await history_of(client, join, joins[join], list(fleet)) for join in again]
        finals = Counter[str]()
        async for each in all_revisions(client):
            if each.record.done:
                finals[each.task] += 1
                assert each.record.outcome is Outcome.SUCCEEDED, each
        workflows = await client.workflows.list("drills")
    sys.stdout.write(
        f"\n{len(sent)} workflows ({len(declared)} of objects), {len(workflows) - len(sent)} of handlers, "
        f"{len(finals)} outcomes, {sum(fired.values())} joins, "
        f"{sum(storm.done.values())} faults (seed {SEED}): {dict(storm.done)}\n"
    )
    assert set(finals.values()) == {1}, "each ends once"
    # Steps of the workflows that were submitted, and their own outcomes; and those of handlers' workflows.
    for flow, (steps, _) in sent.items():
        mine = [task for task in finals if task == f"flow_{flow}" or task.startswith(f"flow_{flow}_")]
        assert len(mine) == steps + 1, (flow, mine)
    assert not again, "a join fires once\n" + "\n\n".join(histories)


async def submit_through(
    storm: Storm, client: AsyncClient, operator: Operator
) -> tuple[dict[str, tuple[int, Any]], list[str]]:
    """Submit in as many parts as there are faults; returns steps and result of each workflow by its id."""
    sent: dict[str, tuple[int, Any]] = {}
    declared: list[str] = []

    async def some(numbers: range) -> None:
        for number in numbers:
            if number % OBJECT_EVERY == 3:
                name = f"object-{number}"
                drill = {"queueName": "drills", "handler": "echo"}
                flow = operator.declare(
                    name,
                    {**drill, "name": "first", "input": {"value": number}},
                    {**drill, "name": "last", "input": {"value": "${steps.first.result}"}},
                )
                sent[flow] = 2, {"last": number}
                declared.append(name)
                continue
            item, steps, expected = an_item(storm.dice, number)
            workflow: AsyncWorkflow[Any] = await insisted(
                partial(client.workflows.submit, item, id=f"g{number:05}")
            )
            sent[workflow.id] = steps, expected

    for part in range(FAULTS):
        sending = asyncio.create_task(some(range(GRAPHS * part // FAULTS, GRAPHS * (part + 1) // FAULTS)))
        await asyncio.sleep(storm.dice.uniform(0.05, 0.5))
        await storm.strike()
        await sending
    return sent, declared


def an_item(dice: random.Random, number: int) -> tuple[Item, int, Any]:
    """Return some workflow, how many steps it has, and its result."""
    kind, wide = number % 5, dice.randint(2, 12)
    values = [number * 100 + each for each in range(wide)]
    members = group(echo(value) for value in values)
    if kind == 0:
        return chain(echo(number), *(echo(previous) for _ in range(wide))), wide + 1, number
    if kind == 1:
        return chord(members, echo(previous)), wide + 1, values
    if kind == 2:
        nested = chain(echo(number), members, echo(previous))
        return group(nested, echo(0)), wide + 3, [values, 0]
    if kind == 3:
        return chain(call("drills", "onward", count=wide), echo(previous)), 2, list(range(wide))
    graph = Graph()
    left = graph.add("left", chord(members, echo(previous)))
    right = graph.add("right", echo(number))
    graph.add("both", echo(left[0]), after=[right])
    graph.add("after", echo(1), after=[right])
    return graph, wide + 4, {"both": values[0], "after": 1}


def echo(value: Any) -> Any:
    return call("drills", "echo", value=value)


async def insisted(ask: Callable[[], Awaitable[T]]) -> T:
    """Return an answer, asking again while the broker is away or has no room."""
    while True:
        try:
            return await ask()
        except (BrokerError, QueueFull, WorkflowsFull):
            await asyncio.sleep(0.5)


async def keep_joins(client: AsyncClient) -> None:
    """Have each state of a join copied before it is removed with its workflow."""
    # Not by a mirror: that would answer reads of the stream, and has only a part of it.
    pattern = topology.flow_part_subject(client.namespace, "drills", "*", "join.*")
    source = {"name": topology.flow_stream(client.namespace, "drills"), "filter_subject": pattern}
    definition = {"name": joins_stream(client), "sources": [source], "allow_direct": True}
    await client.broker.api("keep joins", f"STREAM.CREATE.{joins_stream(client)}", definition)


def joins_stream(client: AsyncClient) -> str:
    return f"JOINS_{client.namespace}"


class JoinState(NamedTuple):
    """What a join was at a time."""

    sequence: int
    at: float
    slots: Slots

    @property
    def complete(self) -> bool:
        return None not in self.slots


async def states_of_joins(client: AsyncClient) -> dict[str, list[JoinState]]:
    """Return all that each join was, in order; of some the copy may have come too late."""
    seen = dict[str, tuple[str, JoinState]]()
    last = 1
    while True:
        request = msgspec.json.encode({"seq": last, "next_by_subj": ">"})
        answer = await client.broker.request(f"$JS.API.DIRECT.GET.{joins_stream(client)}", request)
        headers = (answer.headers or {}) if answer is not None else {}
        if answer is None or "Nats-Subject" not in headers:
            break
        last = int(headers["Nats-Sequence"]) + 1
        source = headers["Nats-Stream-Source"].split()[:2]
        state = JoinState(
            int(source[1]), time_of(headers["Nats-Time-Stamp"]), decode_slots(wire.decode(answer.data).result)
        )
        # After a kill of the server some are copied twice.
        seen[" ".join(source)] = headers["Nats-Subject"], state
    found = defaultdict[str, list[JoinState]](list)
    for subject, state in seen.values():
        found[subject].append(state)
    return found


async def history_of(
    client: AsyncClient, join: str, states: list[JoinState], fleet: list[WorkerProcess]
) -> str:
    """Return what happened at a join and around it, line by line, with times in seconds."""
    flow = join.partition(".of.")[0].rpartition(".")[2]
    found = [(state.at, f"join is [{state.sequence}]: {state.slots}") for state in states]
    async for each in all_revisions(client):
        if each.task.startswith(f"flow_{flow}"):
            what = each.record
            found.append((each.at, f"{each.task} is {what.state} {what.outcome or ''} by {what.worker}"))
    for worker in fleet:
        told = [line for line in worker.log() if flow in str(line)]
        found += [
            (datetime.fromisoformat(each["time"]).timestamp(), f"{worker.name}: {each}") for each in told
        ]
    return "\n".join([join, *(f"{at:.4f} {what}" for at, what in sorted(found))])
