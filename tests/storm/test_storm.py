"""Nothing is lost and nothing ends twice, whatever is killed or frozen at whatever moment.

`GALLEY_STORM_TASKS` and `GALLEY_STORM_FAULTS` set its size (2,000 tasks and 12 faults unless set; `make
storm` runs 20,000 and 120), `GALLEY_STORM_SEED` its course.
"""

import asyncio
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from galley import Call, Client, Handle, Lane, Phase, When, call, connect
from galley.broker import topology
from galley.record import Outcome, Record, decode
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from tests.storm.faults import Storm
from tests.support.protocol_history import (
    LATER,
    WORK,
    Ended,
    Event,
    LeaseLost,
    RecordWritten,
    Started,
    history_allowed,
)
from tests.support.workers import WorkerProcess, a_task_queue, ensure_with_leases, workers

TASKS = int(os.environ.get("GALLEY_STORM_TASKS", "2000"))
FAULTS = int(os.environ.get("GALLEY_STORM_FAULTS", "12"))
SEED = int(os.environ.get("GALLEY_STORM_SEED", "20261121"))
LEASE = 3.0
REVISIONS_KEPT = 64


class Revision(NamedTuple):
    """One of the records a task has had."""

    task: str
    at: float
    sequence: int
    record: Record


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
        retry={"attempts": 3, "backoffSeconds": 0.2, "maxBackoffSeconds": 1, "crashes": 20},
    )
    names = ("w1", "w2", "w3")
    environment = {"GALLEY_LEASE_SECONDS": str(LEASE), "GALLEY_LOG_LEVEL": "DEBUG"}
    async with connect(own_nats_server.url, namespace) as client:
        await prepare(client, queue)
        with workers(own_nats_server.url, queue, tmp_path, names, **environment) as fleet:
            storm = Storm(own_nats_server, fleet, LEASE, SEED)
            handles = await submit_through(storm, client, tmp_path)
            outcomes = await all_outcomes(handles)
            revisions = [revision async for revision in all_revisions(client)]
            for worker in fleet:
                assert worker.end() == 0

    sys.stdout.write(
        f"\n{len(handles)} tasks, {sum(storm.done.values())} faults (seed {SEED}): {dict(storm.done)}\n"
        f"outcomes: {dict(outcomes)}; {len(revisions)} records written\n"
    )
    assert outcomes == {Phase.SUCCEEDED: TASKS}
    one_final_record_each(handles, revisions)
    failures_are_counted_once(revisions)
    what_the_protocol_allows(handles, revisions, fleet, storm.leases_lost)


async def prepare(client: Client, queue: TaskQueue) -> None:
    """Have the queue made, with short leases, and every revision of a record kept to be looked at."""
    await ensure_with_leases(client.broker, queue, LEASE)
    definition = topology.records_definition(client.namespace, "tests", 1)
    definition["max_msgs_per_subject"] = REVISIONS_KEPT
    await client.broker.api("keep revisions", f"STREAM.UPDATE.{definition['name']}", definition)


