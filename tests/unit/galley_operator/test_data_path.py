"""Tasks from the API to the broker and back, over streams of events in memory."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from galley.address import Kind
from galley.broker import notes
from galley.broker.follow import React
from galley.broker.publish import Publisher
from galley.broker.topology import note_subject
from galley.envelope import Envelope
from galley.note import PROGRESS, Progress, encode
from galley.record import Outcome, Record, State
from galley_operator.cluster.ownership import USABLE_LABEL
from galley_operator.cluster.resource import SECRETS, TASKQUEUES, TASKS
from galley_operator.intake.intake import AT_ONCE
from galley_operator.status.records import RecordStream
from galley_operator.tasks.queue_keys import SecretKeys
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import BEGAN, Desk, desk

LATER = "2026-03-01T09:30:00Z"
"""When Tasks are made again in these tests."""


@in_virtual_time
async def test_a_task_is_admitted_under_its_name_and_its_outcome_is_written() -> None:
    async with desk() as it:
        it.queue()
        uid = it.api.task("one")["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        assert it.waiting() == ["one"]
        await it.end("one", uid=uid)
        await it.until("one", "Succeeded", "True", "Succeeded")
        assert it.api.status("one")["worker"] == "w1"


@in_virtual_time
async def test_a_task_waits_for_its_queue_and_is_admitted_once_there_is_one() -> None:
    async with desk() as it:
        it.api.task("one")
        await it.until("one", "Pending", "Unknown", "QueueNotFound")
        it.queue(streams=False)
        await it.until("one", "Pending", "Unknown", "QueueNotReady")
        it.queue()
        await it.until("one", "Queued", "Unknown", "Queued")


@in_virtual_time
async def test_a_task_of_a_queue_that_cannot_be_read_says_so() -> None:
    async with desk() as it:
        it.queue(worker={"modules": ["not a module"]})
        it.api.task("one")
        await it.until("one", "Pending", "Unknown", "QueueInvalid")


@in_virtual_time
async def test_a_full_queue_takes_the_rest_when_there_is_room() -> None:
    async with desk() as it:
        it.queue()
        it.server.streams["GW_default_images"].definition["max_msgs"] = 3
        for number in range(10):
            it.api.task(f"t{number}")
        await eventually(lambda: it.api.condition("t9")[2] == "QueueFull", within=30)
        it.server.streams["GW_default_images"].definition["max_msgs"] = 100
        await eventually(lambda: len(it.waiting()) == 10, within=60)
        for number in range(10):
            await it.until(f"t{number}", "Queued", "Unknown", "Queued")


@in_virtual_time
async def test_tasks_of_a_queue_that_was_deleted_say_so_and_go_on_once_it_is_back() -> None:
    async with desk() as it:
        it.queue()
        it.api.task("one")
        await it.until("one", "Queued", "Unknown", "Queued")
        it.queues.gone(it.api.objects[TASKQUEUES.plural, "default", "images"])
        await it.until("one", "Queued", "Unknown", "QueueNotFound")
        it.queue()
        await it.until("one", "Queued", "Unknown", "Queued")


@in_virtual_time
async def test_queues_that_do_not_exist_are_not_followed_however_many_are_named() -> None:
    async with desk() as it:
        for number in range(50):
            it.api.task(f"t{number}", queueName=f"none-{number}")
        for number in range(50):
            await it.until(f"t{number}", "Pending", "Unknown", "QueueNotFound")
        assert not it.path.records._streams


@in_virtual_time
async def test_a_queue_that_is_gone_is_followed_until_its_last_task_is_gone() -> None:
    def followed() -> bool:
        return any("follow records of" in each.get_name() for each in asyncio.all_tasks())

    async with desk() as it:
        it.queue()
        uid = it.api.task("one")["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        it.queues.gone(it.api.objects[TASKQUEUES.plural, "default", "images"])
        await it.until("one", "Queued", "Unknown", "QueueNotFound")
        assert followed()
        await it.end("one", uid=uid)
        await it.until("one", "Succeeded", "True", "Succeeded")
        await eventually(lambda: not followed(), within=30)
        it.queue()
        it.api.task("two")
        await it.until("two", "Queued", "Unknown", "Queued")
        it.api.remove(TASKS, "two")
        await it.until_gone("two")
        assert followed()
        it.queues.gone(it.api.objects[TASKQUEUES.plural, "default", "images"])
        await eventually(lambda: not followed(), within=30)


@in_virtual_time
async def test_a_queue_whose_records_cannot_be_read_keeps_no_task_of_another_waiting() -> None:
    async with desk() as it:
        follow = it.path.records._follow

        def lost(queue: tuple[str, str], react: React) -> RecordStream:
            stream = follow(queue, react)
            if queue[1] == "lost":
                stream.started.clear()
            return stream

        it.path.records._follow = lost
        it.queue("lost")
        it.queue()
        for number in range(AT_ONCE + 1):
            it.api.task(f"t{number}", queueName="lost")
        await asyncio.sleep(1)
        it.api.task("one")
        await it.until("one", "Queued", "Unknown", "Queued")
        await it.until("t0", "Pending", "Unknown", "RecordsUnread")
        it.path.records._streams["default", "lost"].started.set()
        await eventually(lambda: len(it.waiting("lost")) == AT_ONCE + 1, within=300)


@in_virtual_time
async def test_an_intake_that_was_interrupted_takes_as_many_tasks_at_once_as_before() -> None:
    async with desk() as it:
        intake = it.path.intake
        await asyncio.sleep(1)
        room = intake._room._value
        for _ in range(3):
            running = asyncio.create_task(intake.run())
            await asyncio.sleep(1)
            running.cancel()
            await asyncio.wait([running])
        assert intake._room._value == room


# Deletions.


@in_virtual_time
async def test_a_deleted_task_is_cancelled() -> None:
    async with desk() as it:
        it.queue()
        uid = it.api.task("one")["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        it.api.remove(TASKS, "one")
        await it.until_gone("one")
        stored = await it.record("one")
        assert stored is not None
        assert (stored.record.outcome, stored.record.uid) == (Outcome.CANCELLED, uid)


@in_virtual_time
async def test_a_task_deleted_and_made_again_at_once_runs_as_another() -> None:
    async with desk() as it:
        it.queue()
        it.api.task("one", input=1)
        await it.until("one", "Queued", "Unknown", "Queued")
        it.api.remove(TASKS, "one")
        second = it.api.task("one", input=2, created=LATER)["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        message = await it.message("one")
        assert (message.uid, bytes(message.input)) == (second, b"2")
        assert await it.record("one") is None


@in_virtual_time
async def test_a_task_that_ended_and_was_deleted_by_a_person_runs_again_when_it_is_made_again() -> None:
    async with desk() as it:
        it.queue()
        first = it.api.task("one")["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        await it.end("one", uid=first)
        await it.until("one", "Succeeded", "True", "Succeeded")
        it.api.remove(TASKS, "one")
        it.api.task("one", created=LATER)
        await it.until("one", "Queued", "Unknown", "Queued")
        assert it.waiting() == ["one"]
        assert await it.record("one") is None


@in_virtual_time
async def test_a_task_that_ended_is_not_taken_for_a_deleted_one() -> None:
    async with desk() as it:
        it.queue()
        uid = it.api.task("one")["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        await it.end("one", uid=uid, outcome=Outcome.SUCCEEDED, result=Raw(b"7"))
        await it.until("one", "Succeeded", "True", "Succeeded")
        await asyncio.sleep(30)
        stored = await it.record("one")
        assert stored is not None
        assert stored.record.outcome is Outcome.SUCCEEDED


@in_virtual_time
async def test_deletions_that_no_watch_told_are_found_by_the_next_listing() -> None:
    async with desk() as it:
        it.queue()
        it.api.task("one")
        it.api.task("two")
        await it.until("two", "Queued", "Unknown", "Queued")
        it.api.away = True
        it.api.cut()
        await asyncio.sleep(1)
        it.api.remove(TASKS, "one")
        it.api.oldest = it.api._version + 1  # the server has forgotten what happened until now
        it.api.away = False
        await it.until_gone("one", within=120)
        assert it.waiting() == ["two"]


@in_virtual_time
async def test_work_of_a_task_deleted_while_no_operator_ran_is_found_and_that_of_clients_left_alone() -> None:
    async with desk() as before:
        before.queue()
        before.api.task("gone")
        before.api.task("stays")
        await before.until("gone", "Queued", "Unknown", "Queued")
        await before.until("stays", "Queued", "Unknown", "Queued")
    before.api.remove(TASKS, "gone")
    async with desk(before.api, before.server) as it:
        await Publisher(it.broker).publish(it.address("direct"), Envelope("resize", BEGAN), chosen_id=True)
        await it.until_gone("gone", within=120)
        await asyncio.sleep(60)
        assert it.waiting() == ["stays", "direct"]


# One name, whichever command submitted it.


async def applied_by_a_client(it: Desk, name: str = "one", **spec: Any) -> None:
    """Submit what `galley apply` makes of a Task."""
    envelope = it.envelope(name, **spec)
    await Publisher(it.broker).publish(it.address(name), envelope, chosen_id=True)


@in_virtual_time
async def test_a_task_that_galley_apply_submitted_is_the_same_one() -> None:
    async with desk() as it:
        it.queue()
        await applied_by_a_client(it)
        uid = it.api.task("one")["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        assert it.waiting() == ["one"]
        await it.end("one", digest=it.envelope("one").digest)
        await it.until("one", "Succeeded", "True", "Succeeded")
        await eventually(lambda: it.owner("one") == uid, within=10)


@in_virtual_time
async def test_a_task_whose_work_ran_before_it_was_made_shows_that_outcome_and_does_not_run() -> None:
    async with desk() as it:
        it.queue()
        await applied_by_a_client(it)
        await it.end("one", digest=it.envelope("one").digest, result=Raw(b"7"))
        uid = it.api.task("one", created=LATER)["metadata"]["uid"]
        await it.until("one", "Succeeded", "True", "AlreadyRan")
        assert bytes(it.api.status("one")["result"]) == b"7"
        assert it.waiting() == []
        await eventually(lambda: it.owner("one") == uid, within=10)
        # As its message says: deleted and applied again, it runs.
        it.api.remove(TASKS, "one")
        it.api.task("one", created="2026-03-01T09:40:00Z")
        await it.until("one", "Queued", "Unknown", "Queued")
        assert it.waiting() == ["one"]


@in_virtual_time
async def test_other_work_under_the_name_is_left_alone_and_the_task_fails() -> None:
    async with desk() as it:
        it.queue()
        await applied_by_a_client(it, input=[1])
        it.api.task("one", input=[2])
        await it.until("one", "Failed", "False", "NameTaken")
        assert bytes((await it.message("one")).input) == b"[1]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ("Succeeded", "True", "AlreadyRan")),
        ({"input": {"other": 1}}, ("Queued", "Unknown", "Queued")),
    ],
)
def test_an_expired_task_is_remembered_by_name_and_spec(spec: Any, expected: tuple[str, str, str]) -> None:
    @in_virtual_time
    async def test() -> None:
        async with desk(task_ttl_seconds=60, expiry_seconds=10.0) as it:
            it.queue()
            uid = it.api.task("one")["metadata"]["uid"]
            await it.until("one", "Queued", "Unknown", "Queued")
            await it.end("one", uid=uid, digest=it.envelope("one").digest)
            await it.until("one", "Succeeded", "True", "Succeeded")
            it.path.expiry._clock = it.server.now
            gone = (TASKS.plural, "default", "one")
            await eventually(lambda: gone not in it.api.objects, within=300)
            stored = await it.record("one")
            assert stored is not None
            assert stored.record.remembered
            it.api.task("one", created="2026-03-01T10:30:00Z", **spec)
            await it.until("one", *expected)

    test()


# Another operator, before or after this one.


@in_virtual_time
async def test_what_is_there_is_taken_up_by_the_next_operator_and_published_by_neither_again() -> None:
    async with desk() as before:
        before.queue()
        for number in range(5):
            before.api.task(f"t{number}")
        await eventually(lambda: len(before.waiting()) == 5, within=30)
    await before_ends(before)
    async with desk(before.api, before.server) as it:
        await it.until("t0", "Succeeded", "True", "Succeeded")
        await it.until("t1", "Queued", "Unknown", "Queued")
        assert it.waiting() == ["t1", "t2", "t3", "t4"]
        assert it.path.look.admitted == 0


async def before_ends(it: Desk) -> None:
    """End one task while no operator runs."""
    async with MemoryBroker(it.server, "worker") as it.broker:
        await it.end("t0", uid=it.api.objects[TASKS.plural, "default", "t0"]["metadata"]["uid"])


@in_virtual_time
async def test_a_task_that_an_operator_before_0_2_admitted_is_followed_and_cancelled_by_its_uid() -> None:
    async with desk() as it:
        it.queue()
        ids = []
        for name in ("ends", "goes"):
            task = it.api.task(name)
            task["status"] = {"phase": "Queued", "conditions": []}
            uid = task["metadata"]["uid"]
            ids.append(uid)
            envelope = Envelope("resize", BEGAN)
            await Publisher(it.broker).publish(it.address(uid, Kind.DECLARED), envelope, chosen_id=True)
    async with desk(it.api, it.server) as now:
        await eventually(lambda: now.view.tasks.knows("default", ids[1]), within=30)
        assert now.waiting() == ids
        await now.end(ids[0], Kind.DECLARED)
        await now.until("ends", "Succeeded", "True", "Succeeded")
        now.api.remove(TASKS, "goes")
        await now.until_gone(ids[1])
        assert now.waiting() == []


@in_virtual_time
async def test_work_that_the_broker_lost_is_put_there_again() -> None:
    async with desk(resync_seconds=30.0) as it:
        it.queue()
        it.api.task("one")
        await it.until("one", "Queued", "Unknown", "Queued")
        it.server._purge(it.server.streams["GW_default_images"], {})
        await eventually(lambda: it.waiting() == ["one"], within=60)


# Nothing from outside ends it.


@in_virtual_time
async def test_a_broker_that_is_frozen_while_tasks_are_admitted_delays_them() -> None:
    async with desk() as it:
        it.queue()
        it.server.freeze()
        it.api.task("one")
        await asyncio.sleep(20)
        assert it.api.condition("one")[2] != "Queued"
        it.server.thaw()
        await it.until("one", "Queued", "Unknown", "Queued", within=120)
        assert it.faults == []


@in_virtual_time
async def test_a_task_says_that_the_broker_does_not_answer() -> None:
    async with desk() as it:
        it.queue()
        it.server.freeze()
        it.api.task("one")
        await eventually(lambda: it.api.condition("one")[0] == "Pending", within=120)
        assert it.api.condition("one")[2] in ("BrokerUnreachable", "BrokerSilent")
        it.server.thaw()
        await it.until("one", "Queued", "Unknown", "Queued", within=120)


BAD_RECORDS = [
    b"",
    b"not JSON",
    b'{"state":"run","attempt":1,"startedAt":"2026-03-01T12:00:00","v":1}',
    b'{"state":"run","attempt":1,"startedAt":"0001-01-01T00:00:00+14:00","v":1}',
    b'{"state":"run","attempt":99999999999999999999,"v":1}',
    b'{"state":"done","attempt":1,"outcome":"exploded","v":1}',
    b'{"state":"done","attempt":1,"v":77}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", BAD_RECORDS)
def test_a_record_that_cannot_be_read_costs_its_task_alone(body: bytes) -> None:
    @in_virtual_time
    async def test() -> None:
        async with desk() as it:
            it.queue()
            it.api.task("bad")
            await it.until("bad", "Queued", "Unknown", "Queued")
            stream = it.server.streams["GR_default_images"]
            it.server._store(stream, "galley.result.default.images.sdk.bad", {}, body)
        async with desk(it.api, it.server) as now:  # which looks the record up at its start
            now.api.task("good")
            await now.until("good", "Queued", "Unknown", "Queued")
            await asyncio.sleep(60)

    test()


@in_virtual_time
async def test_a_task_object_that_cannot_be_read_costs_itself_alone() -> None:
    async with desk() as it:
        it.queue()
        it.api.task("odd")["status"] = {"phase": "Queued", "attempts": "many", "queuedTime": 7}
        it.api.task("good")
        await it.until("good", "Queued", "Unknown", "Queued")
    async with desk(it.api, it.server) as now:
        now.api.task("another")
        await now.until("another", "Queued", "Unknown", "Queued")


PLACES: list[tuple[str, Callable[[Desk], tuple[object, str]]]] = [
    ("task kept", lambda it: (it.view._reflector, "_keep")),
    ("task changed", lambda it: (it.view.tasks, "changed")),
    ("new task told", lambda it: (it.path.intake, "new")),
    ("turn begun", lambda it: (it.path.intake, "_look_at")),
    ("departure settled", lambda it: (it.path.intake._departures, "settle")),
    ("records followed", lambda it: (it.path.records, "followed")),
    ("facts read", lambda it: (it.path.look, "facts")),
    ("record read", lambda it: (it.path._nats, "record")),
    ("step carried out", lambda it: (it.path.look, "carry_out")),
    ("task published", lambda it: (it.path._nats, "publish")),
    ("report taken", lambda it: (it.path.status, "report")),
    ("status made", lambda it: (it.path.status, "_end_of")),
    ("status written", lambda it: (it.api, "replace_status")),
    ("record heard", lambda it: (it.path.records, "_passed_on")),
    ("queue looked up", lambda it: (it.queues, "get")),
]


@pytest.mark.parametrize(("place", "of"), PLACES, ids=[place for place, _ in PLACES])
def test_an_exception_in_a_callback_costs_one_task_is_counted_and_tried_again(
    place: str, of: Callable[[Desk], tuple[object, str]]
) -> None:
    @in_virtual_time
    async def test() -> None:
        async with desk(resync_seconds=30.0) as it:
            it.queue()
            holder, name = of(it)
            real = getattr(holder, name)
            raised = 0

            def broken(*arguments: Any, **named: Any) -> Any:
                nonlocal raised
                if raised < 2:
                    raised += 1
                    raise RuntimeError(f"broken: {place}")
                return real(*arguments, **named)

            setattr(holder, name, broken)
            uid = it.api.task("one")["metadata"]["uid"]
            it.api.task("two")
            if place in ("task kept", "task changed", "new task told"):
                await eventually(lambda: len(it.faults) >= 1, within=30)
                it.api.touch(TASKS, "default", "one")  # a change brings it again, as the next listing does
                it.api.touch(TASKS, "default", "two")
                it.api.cut()
                it.api.oldest = it.api._version + 1
            await it.until("two", "Queued", "Unknown", "Queued", within=900)
            if place == "record heard":
                await it.write("one", Record(State.RUN, 1, uid=uid, started_at=it.server.now()))
                await eventually(lambda: raised > 0, within=30)
            await it.end("one", uid=uid)
            await it.until("one", "Succeeded", "True", "Succeeded", within=900)
            assert raised > 0
            assert it.faults != []

    test()


@in_virtual_time
async def test_a_loop_that_ends_with_an_exception_is_started_again() -> None:
    async with desk() as it:
        it.queue()
        await asyncio.sleep(1)
        turns = it.path.intake.turns
        real, raised = turns.next, 0

        async def broken() -> Any:
            nonlocal raised
            if raised < 3:
                raised += 1
                raise RuntimeError("broken")
            return await real()

        turns.next = broken  # type: ignore[method-assign]
        it.api.task("one")
        it.api.task("two")
        await it.until("two", "Queued", "Unknown", "Queued", within=300)
        assert "intake" in it.faults


# Progress.


async def say(it: Desk, name: str, fraction: float, text: str = "", attempt: int = 1) -> None:
    """Report a progress as a worker does."""
    said = Progress(it.server.now(), attempt, fraction, text)
    await (await notes.put(it.broker, it.address(name), PROGRESS, encode(said)))


async def begin(it: Desk, name: str, **changes: Any) -> None:
    """Admit a Task and begin its attempt as a worker does."""
    it.queue()
    uid = it.api.task(name)["metadata"]["uid"]
    await it.until(name, "Queued", "Unknown", "Queued")
    started = {"worker": "w1", "started_at": it.server.now(), "uid": uid}
    await it.write(name, Record(State.RUN, **{"attempt": 1, **started, **changes}))


@in_virtual_time
async def test_progress_is_written_at_most_once_a_second_and_stays_when_the_task_has_ended() -> None:
    async with desk() as it:
        await begin(it, "one")
        written = it.path.writer.written
        for step in range(100):
            await say(it, "one", step / 100, f"page {step}")
            await asyncio.sleep(0.05)
        assert 3 <= it.path.writer.written - written <= 5
        await asyncio.sleep(2)
        assert it.api.status("one")["phase"] == "Running"
        assert it.api.status("one")["progress"] == {"fraction": 0.99, "note": "page 99"}
        await it.end("one")
        await it.until("one", "Succeeded", "True", "Succeeded")
        assert it.api.status("one")["progress"] == {"fraction": 0.99, "note": "page 99"}


@in_virtual_time
async def test_progress_of_the_attempt_before_is_not_shown() -> None:
    async with desk() as it:
        await begin(it, "one")
        await say(it, "one", 0.7)
        await eventually(lambda: "progress" in it.api.status("one"), within=5)
        await it.write("one", Record(State.RUN, attempt=2, worker="w2", started_at=it.server.now()))
        await eventually(lambda: it.api.status("one")["attempts"] == 2, within=10)
        assert "progress" not in it.api.status("one")
        await say(it, "one", 0.1, attempt=2)
        await eventually(lambda: it.api.status("one").get("progress") == {"fraction": 0.1}, within=5)


@in_virtual_time
async def test_progress_of_direct_tasks_and_of_encrypted_queues_is_not_written() -> None:
    async with desk() as it:
        await begin(it, "one")
        await it.until("one", "Running", "Unknown", "Running")
        written = it.path.writer.written
        await say(it, "other", 0.5)
        await (await it.broker.pipeline.send(note_subject(it.address("one"), PROGRESS), b'{"sealed":"x"}'))
        await (await it.broker.pipeline.send(note_subject(it.address("one"), PROGRESS), b"{}"))
        await asyncio.sleep(10)
        assert it.path.writer.written == written
        assert it.faults == []


@in_virtual_time
async def test_a_new_leader_keeps_the_progress_and_reads_what_was_said_meanwhile() -> None:
    async with desk() as it:
        names = "heard", "missed", "sealed"
        for name in names:
            await begin(it, name)
            await say(it, name, 0.2)
        await eventually(lambda: all("progress" in it.api.status(name) for name in names), within=30)
        api, server = it.api, it.server
    async with MemoryBroker(server, "worker") as broker:
        address = it.address("missed")
        await (await notes.put(broker, address, PROGRESS, encode(Progress(server.now(), 1, 0.8))))
        await (await broker.pipeline.send(note_subject(it.address("sealed"), PROGRESS), b'{"sealed":"x"}'))
    async with desk(api, server) as again:
        await eventually(lambda: api.status("missed")["progress"] == {"fraction": 0.8}, within=10)
        await asyncio.sleep(5)
        assert api.status("heard")["progress"] == {"fraction": 0.2}
        assert again.faults == []


@in_virtual_time
async def test_progress_said_while_the_broker_was_away_is_read_when_it_is_back() -> None:
    async with desk() as it:
        await begin(it, "one")
        await say(it, "one", 0.2)
        await eventually(lambda: "progress" in it.api.status("one"), within=5)
        async with MemoryBroker(it.server, "worker") as broker:
            it.broker.line.cut()
            said = encode(Progress(it.server.now(), 1, 0.9))
            await (await notes.put(broker, it.address("one"), PROGRESS, said))
            await eventually(lambda: it.api.status("one")["progress"] == {"fraction": 0.9}, within=30)


@in_virtual_time
async def test_a_secret_whose_owner_did_not_consent_is_not_looked_at() -> None:
    """Who may create a queue and a Task was told entries of any Secret, of `primary` also the value."""
    async with desk() as it:
        entry = {"primary": base64.b64encode(b"postgres://db.example").decode()}
        metadata: dict[str, Any] = {"name": "theirs", "namespace": "default"}
        it.api.put(SECRETS, {"metadata": metadata, "data": entry})
        it.server.create(a_queue(encrypted=True))
        it.queue(streams=False, encryption={"secretName": "theirs"})
        it.api.task("spy")

        def told() -> str:
            return json.dumps(it.api.status("spy"))

        await eventually(lambda: "ReferenceNotAllowed" in told(), within=120, why="the reason of the Task")
        assert "postgres" not in told()
        assert "primary" not in told()
        key = base64.b64encode(b"k" * 32)
        good = {"primary": b"one", "one": key}
        metadata = metadata | {"labels": {USABLE_LABEL: "allowed"}}
        data = {name: base64.b64encode(value).decode() for name, value in good.items()}
        it.api.put(SECRETS, {"metadata": metadata, "data": data})
        assert (await SecretKeys(it.api, "default", "theirs").wrap(b"d" * 32)).key_id == "one"
        assert it.faults == []
