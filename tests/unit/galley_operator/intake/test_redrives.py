"""A failed Task runs again in place: once for each value of its label, whatever happens in between."""

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from galley.broker import dead_letters
from galley.dead_letter import DeadLetter
from galley.envelope import encode
from galley.record import Failure, Outcome
from galley.redrive import AsyncDeadLetters
from galley_operator.cluster.errors import ClusterUnreachable
from galley_operator.cluster.resource import EVENTS, TASKS
from galley_operator.events import Events, Occurrence
from galley_operator.intake.redrives import REDRIVE_LABEL
from tests.support.eventually import eventually
from tests.support.memory_cluster import Written
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import BEGAN, Desk, desk

FAILURE = Failure("ValueError", "no such colour")


async def fails(it: Desk, name: str, attempt: int = 1) -> None:
    """Have a task end as a worker ends one that failed: record, letter, acknowledgement."""
    envelope, address = await it.message(name), it.address(name)
    await it.end(name, attempt=attempt, outcome=Outcome.FAILED, failure=FAILURE, uid=envelope.uid)
    letter = DeadLetter(FAILURE, BEGAN, "w1", attempt, "normal", envelope=Raw(encode(envelope)))
    assert (await dead_letters.bury(it.broker, address, letter)).stored
    await it.until(name, "Failed", "False", "ValueError")


async def is_labelled_without_a_letter(it: Desk) -> str:
    """Have a task fail whose dead letter is lost, and be labelled to run again; returns its uid."""
    it.queue()
    it.api.task("one")
    await it.until("one", "Queued", "Unknown", "Queued")
    uid: str = it.api.objects[TASKS.plural, "default", "one"]["metadata"]["uid"]
    changes: dict[str, Any] = {"outcome": Outcome.FAILED, "failure": FAILURE, "uid": uid}
    await it.end("one", **changes)
    await it.until("one", "Failed", "False", "ValueError")
    label(it, "one", "1")
    return uid


def label(it: Desk, name: str, value: str) -> None:
    it.api.objects[TASKS.plural, "default", name]["metadata"].setdefault("labels", {})[REDRIVE_LABEL] = value
    it.api.touch(TASKS, "default", name)


@in_virtual_time
async def test_a_failed_task_runs_again_once_for_each_value_of_its_label() -> None:
    async with desk() as it:
        it.queue()
        it.api.task("one")
        await it.until("one", "Queued", "Unknown", "Queued")
        await fails(it, "one")
        label(it, "one", "1")
        await waits(it, 2)
        assert it.api.status("one")["phase"] in {"Queued", "Retrying"}
        await fails(it, "one", 2)
        it.api.touch(TASKS, "default", "one")
        await asyncio.sleep(60)
        assert (await it.record("one")).record.done, "the same value is not heeded twice"  # type: ignore[union-attr]
        label(it, "one", "2")
        await waits(it, 3)
        uid = it.api.objects[TASKS.plural, "default", "one"]["metadata"]["uid"]
        await it.end("one", attempt=3, uid=uid)
        await it.until("one", "Succeeded", "True", "Succeeded")


async def waits(it: Desk, attempt: int) -> None:
    """Wait until the task waits for an attempt, which its status tells."""

    async def noted() -> bool:
        stored = await it.record("one")
        phase = it.api.status("one")["phase"]
        return stored is not None and stored.record.attempt == attempt and phase != "Failed"

    await eventually(noted, within=60)


@pytest.mark.parametrize("answered", [True, False])
@in_virtual_time
async def test_a_status_that_could_not_be_written_is_written_later(answered: bool) -> None:
    async with desk() as it:
        it.queue()
        it.api.task("one")
        await it.until("one", "Queued", "Unknown", "Queued")
        await fails(it, "one")
        lost = iter([True])

        def refuse(request: Written) -> None:
            if request.plural == TASKS.plural and next(lost, False):
                raise ClusterUnreachable("memory", "write", "it is away")

        if answered:
            it.api.before = refuse
        else:
            it.api.after = refuse
        label(it, "one", "1")
        await waits(it, 2)


@in_virtual_time
async def test_an_unexpected_error_costs_a_pause_and_no_other_task(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, redrive = iter([True]), AsyncDeadLetters.redrive_declared

    async def fail_once(*asked: Any) -> Any:
        if next(lost, False):
            raise RuntimeError("raised by a test")
        return await redrive(*asked)

    monkeypatch.setattr(AsyncDeadLetters, "redrive_declared", fail_once)
    async with desk() as it:
        it.queue()
        it.api.task("one")
        await it.until("one", "Queued", "Unknown", "Queued")
        await fails(it, "one")
        label(it, "one", "1")
        await waits(it, 2)
        assert it.faults == ["redrive"]


@in_virtual_time
async def test_a_task_without_a_dead_letter_stays_as_it_is() -> None:
    async with desk() as it:
        uid = await is_labelled_without_a_letter(it)
        it.api.task("two")
        await it.until("two", "Queued", "Unknown", "Queued")
        assert it.api.status("one")["phase"] == "Failed"
        assert it.faults == []
        (event,) = [body for (kind, _, _), body in it.api.objects.items() if kind == EVENTS.plural]
        about = event["regarding"]
        assert (about["kind"], about["namespace"], about["name"], about["uid"]) == (
            "Task",
            "default",
            "one",
            uid,
        )
        assert (event["type"], event["reason"]) == ("Warning", "NotRedriven")
        assert event["note"].startswith(
            "queue 'images' keeps no dead letter of a task 'one'; to run it again"
        )


@in_virtual_time
async def test_an_event_that_cannot_be_made_is_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, write = iter([True]), Events.write

    async def fail_once(events: Events, occurrence: Occurrence) -> None:
        if next(lost, False):
            raise RuntimeError("raised by a test")
        await write(events, occurrence)

    monkeypatch.setattr(Events, "write", fail_once)
    async with desk() as it:
        await is_labelled_without_a_letter(it)
        await eventually(lambda: any(kind == EVENTS.plural for kind, _, _ in it.api.objects), within=60)
        assert it.faults == ["redrive"]
