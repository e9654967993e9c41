"""A namespace in which everything that others write is markup, script, a link or odd characters.

No client of ours writes most of it. A program with the credentials of a queue can, without the API, as is
done here.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from galley import note
from galley.address import TaskAddress
from galley.audit import Action, Entry, Writer
from galley.broker import audit, dead_letters, notes, schedules, topology
from galley.broker.connection import Broker
from galley.broker.control import (
    HEARTBEAT_SECONDS,
    Answer,
    Heartbeat,
    Pause,
    Request,
    Supply,
    Verb,
    answering,
    answering_supply,
)
from galley.broker.ensure import ensure
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.records import Records
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.dead_letter import DeadLetter
from galley.history import EndedBy, History, PastAttempt
from galley.record import Failure, Outcome, Record, State
from galley.repeat import Repeat
from galley.schedule import Progress, Schedule
from galley.topic import Subscription, Topic
from galley.workflow import state
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.gateways import Served, served

ROOM: Final = "markup"
NOW: Final = datetime.now(UTC).replace(microsecond=0)
EVIL: Final = (
    "`\"'><script>evil=1</script><img src=x onerror=evil=1>javascript:evil=1 "
    "\u202e\u2066\u200b&lt;\r\revent: login\r\r"
)


BRIEF: Final = "\"'><script>evil=1</script>"
"""The same for a field that is short."""


def evil(place: str) -> str:
    """Return what is written into a field: where it came from stands at its end."""
    return f"{EVIL}[{place}]"


SHOWS: Final = {
    "/queues": {"user"},
    "/queues/drills": {"user", "supply", "scaling"},
    "/queues/drills/tasks": {"user", "handler"},
    "/queues/drills/tasks?search=runs": {"user", "handler"},
    "/queues/drills/tasks/runs": {
        "user",
        "handler",
        "pinged",
        "progress",
        "stream",
        "line",
        "field",
        "past reason",
        "past message",
        "past worker",
        "past traceback",
    },
    "/queues/drills/tasks/failed": {
        "user",
        "handler",
        "worker",
        "reason",
        "message",
        "traceback",
        "input",
        "argument",
    },
    "/queues/drills/tasks/done": {"user", "handler", "worker", "result"},
    "/queues/drills/dead-letters": {"user", "handler", "reason", "message"},
    "/queues/drills/schedules": {"user", "scheduled", "problem", "last id"},
    "/queues/drills/workers": {"user", "supply", "scaling", "kind"},
    "/queues/drills/workflows": {"user", "failed step"},
    "/queues/drills/workflows/flow": {"user", "step"},
    "/topics": {"user"},
    "/topics/readings": {"user", "filter"},
    "/audit": {"user", "actor", "origin", "about", "detail"},
}
"""The pages, and the fields that each has to show, so that a page which leaves them out proves nothing."""


_written: set[str] = set()
"""Servers that have it: the files of tests that one process runs share a server."""


async def write_evil(server: str) -> None:
    """Write all that is kept in the namespace, once for each server."""
    if server in _written:
        return
    _written.add(server)
    layout = a_queue("drills", namespace=ROOM)
    async with Broker(server, name="evil") as broker, served(server, ROOM) as api:
        await ensure(broker, layout)
        rule = f"attributes.x == {json.dumps(evil('filter'), ensure_ascii=False)}"
        hot = Declared(Topic("readings"), (Subscription("hot", "drills", "echo", rule),))
        assert await TopicKeeper(broker, ROOM, "tests").keep([hot]) == []
        waits = {"handler": "echo", "id": "runs"}
        answer = await api.ask("POST", api.path("drills", "/tasks"), waits)
        assert answer.status == 201, answer
        await written_tasks(broker, layout)
        await written_schedule(broker)
        await written_workflow(api, broker)
        entry = Entry(Action.CANCEL, evil("actor"), evil("origin"), evil("about"), detail=evil("detail"))
        assert await audit.store(broker, ROOM, "drills", Writer.CLIENT, entry)


async def written_tasks(broker: Broker, layout: Any) -> None:
    """Write what a worker writes of its tasks."""
    records = Records(broker)

    def task(task_id: str) -> TaskAddress:
        return an_address(of=layout, id=task_id)

    past = PastAttempt(
        1, EndedBy.ERROR, evil("past reason"), evil("past message"), evil("past worker"), NOW,
        traceback=evil("past traceback"),
    )  # fmt: skip
    whole: dict[str, Any] = {
        "worker": evil("worker"), "handler": evil("handler"), "submitted_at": NOW, "started_at": NOW,
        "labels": {"\"><i>": "\"><img>"}, "history": History(errors=1, attempts=(past,)),
    }  # fmt: skip
    failure = Failure(evil("reason"), evil("message"), evil("traceback"))
    for task_id, record in (
        ("runs", Record(State.RUN, 2, **whole)),
        ("failed", Record(State.DONE, 2, ended_at=NOW, outcome=Outcome.FAILED, failure=failure, **whole)),
        ("done", Record(
            State.DONE, 2, ended_at=NOW, outcome=Outcome.SUCCEEDED,
            result=Raw(json.dumps(evil("result"), ensure_ascii=False).encode()), **whole,
        )),
    ):  # fmt: skip
        assert (await records.write(task(task_id), record, 0)).stored
    given = an_envelope(f"{BRIEF}[handler]", input={"value": evil("input"), evil("argument"): 1})
    letter = DeadLetter(
        failure, NOW, evil("worker"), 2, evil("lane"), whole["history"], Raw(msgspec.json.encode(given))
    )
    assert (await dead_letters.bury(broker, task("failed"), letter)).stored
    progress = note.encode(note.Progress(NOW, 2, 0.5, evil("progress")))
    line = note.LogLine(
        NOW, evil("stream"), evil("line"), logger=evil("logger"), fields={evil("field"): evil("value")}
    )
    output = note.encode(note.Output(2, evil("worker"), (line, note.LogLine(NOW, "stdout", "after"))))
    for what, body in ((note.PROGRESS, progress), (f"{note.OUTPUT}.2.w1-1", output)):
        assert (await (await notes.put(broker, task("runs"), what, body))).stored


async def written_workflow(api: Served, broker: Broker) -> None:
    """Submit a workflow, and write into what is kept of it."""
    flow = {"id": "flow", "steps": [
        {"name": "charge", "handler": "echo"}, {"name": "ship", "handler": "echo", "dependsOn": ["charge"]},
    ]}  # fmt: skip
    answer = await api.ask("POST", api.path("drills", "/workflows"), flow)
    assert answer.status == 201, answer
    stream, changed = topology.flow_stream(ROOM, "drills"), 0
    async for message in messages_of(broker, stream, topology.flows_of_queue(ROOM, "drills")):
        body = message.body.replace(b'"charge"', json.dumps(evil("step"), ensure_ascii=False).encode())
        if message.subject.endswith(".root"):
            root = replace(
                state.decode_root(message.body), ended=Outcome.FAILED, ended_at=NOW,
                failed=evil("failed step"), labels={"\"><i>": "\"><img>"},
            )  # fmt: skip
            body = state.encode(root)
        if body != message.body:
            changed += 1
            headers = header_block({topology.EXPECTED_SEQUENCE: str(message.sequence)})
            assert (await (await broker.pipeline.send(message.subject, body, headers))).stored, message
    assert changed == 2


async def written_schedule(broker: Broker) -> None:
    """Write a schedule as a manager of the queue could."""
    later = NOW + timedelta(days=9)
    kept = Schedule(
        "nightly", Repeat("@every 1h"), Raw(b"1"), evil("scheduled"), problem=evil("problem"),
        progress=Progress(last_at=NOW, last_id=evil("last id"), next_at=later),
    )  # fmt: skip
    ack = await schedules.store(broker, (ROOM, "drills"), kept, later, instead_of=0)
    assert ack.stored, ack


@asynccontextmanager
async def evil_workers(server: str) -> AsyncIterator[None]:
    """Have what starts the workers, and one worker, say what is evil during the block."""
    supply = Supply(
        evil("supply"), evil("scaling"), {evil("kind"): 1}, {Pause.MANIFEST: evil("pause")},
        evil("scaling problem"),
    )  # fmt: skip

    async def react(verb: Verb, request: Request) -> Answer | None:
        del verb
        return Answer(evil("pinged"), NOW) if request.task.endswith(".runs") else None

    async with (
        Broker(server, name="evil") as broker,
        answering_supply(broker, ROOM, "drills", lambda *_: supply),
        answering(broker, ROOM, "drills", react),
        heartbeats(broker),
    ):
        yield


@asynccontextmanager
async def heartbeats(broker: Broker) -> AsyncIterator[None]:
    """Send heartbeats of a worker during the block."""
    beat = Heartbeat(evil("heartbeat"), 4, 1, draining=False, ready=True, version=evil("version"))
    subject = topology.heartbeat_subject(ROOM, "drills", "w1")

    async def send() -> None:
        while True:
            broker.publish(subject, msgspec.json.encode(beat))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.wait([sending])