async def submit_through(storm: Storm, client: Client, folder: Path) -> dict[str, Handle[object]]:
    """Submit all tasks in as many parts as there are faults, one part between two faults."""
    handles: dict[str, Handle[object]] = {}
    for part in range(FAULTS):
        numbers = range(TASKS * part // FAULTS, TASKS * (part + 1) // FAULTS)
        sending = asyncio.create_task(submit(client, numbers, folder))
        await asyncio.sleep(storm.dice.uniform(0.05, 0.5))
        await storm.strike()
        handles |= {handle.id: handle for handle in await sending}
    return handles


async def submit(client: Client, numbers: range, folder: Path) -> list[Handle[object]]:
    """Submit the tasks of these numbers: each third fails once, each fifth has an id chosen here."""
    handles = []
    for lane in (Lane.HIGH, Lane.NORMAL, Lane.LOW):
        plain = [a_call(n, folder) for n in numbers if n % 3 == lane_of(lane) and n % 5]
        handles += await client.submit_many(plain, When(lane=lane))
        for n in numbers:
            if n % 3 == lane_of(lane) and n % 5 == 0:
                handles.append(await client.submit(a_call(n, folder), When(lane=lane), task_id=f"storm-{n}"))
    return handles


def lane_of(lane: Lane) -> int:
    return {Lane.HIGH: 0, Lane.NORMAL: 1, Lane.LOW: 2}[lane]


def a_call(number: int, folder: Path) -> Call[object]:
    if number % 3 == 0:
        return call("drills", "fail_once", path=str(folder / f"failed-{number}"))
    return call("drills", "work" if number % 2 else "awork", milliseconds=5)


async def all_outcomes(handles: dict[str, Handle[object]]) -> Counter[Phase]:
    """Wait for each task's end; a task that is lost would end this by its timeout."""
    outcomes: Counter[Phase] = Counter()
    async with asyncio.timeout(300):
        for handle in handles.values():
            await handle.result()
            outcomes[Phase.SUCCEEDED] += 1
    return outcomes


async def all_revisions(client: Client) -> AsyncIterator[Revision]:
    """Yield every revision of every record, in order."""
    stream = topology.records_stream(client.namespace)
    sequence = 1
    while True:
        request = {"seq": sequence, "next_by_subj": "galley.result.>", "batch": 500}
        found = 0
        async for answer in client.broker.request_many(
            f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request)
        ):
            headers = answer.headers or {}
            if "Nats-Subject" not in headers:
                break
            found += 1
            sequence = int(headers["Nats-Sequence"]) + 1
            task = headers["Nats-Subject"].rpartition(".")[2]
            yield Revision(task, time_of(headers["Nats-Time-Stamp"]), sequence - 1, decode(answer.data))
        if found < 500:
            return


def time_of(stamp: str) -> float:
    """Return the time of a message in seconds; its nanoseconds are more than `fromisoformat` reads."""
    return datetime.fromisoformat(f"{stamp[:26].rstrip('Z')}Z").timestamp()


def one_final_record_each(handles: dict[str, Handle[object]], revisions: list[Revision]) -> None:
    finals = Counter(revision.task for revision in revisions if revision.record.done)
    assert set(finals) == set(handles)
    assert [task for task, count in finals.items() if count != 1] == []


def failures_are_counted_once(revisions: list[Revision]) -> None:
    for revision in revisions:
        if revision.record.done:
            assert revision.record.outcome is Outcome.SUCCEEDED
            assert revision.record.history.errors <= 1, revision


def what_the_protocol_allows(
    handles: dict[str, Handle[object]],
    revisions: list[Revision],
    fleet: list[WorkerProcess],
    lost: list[LeaseLost],
) -> None:
    events: dict[str, list[Event]] = defaultdict(list)
    for task, at, sequence, record in revisions:
        events[task].append(
            RecordWritten(
                at=at,
                sequence=sequence,
                state=record.state.value,
                attempt=record.attempt,
                claim=(stream_of(record.claim.stream), record.claim.sequence) if record.claim else None,
                outcome=record.outcome.value if record.outcome else None,
            )
        )
    for worker in fleet:
        for line in worker.log():
            for event in events_of(worker.name, line):
                events[line["task"]].append(event)
    wrong = {
        task: why
        for task in handles
        if (why := history_allowed([*events[task], *lost], complete=True, skew=0.25)) is not None
    }
    assert not wrong, json.dumps(dict(list(wrong.items())[:5]), indent=1)


def stream_of(name: str) -> str:
    return LATER if name.startswith("GS_") else WORK


def events_of(worker: str, line: dict[str, str]) -> list[Event]:
    if line["event"] not in ("attempt started", "attempt ended"):
        return []
    at = datetime.fromisoformat(line["time"]).timestamp()
    attempt = int(line["attempt"])
    if line["event"] == "attempt ended":
        return [Ended(at=at, worker=worker, attempt=attempt, ending=line["ending"])]
    return [
        Started(
            at=at,
            worker=worker,
            stream=stream_of(line["stream"]),
            sequence=int(line["sequence"]),
            delivered=int(line["delivered"]),
            attempt=attempt,
            flagged=bool(line["flagged"]),
        )
    ]
