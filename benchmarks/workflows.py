"""`python -m benchmarks.workflows`: a chain against tasks by hand, the join of a chord, a queue at its limit.

nats-server and the workers are processes of their own, the producer is this one. Chains and tasks by hand
alternate, so that a busy moment of the machine affects both.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.handlers import benchmark_handlers
from galley import AsyncClient, call, chain, chord, connect, group
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.records import Records
from galley.resources import TaskQueue
from galley.workflow.state import step_id
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.workers import WorkerProcess, workers

RUNS: Final = 5
LENGTH: Final = 10
"""Steps of a chain, and tasks submitted one after the other."""

SIDE_BY_SIDE: Final = 20
"""Chains at the same time, and programs that submit by hand."""

MEMBERS: Final = int(os.environ.get("GALLEY_BENCH_MEMBERS", "10000"))
LIMIT: Final = 2
LIMITED_SECONDS: Final = 10.0
HANDLERS: Final = str(Path(benchmark_handlers.__file__).parent)


def queue_of(slots: int, **limits: Any) -> TaskQueue:
    """Return the queue of the benchmarks."""
    return TaskQueue.model_validate(
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": QUEUE, "namespace": "bench"},
            "spec": {
                "worker": {"modules": ["benchmark_handlers"], "concurrency": slots},
                "limits": {"backlog": 1_000_000, "workflowBytes": 2**30, **limits},
            },
        }
    )


async def chains(client: AsyncClient) -> None:
    """Compare chains with as many tasks, each of which is submitted when the one before has ended."""

    async def by_hand() -> None:
        for _ in range(LENGTH):
            await (await client.submit(NOOP)).result(within=120)

    async def as_chain() -> None:
        await (await client.submit(chain(*([NOOP] * LENGTH)))).result(within=120)

    for side in (1, SIDE_BY_SIDE):
        took: dict[Any, list[float]] = {by_hand: [], as_chain: []}
        for number in range(2 * RUNS + 2):
            each = (by_hand, as_chain)[number % 2]
            began = time.perf_counter()
            async with asyncio.TaskGroup() as all_of_them:
                for _ in range(side):
                    all_of_them.create_task(each())
            if number >= 2:  # the first of each warms up
                took[each].append(time.perf_counter() - began)
        ratios = [hand / one for hand, one in zip(took[by_hand], took[as_chain], strict=True)]
        print(
            f"{side} x {LENGTH} tasks one after the other: by hand {statistics.median(took[by_hand]):.3f} s, "
            f"as a chain {statistics.median(took[as_chain]):.3f} s, throughput ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


async def join(client: AsyncClient) -> None:
    """Measure from the end of the last member of a chord to the start of the step after it."""
    began = time.perf_counter()
    workflow = await client.submit(chord(group(NOOP for _ in range(MEMBERS)), call(QUEUE, "anoop")))
    await workflow.result(within=900)
    took = time.perf_counter() - began
    records = Records(client.broker)
    ends = []
    for number in range(MEMBERS + 1):
        stored = await records.read(client.handle(QUEUE, step_id(workflow.id, number)).address)
        assert stored is not None
        ends.append(stored.record)
    last = max(each.ended_at for each in ends[:-1] if each.ended_at is not None)
    after = ends[-1].started_at or ends[-1].ended_at
    assert after is not None
    milliseconds = (after - last).total_seconds() * 1000
    print(
        f"chord of {MEMBERS}: {took:.1f} s, the step after it began {milliseconds:.0f} ms after the last end"
    )


async def limited(client: AsyncClient, worker: WorkerProcess, words: str) -> None:
    """Measure the processor time of a worker whose queue is at its limit, with tasks that wait."""
    waiting = call(QUEUE, "hold", seconds=LIMITED_SECONDS + 20)
    handles = [await client.submit(waiting, key="one") for _ in range(500)]

    async def at_its_limit() -> bool:
        return (await handles[LIMIT - 1].status()).phase == "Running"

    await eventually(at_its_limit, within=60)
    await asyncio.sleep(2.0)  # what came of 500 submissions is over
    process = psutil.Process(worker.process.pid)
    before, began = spent(process), time.perf_counter()
    await asyncio.sleep(LIMITED_SECONDS)
    share = (spent(process) - before) / (time.perf_counter() - began)
    print(f"{words}: 500 tasks, {LIMIT} of them run, and the worker takes {share:.1%} of a core")


def spent(process: psutil.Process) -> float:
    """Return the seconds of processor time of a process and its children."""
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


QUEUE: Final = benchmark_handlers.QUEUE
NOOP: Final = call(QUEUE, "anoop")


@asynccontextmanager
async def stage(queue: TaskQueue, count: int) -> AsyncIterator[tuple[AsyncClient, list[WorkerProcess]]]:
    """Run a server, and so many workers of a queue."""
    with tempfile.TemporaryDirectory() as folder:
        async with NatsServer(Path(folder)) as server, connect(server.url, "bench") as client:
            await ensure(client.broker, layout_of(queue, "benchmark"))
            extra = {"GALLEY_IMPORT_PATHS": HANDLERS, "GALLEY_LOG_LEVEL": "WARNING"}
            names = [f"w{number}" for number in range(count)]
            with workers(server.url, queue, Path(folder), names, **extra) as fleet:
                yield client, fleet


async def main() -> None:
    """Measure, and print the figures."""
    print(f"load {os.getloadavg()[0]:.1f}")
    for words, limits in (
        (f"a queue with concurrency {LIMIT}", {"concurrency": LIMIT}),
        (f"one key with concurrency {LIMIT}", {"perKey": {"concurrency": LIMIT}}),
    ):
        async with stage(queue_of(16, **limits), 1) as (client, fleet):
            await limited(client, fleet[0], words)
    async with stage(queue_of(16), 2) as (client, _):
        await chains(client)
        await join(client)


if __name__ == "__main__":
    asyncio.run(main())
