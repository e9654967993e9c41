"""A worker that is told to end takes nothing new, finishes what it can, and hands back the rest for free."""

import signal
from functools import partial
from pathlib import Path

from galley import AsyncClient, AsyncHandle, Phase, call
from galley.backlog import QueueBacklog
from galley.broker.control import Request, Verb, ask_workers
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.signals import SignalReader
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue


async def runs_on(handle: AsyncHandle[object], worker: str) -> bool:
    status = await handle.status()
    return status.phase is Phase.RUNNING and status.worker == worker


async def test_a_short_attempt_ends_during_the_drain_and_never_runs_again(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    patient = a_task_queue(namespace, worker={"gracePeriodSeconds": 30})
    await ensure(client.broker, layout_of(patient, "tests"))
    (worker,) = await start(patient)
    handle = await client.submit(call("drills", "hold", word="short", seconds=4))
    await eventually(partial(runs_on, handle, "w1"), within=20)

    assert worker.end(within=60) == 0
    assert await handle.result(within=20) == "short"
    backlog = await SignalReader(client.broker).read(namespace, "drills")
    assert isinstance(backlog, QueueBacklog)
    assert backlog.in_flight == 0, "it was acknowledged before its worker ended"
    await start(patient, ("w2",))
    assert await (await client.submit(call("drills", "echo", value="next"))).result(within=20) == "next"
    assert (tmp_path / "drills.log").read_text().count("begin short") == 1


async def test_a_long_attempt_is_handed_back_at_once_and_costs_no_attempt(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    first, second = await start(drills, ("w1", "w2"))
    second.send(signal.SIGSTOP)
    handle = await client.submit(call("drills", "aecho", value="long", seconds=8))
    await eventually(partial(runs_on, handle, "w1"), within=20)
    second.send(signal.SIGCONT)

    assert first.end() == 0

    await eventually(partial(runs_on, handle, "w2"), within=30)
    assert await handle.result(within=20) == "long"
    status = await handle.status()
    assert (status.attempt, status.history.errors, status.history.crashes) == (1, 0, 0)


async def test_waiting_tasks_stay_for_the_next_worker(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    (worker,) = await start(drills)
    handles = await client.submit_many([call("drills", "hold", word=f"{n}", seconds=0.2) for n in range(40)])
    await eventually((tmp_path / "drills.log").exists, within=20)

    assert worker.end() == 0
    await start(drills, ("w2",))

    assert sorted([int(await handle.result(within=30)) for handle in handles]) == list(range(40))
    begun = [
        line.split()[2] for line in (tmp_path / "drills.log").read_text().splitlines() if "begin" in line
    ]
    assert sorted(begun, key=int) == [str(n) for n in range(40)], "no task began twice"


async def test_a_drain_is_a_lease_that_ends_by_itself(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    await (await client.submit(call("drills", "echo"))).result(within=20)

    answer = await ask_workers(
        client.broker, client.namespace, "drills", Verb.DRAIN, Request(workers=("w1",), seconds=8)
    )
    assert answer is not None
    assert answer.worker == "w1"
    handle = await client.submit(call("drills", "echo", value=1))
    assert (await handle.status()).phase is Phase.QUEUED
    assert await handle.result(within=20) == 1
    status = await handle.status()
    assert status.started_at is not None
    assert status.submitted_at is not None
    assert (status.started_at - status.submitted_at).total_seconds() > 1


async def test_a_second_signal_hands_back_at_once(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    (worker,) = await start(drills)
    handle = await client.submit(call("drills", "aecho", value="x", seconds=30))
    await eventually(partial(runs_on, handle, "w1"), within=20)

    worker.send(signal.SIGTERM)
    await eventually(lambda: worker.logged("worker draining"), within=30)
    assert worker.end(within=20) == 0

    assert (await handle.status()).phase is Phase.QUEUED
