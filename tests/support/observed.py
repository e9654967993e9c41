"""What can be seen of tasks afterwards: every revision of their records, and what their workers logged."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import NamedTuple

import msgspec

from galley import AsyncClient
from galley.broker import topology
from galley.record import Record, decode
from tests.support.protocol_history import LATER, WORK, Ended, Event, RecordWritten, Started
from tests.support.workers import WorkerProcess

REVISIONS_KEPT = 64


class Revision(NamedTuple):
    """One of the records a task has had."""

    task: str
    at: float
    sequence: int
    record: Record


async def keep_revisions(client: AsyncClient, queue: str = "drills") -> None:
    """Have every revision of a queue's records kept to be looked at; the queue has to be there."""
    name = topology.records_stream(client.namespace, queue)
    info = await client.broker.api("look", f"STREAM.INFO.{name}")
    definition = {**info["config"], "max_msgs_per_subject": REVISIONS_KEPT}
    await client.broker.api("keep revisions", f"STREAM.UPDATE.{name}", definition)


async def all_revisions(client: AsyncClient, queue: str = "drills") -> AsyncIterator[Revision]:
    """Yield every revision of every record, in order."""
    stream = topology.records_stream(client.namespace, queue)
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
            if headers["Nats-Subject"].split(".")[4:6] == ["unique", "key"]:
                continue
            task = headers["Nats-Subject"].rpartition(".")[2]
            yield Revision(task, time_of(headers["Nats-Time-Stamp"]), sequence - 1, decode(answer.data))
        if found < 500:
            return


def time_of(stamp: str) -> float:
    """Return the time of a message in seconds; its nanoseconds are more than `fromisoformat` reads."""
    return datetime.fromisoformat(f"{stamp[:26].rstrip('Z')}Z").timestamp()


def events_by_task(
    revisions: Iterable[Revision], fleet: Iterable[WorkerProcess]
) -> defaultdict[str, list[Event]]:
    """Return what was seen of each task. The workers have to log at level DEBUG."""
    events: defaultdict[str, list[Event]] = defaultdict(list)
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
    return events


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
