"""A broker loses its disk under load and is restored: what is lost or runs twice is what the docs promise.

`GALLEY_DRILL_TASKS` sets its size (1,200 tasks unless set; `make drill` runs 20,000).
"""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from galley import AsyncClient, AsyncHandle, Phase, TaskNotFound, When, call, chain, connect
from galley.backup.destination import Folder
from galley.backup.restore import Report, Restore
from galley.backup.take import take_backup
from galley.broker.connection import Broker
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.reference import INLINE_LIMIT
from galley.topic import Subscription, Topic
from galley.workflows import AsyncWorkflow
from galley_local.nats_server import NatsServer
from tests.support.backups import KEY, lose_disk
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, ensure_with_leases, workers

TASKS = int(os.environ.get("GALLEY_DRILL_TASKS", "1200"))
LEASE = 3.0
PATIENCE = 120 + TASKS / 50

SLOW = [f"slow-{number}" for number in range(6)]
"""Tasks that end after the backup and before the disk is lost."""


EVENTS = {f"event-{number}" for number in range(40)}
KEYED = {f"keyed-{number}" for number in range(12)}
"""Tasks of one key, one at a time: some have run when the backup is taken, some when the disk is lost."""
LARGE = "x" * INLINE_LIMIT + "end"


class Load:
    """Tasks that are submitted all the time; each notes its number when it runs."""

    def __init__(self, client: AsyncClient, log: Path) -> None:
        self._client, self._log = client, log
        self.handles: dict[str, AsyncHandle[object]] = {}
        """By number; the broker has acknowledged them."""

    async def submit(self, numbers: range) -> None:
        for number in numbers:
            word = f"task-{number}"
            later = datetime.now(UTC) + timedelta(seconds=5)
            when = When(not_before=later) if number % 7 == 0 else When()
            self.handles[word] = await self._client.submit(call("drills", "note", word=word), when)

    async def submit_at_once(self, numbers: range) -> None:
        """Submit faster than workers run them, so that there is a backlog."""
        words = [f"task-{number}" for number in numbers]
        calls = [call("drills", "hold", word=word, seconds=1 + TASKS / 1500) for word in SLOW]
        calls += [call("drills", "note", word=word) for word in words]
        for word, handle in zip([*SLOW, *words], await self._client.submit_many(calls), strict=True):
            self.handles[word] = handle

    def runs(self) -> Counter[str]:
        """Return how often each task ran."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        words = [line.split()[1:] for line in lines]
        return Counter(each[-1] for each in words if each[0] != "begin")

    @asynccontextmanager
    async def going_on(self, numbers: range) -> AsyncIterator[None]:
        """Submit for as long as the block, at most these."""
        task = asyncio.create_task(self.submit(numbers))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def phase_of(handle: AsyncHandle[object]) -> str:
    try:
        return str((await handle.status()).phase)
    except TaskNotFound:
        return "unknown"


async def phases(load: Load, words: set[str]) -> Counter[str]:
    """Return how many of these tasks are in which phase, `unknown` for those the broker does not know."""
    return Counter((await phase_by_word(load, words)).values())


async def phase_by_word(load: Load, words: Collection[str]) -> dict[str, str]:
    """Return the phase of each of these tasks; of 20,000, one after the other takes minutes."""
    found: dict[str, str] = {}
    ordered = sorted(words)
    for several in (ordered[at : at + 200] for at in range(0, len(ordered), 200)):
        told = await asyncio.gather(*(phase_of(load.handles[word]) for word in several))
        found |= zip(several, told, strict=True)
    return found


async def restore_into(server: NatsServer, folder: Folder, archive: str) -> Report:
    async with Broker(server.url, name="restore") as broker:
        restore = Restore(broker, folder, archive, [KEY])
        return await restore.run(await restore.outline())


@pytest.mark.timeout(1800)
async def test_a_broker_that_lost_its_disk_is_restored(
    own_nats_server: NatsServer, namespace: str, tmp_path: Path, folder: Folder
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 4})
    server, environment = own_nats_server, {"GALLEY_LEASE_SECONDS": str(LEASE)}
    async with connect(server.url, namespace) as client:
        await ensure_with_leases(client.broker, queue, LEASE)
        load = Load(client, tmp_path / "drills.log")
        with workers(server.url, queue, tmp_path, ("w1", "w2"), **environment) as fleet:
            await load.submit(range(TASKS // 4))
            flow, large = await begin_the_rest(client)
            await eventually(lambda: len(load.runs()) > TASKS // 8, within=60)
            ended_before = await ended(load)
            async with load.going_on(range(TASKS, TASKS * 100)):
                await load.submit_at_once(range(TASKS // 4, TASKS))
                submitted_before = set(load.handles)
                begun = time.monotonic()
                summary, _ = await take_backup(client.broker, folder, KEY)
                took = time.monotonic() - begun
                archived = set(load.handles)
                await eventually(lambda: len(load.handles) > len(archived) + TASKS * 0.1, within=60)
                await eventually(lambda: set(load.runs()) >= set(SLOW), within=60)
            for worker in fleet:
                worker.kill()
            lose_disk(server, tmp_path / "nats")
            lost_at = time.monotonic()
            ran_before = load.runs()
            await server.start()
            report = await restore_into(server, folder, summary.name)
            restored_after = time.monotonic() - lost_at
            for worker in fleet:
                worker.restart()
            await eventually(lambda: set(load.runs()) >= submitted_before, within=PATIENCE)
            waiting = set(submitted_before)
            await eventually(lambda: none_of(load, waiting), within=PATIENCE)
            recovered_after = time.monotonic() - lost_at

            # Topics, workflows, keys, schedules and objects are there as well, and go on.
            await eventually(lambda: set(load.runs()) >= EVENTS | KEYED, within=120)
            await flow.result(within=120)
            assert await large.result(within=60) == LARGE[::-1]
            fired = (await client.schedules.get("drills", "beat")).fired
            await eventually(lambda: ticked(client, fired), within=60)
            await client.schedules.delete("drills", "beat")

            # Nothing is stuck: a task is known and ends, or unknown and its id is free.
            await eventually(lambda: none_waits(load), within=60)
            runs = load.runs()
            twice = {word for word, count in runs.items() if count > 1}
            lost = {word for word in load.handles if word not in runs}
            after = set(load.handles) - archived
            sys.stdout.write(
                f"\n{len(load.handles)} tasks; backup of {summary.messages} messages in {took:.2f} s\n"
                f"disk lost; restored {report.written} messages after {restored_after:.2f} s, "
                f"all tasks of the archive ended after {recovered_after:.2f} s\n"
                f"submitted before the backup: {len(submitted_before)}, lost {len(submitted_before & lost)}\n"
                f"submitted during it: {len(archived - submitted_before)}, lost {len(archived & lost)}\n"
                f"submitted after it: {len(after)}, lost {len(after & lost)}, run before the disk was lost "
                f"{len(after - lost)}\n"
                f"ran twice: {len(twice)}\n"
            )
            # What was acknowledged before the backup began has ended, or ends now.
            assert await phases(load, submitted_before) == {Phase.SUCCEEDED: len(submitted_before)}
            # What had ended before does not run again.
            assert twice & ended_before == set()
            # What ran twice had run before the disk was lost, and each at most once more.
            assert twice & set(SLOW)
            assert all(runs[word] == 2 and ran_before[word] == 1 for word in twice)
            assert lost & submitted_before == set()
            for worker in fleet:
                assert worker.end() == 0


async def begin_the_rest(client: AsyncClient) -> tuple[AsyncWorkflow[object], AsyncHandle[object]]:
    """Publish events, and begin a schedule, a task with a large input, and a workflow that takes a while."""
    subscription = Subscription("noted", "drills", "note")
    keeper = TopicKeeper(client.broker, client.namespace, "tests")
    assert await keeper.keep([Declared(Topic("drilled", retention_seconds=3600), (subscription,))]) == []
    for word in sorted(EVENTS):
        await client.publish("drilled", {"word": word}, event_id=word)
    for word in sorted(KEYED):
        await client.submit(call("drills", "hold", word=word, seconds=0.5), key="one")
    await client.schedules.create("beat", call("drills", "echo"), "@every 1s")
    steps = [call("drills", "hold", word="step-0", seconds=2), call("drills", "note", word="step-1")]
    flow = await client.submit(chain(*steps))
    return flow, await client.submit(call("drills", "turn", text=LARGE))


async def ticked(client: AsyncClient, fired: int) -> bool:
    return (await client.schedules.get("drills", "beat")).fired > fired


async def ended(load: Load) -> set[str]:
    return {
        word
        for word, phase in (await phase_by_word(load, set(load.handles))).items()
        if phase == Phase.SUCCEEDED
    }


async def none_of(load: Load, waiting: set[str]) -> bool:
    """Return whether none of these waits; forgets those that have ended, which stays so."""
    found = await phase_by_word(load, waiting)
    waiting -= {word for word, phase in found.items() if phase == Phase.SUCCEEDED}
    return not waiting


async def none_waits(load: Load) -> bool:
    found = await phases(load, set(load.handles))
    assert set(found) <= {Phase.SUCCEEDED, "unknown"}, found
    return True
