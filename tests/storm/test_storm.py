"""Nothing is lost and nothing ends twice, whatever is killed or frozen at whatever moment.

Among the tasks are ticks of a schedule, dead letters that two clients redrive at the same time, and inputs
and results that are stored as objects.

`GALLEY_STORM_TASKS` and `GALLEY_STORM_FAULTS` set its size (800 tasks and 8 faults unless set; `make
storm` runs 20,000 and 120), `GALLEY_STORM_SEED` its course.
"""

import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from galley import AsyncClient, call, connect
from galley.broker.connection import Broker
from galley.broker.mark import write_mark
from galley.broker.topology import work_stream
from galley.record import Outcome
from galley_local.nats_server import NatsServer
from tests.storm.faults import Storm
from tests.storm.mix import Mix
from tests.support.observed import Revision, all_revisions, events_by_task, keep_revisions
from tests.support.protocol_history import LeaseLost, redriven_history_allowed
from tests.support.workers import WorkerProcess, a_task_queue, ensure_with_leases, workers

TASKS = int(os.environ.get("GALLEY_STORM_TASKS", "800"))
FAULTS = int(os.environ.get("GALLEY_STORM_FAULTS", "8"))
SEED = int(os.environ.get("GALLEY_STORM_SEED", "20261121"))
LEASE = 3.0


# nats-py forgets the writer of an attempt to connect in whose midst the broker is killed.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*StreamWriter:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.timeout(1800)
async def test_every_task_has_one_outcome_after_a_storm(
    own_nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    queue = a_task_queue(
        namespace,
        worker={"concurrency": 6, "gracePeriodSeconds": 1},
        limits={"objectBytes": 1024**3},
        # The budgets are the defaults, so a crash that is counted without cause may bury a task.
        retry={"backoffSeconds": 0.2, "maxBackoffSeconds": 1},
    )
    names = ("w1", "w2", "w3")
    environment = {"GALLEY_LEASE_SECONDS": str(LEASE), "GALLEY_LOG_LEVEL": "DEBUG"}
    async with connect(own_nats_server.url, namespace) as client:
        await ensure_with_leases(client.broker, queue, LEASE)
        await keep_revisions(client)

        async def mark() -> None:
            # Not by `ensure`, which would have the records stream forget its revisions.
            async with Broker(own_nats_server.url, name="operator") as broker:
                await write_mark(broker, work_stream(namespace, queue.metadata.name), broker.nats.life)

        with workers(own_nats_server.url, queue, tmp_path, names, **environment) as fleet:
            mix = Mix(client, tmp_path)
            await client.schedules.create(
                "beat",
                call("drills", "echo"),
                "@every 1s",
                overlap="allow",
                catch_up="all",
                catch_up_limit=1000,
            )
            storm = Storm(own_nats_server, fleet, LEASE, SEED, mark)
            async with connect(own_nats_server.url, namespace) as another:
                redriving = [asyncio.create_task(mix.redrive_all(each)) for each in (client, another)]
                await submit_through(storm, mix)
                async with asyncio.timeout(600):  # a task that is lost ends it
                    found = await mix.results()
                for each in redriving:
                    each.cancel()
                await asyncio.wait(redriving)
            ticks = await all_ticks(client)
            letters = await client.dead_letters.find("drills")
            revisions = [revision async for revision in all_revisions(client)]
            for worker in fleet:
                assert worker.end() == 0

    sys.stdout.write(
        f"\n{len(mix.handles)} tasks, {sum(storm.done.values())} faults (seed {SEED}): {dict(storm.done)}\n"
        f"results: {dict(found)}; {mix.redrives.total()} redrives of {len(mix.redrives)} dead letters; "
        f"{len(revisions)} records written; {len(ticks)} ticks\n"
    )
    assert found.total() == len(mix.handles) == TASKS
    assert letters == []
    assert mix.redrives
    one_success_each({*mix.handles, *ticks}, revisions)
    none_is_missing(ticks)
    failures_are_counted_once(revisions)
    what_the_protocol_allows(mix.handles, revisions, fleet, storm.leases_lost)


async def submit_through(storm: Storm, mix: Mix) -> None:
    """Submit all tasks in as many parts as there are faults, one part between two faults."""
    for part in range(FAULTS):
        numbers = range(TASKS * part // FAULTS, TASKS * (part + 1) // FAULTS)
        sending = asyncio.create_task(mix.submit(numbers))
        await asyncio.sleep(storm.dice.uniform(0.05, 0.5))
        await storm.strike()
        await sending


async def all_ticks(client: AsyncClient) -> list[str]:
    """Stop the schedule, and return the ids of its tasks once each has ended."""
    await client.schedules.suspend("drills", "beat")

    # One may be on its way from a worker that was handed its tick before.
    await asyncio.sleep(2 * LEASE)
    ticks = {each.address.id for each in await client.tasks("drills") if each.address.id.startswith("beat-")}
    for each in ticks:
        await client.handle("drills", each).wait(60)
    return sorted(ticks)


def none_is_missing(ticks: list[str]) -> None:
    seconds = [int(each.rpartition("-")[2]) for each in ticks]
    assert seconds == list(range(seconds[0], seconds[-1] + 1))


def one_success_each(tasks: set[str], revisions: list[Revision]) -> None:
    """Of its records that say it ended, one says that a task succeeded, and it is the last."""
    finals: defaultdict[str, list[Outcome | None]] = defaultdict(list)
    for revision in revisions:
        if revision.record.done:
            finals[revision.task].append(revision.record.outcome)
    assert set(finals) == tasks
    for task, outcomes in finals.items():
        assert outcomes[-1] is Outcome.SUCCEEDED, (task, outcomes)
        assert set(outcomes[:-1]) <= {Outcome.FAILED}, (task, outcomes)


def failures_are_counted_once(revisions: list[Revision]) -> None:
    for revision in revisions:
        assert revision.record.history.errors <= 1, revision


def what_the_protocol_allows(
    handles: Iterable[str],
    revisions: list[Revision],
    fleet: list[WorkerProcess],
    lost: list[LeaseLost],
) -> None:
    events = events_by_task(revisions, fleet)
    wrong = {
        task: why
        for task in handles
        if (why := redriven_history_allowed([*events[task], *lost], skew=0.25)) is not None
    }
    assert not wrong, json.dumps(dict(list(wrong.items())[:5]), indent=1)
