"""Pausing, draining and emptying a queue that has a worker; many tasks cancelled at once."""

import asyncio
from pathlib import Path

import pytest

from galley import AsyncClient, DrainTimeout, Phase, QueueNotFound, SubmissionInvalid, TaskSelection, call
from galley.backlog import QueueBacklog
from galley.broker.control import Heartbeat, hearing
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.signals import SignalReader
from galley.cli.main import main
from galley_local.nats_server import NatsServer
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue
from tests.unit.galley.cli.a_terminal import a_terminal, err, out

HANDLERS = """
import time
from pathlib import Path
from galley import task

@task
def waits(gate: str):
    while not Path(gate).exists():
        time.sleep(0.01)
    return gate

@task
def quick():
    return 1

@task
def fails():
    raise OSError("the database is away")
"""


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path, nats_server: NatsServer
) -> None:
    (tmp_path / "gate_handlers.py").write_text(HANDLERS)
    queue = a_task_queue(namespace, "gates", worker={"modules": ["gate_handlers"], "concurrency": 4})
    await ensure(client.broker, layout_of(queue, "tests"))
    await start(queue, GALLEY_IMPORT_PATHS=str(tmp_path))
    gate = tmp_path / "gate"
    running = await client.submit(call("gates", "waits", gate=str(gate)))

    async def runs() -> bool:
        return (await running.status()).phase is Phase.RUNNING

    await eventually(runs, within=20)
    with pytest.raises(DrainTimeout, match=r"1 of its tasks still ran after 0.3 s"):
        await client.queues.drain("gates", within=0.3)
    with pytest.raises(DrainTimeout, match=r"1 of its tasks still ran after 0 s"):
        await client.queues.drain("gates", within=0)
    assert (await client.queues.get("gates")).paused
    backlog = await SignalReader(client.broker).read(namespace, "gates")
    assert isinstance(backlog, QueueBacklog)
    assert backlog.paused
    # It is still accepted, and the worker, which has free slots and pulls, does not get it.
    later = await client.submit(call("gates", "quick"))
    # As whatever serves the queue does when it starts again: the queue stays paused.
    await ensure(client.broker, layout_of(queue.model_copy(deep=True), "tests"))
    gate.touch()
    await client.queues.drain("gates", within=20)
    await client.queues.drain("gates", within=0)
    assert await running.result(within=30) == str(gate)
    assert (await later.status()).phase is Phase.QUEUED

    def galley(*words: str) -> tuple[int, str, str]:
        terminal = a_terminal()
        code = main([*words, "--server", nats_server.url, "-n", namespace], terminal)
        return code, out(terminal), err(terminal)

    code, told, _ = await asyncio.to_thread(galley, "get", "queues", "-o", "table")
    assert code == 0
    assert "PAUSED BY" in told
    assert await asyncio.to_thread(galley, "resume", "gates") == (0, "queue/gates: resumed\n", "")
    assert await later.result(within=20) == 1
    assert not (await client.queues.get("gates")).paused

    assert (await asyncio.to_thread(galley, "pause", "gates"))[0] == 0
    left = [await client.submit(call("gates", "quick"), labels={"n": str(n)}) for n in range(5)]
    fits = TaskSelection(labels="n in (0, 1)")
    would = await client.queues.cancel_all("gates", fits, dry_run=True)
    assert [status.address.id for status in would] == [one.id for one in left[:2]]
    assert len(await client.queues.purge("gates", dry_run=True)) == 5
    assert await asyncio.to_thread(
        galley, "cancel", "--queue", "gates", "-l", "n in (0, 1)", "--dry-run"
    ) == (0, "would cancel 2 tasks of queue gates (2 Queued)\n", "")
    assert await asyncio.to_thread(galley, "purge", "gates", "--dry-run") == (
        0, "would cancel 5 tasks of queue gates (5 Queued)\n", "",
    )  # fmt: skip
    assert await asyncio.to_thread(galley, "cancel", f"gates/{left[0].id}", "--dry-run") == (
        0, f"task/{left[0].id}: Queued, would be cancelled\n", "",
    )  # fmt: skip
    assert {(await one.status()).phase for one in left} == {Phase.QUEUED}
    code, told, complaint = await asyncio.to_thread(galley, "cancel", "--queue", "gates", "-l", "n in (0, 1)")
    assert (code, told) == (2, "")
    assert "cancel 2 tasks of queue gates (2 Queued): not done" in complaint
    assert "add --yes" in complaint
    code, told, _ = await asyncio.to_thread(
        galley, "cancel", "--queue", "gates", "-l", "n in (0, 1)", "--yes"
    )
    assert (code, told) == (0, "queue/gates: 2 cancelled\n")
    assert [(await one.status()).phase for one in left] == [Phase.CANCELLED] * 2 + [Phase.QUEUED] * 3
    found = await client.queues.find("gates", TaskSelection(phases=(Phase.QUEUED,), handler="quick"))
    assert [status.address.id for status in found] == [one.id for one in left[2:]]
    assert await asyncio.to_thread(galley, "purge", "gates", "--yes") == (
        0, "queue/gates: 3 cancelled\n", "cancel 3 tasks of queue gates (3 Queued)\n",
    )  # fmt: skip
    assert await client.queues.purge("gates") == []
    assert await asyncio.to_thread(galley, "cancel", f"gates/{left[0].id}", "--dry-run") == (
        0, f"task/{left[0].id}: Cancelled, has ended\n", "",
    )  # fmt: skip
    for action in (client.queues.pause, client.queues.resume, client.queues.drain):
        with pytest.raises(QueueNotFound):
            await action("nothing")
    for seconds in (-1, float("nan")):
        with pytest.raises(SubmissionInvalid, match="within"):
            await client.queues.drain("gates", within=seconds)


async def test_a_worker_tells_in_its_heartbeats_that_its_circuit_is_open(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    (tmp_path / "broken_handlers.py").write_text(HANDLERS)
    worker = {"modules": ["broken_handlers"], "concurrency": 2}
    queue = a_task_queue(namespace, "broken", worker=worker, circuit={"failures": 1, "seconds": 600})
    await ensure(client.broker, layout_of(queue, "tests"))
    beats: list[Heartbeat] = []
    async with hearing(client.broker, namespace, "broken", beats.append):
        await start(queue, GALLEY_IMPORT_PATHS=str(tmp_path))
        await eventually(lambda: bool(beats), within=20)
        assert not beats[-1].circuit_open
        await client.submit(call("broken", "fails"))
        await eventually(lambda: beats[-1].circuit_open, within=20)
