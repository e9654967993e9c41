"""An id that is used again: the same work is the same task, other work is a conflict."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley import (
    AsyncClient,
    AsyncHandle,
    Call,
    Handler,
    Lane,
    Phase,
    SomeRefused,
    SubmissionInvalid,
    TaskCancelled,
    TaskConflict,
    TaskNotFound,
    When,
    call,
    connect,
)
from galley.address import Kind, TaskAddress
from galley.broker.ensure import ensure
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.declared import submit_declared
from galley.envelope import Envelope, digest_of
from galley.record import Outcome, Record, State
from galley.resources import parse_manifests
from galley.resources.task import Task
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue

RESIZE = call("images", "resize", path="a.jpg", edge=100)
OTHERS = [
    (call("images", "resize", path="b.jpg", edge=100), "input"),
    (call("images", "resize", path="a.jpg"), "input"),
    (call("images", "crop", path="a.jpg", edge=100), "handler"),
]


@pytest.fixture
async def client(nats_server: NatsServer, namespace: str) -> AsyncIterator[AsyncClient]:
    async with connect(nats_server.url, namespace) as client:
        await ensure(client.broker, a_queue("images", namespace=namespace, backlog=5))
        yield client


async def end(handle: AsyncHandle[object], outcome: Outcome = Outcome.SUCCEEDED, **fields: object) -> None:
    """End a task as a worker does: the record first, then the message."""
    broker, address = handle._broker, handle.address
    record = Record(State.DONE, 1, outcome=outcome, **fields)  # type: ignore[arg-type]
    assert (await Records(broker).write(address, record, 0, 3600)).stored
    await broker.api("clear", f"STREAM.PURGE.GW_{address.namespace}_{address.queue}")


async def place(client: AsyncClient, state: str) -> None:
    """Submit the task `k1` and bring it into a state."""
    later = When(not_before=datetime.now(UTC) + timedelta(hours=1)) if state == "scheduled" else None
    handle = await client.submit(RESIZE, later, task_id="k1")
    if state == "ended":
        await end(handle, handler="resize", digest=digest_of(RESIZE.handler, RESIZE.input))
    elif state == "cancelled":
        await handle.cancel()
    elif state == "cancelled by name":
        await client.handle("images", "k1").cancel()
    elif state == "running":
        record = Record(State.RUN, 1, handler="resize", digest=digest_of(RESIZE.handler, RESIZE.input))
        assert (await Records(client.broker).write(handle.address, record, 0)).stored


STATES = ["waiting", "scheduled", "running", "ended", "cancelled", "cancelled by name"]


@pytest.mark.parametrize("when", [When(), When(not_before=datetime(2100, 1, 1, tzinfo=UTC))])
@pytest.mark.parametrize("state", STATES)
async def test_the_same_work_is_the_same_task(client: AsyncClient, state: str, when: When) -> None:
    await place(client, state)
    before = await client.handle("images", "k1").status()

    again = await client.submit(RESIZE, when, task_id="k1")

    assert again.existed
    assert await again.status() == before
    assert await client.handle("images", "k1").status() == before


@pytest.mark.parametrize(("other", "differs"), OTHERS)
@pytest.mark.parametrize("state", STATES)
async def test_other_work_is_a_conflict_and_changes_nothing(
    client: AsyncClient, state: str, other: object, differs: str
) -> None:
    await place(client, state)
    before = await client.handle("images", "k1").status()

    with pytest.raises(TaskConflict, match=f"already, with another {differs}") as refused:
        await client.submit(other, task_id="k1")  # type: ignore[call-overload]

    assert (refused.value.queue, refused.value.task_id) == ("images", "k1")
    assert await client.handle("images", "k1").status() == before


async def test_a_new_id_is_a_new_task_and_says_so(client: AsyncClient) -> None:
    handle = await client.submit(RESIZE, task_id="k1")
    assert not handle.existed
    assert (await handle.status()).phase is Phase.QUEUED


async def test_an_id_that_galley_made_is_in_use_as_well(client: AsyncClient) -> None:
    made = await client.submit(RESIZE)
    assert (await client.submit(RESIZE, task_id=made.id)).existed
    with pytest.raises(TaskConflict, match="another input"):
        await client.submit(OTHERS[0][0], task_id=made.id)


async def test_a_record_without_the_input_still_tells_another_handler(client: AsyncClient) -> None:
    made = await client.submit(RESIZE)
    await end(made, handler="resize")
    assert (await client.submit(OTHERS[0][0], task_id=made.id)).existed
    with pytest.raises(TaskConflict, match="another handler"):
        await client.submit(OTHERS[2][0], task_id=made.id)


async def test_an_id_whose_record_is_gone_can_be_used_for_anything(client: AsyncClient) -> None:
    await place(client, "ended")
    await Records(client.broker).forget(client.handle("images", "k1").address)
    handle = await client.submit(OTHERS[2][0], task_id="k1")
    assert not handle.existed
    assert (await handle.status()).handler == "crop"


async def test_of_many_submissions_at_once_one_is_new(client: AsyncClient) -> None:
    handles = await asyncio.gather(*(client.submit(RESIZE, task_id="k1") for _ in range(20)))
    assert sorted(handle.existed for handle in handles) == [False] + [True] * 19


async def test_of_other_work_submitted_at_once_one_is_stored_and_the_rest_conflict(
    client: AsyncClient,
) -> None:
    calls = [call("images", "resize", n=n) for n in range(10)]
    came = await asyncio.gather(
        *(client.submit(each, task_id="k1") for each in calls), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in came) == ["AsyncHandle"] + ["TaskConflict"] * 9


async def test_a_conflict_that_was_missed_is_told_with_the_result(client: AsyncClient) -> None:
    # Scheduled and ready tasks lie in two streams, so both may be stored if they meet.
    handle = await client.submit(RESIZE, task_id="k1")
    await end(handle, handler="resize", digest=digest_of("resize", OTHERS[0][0].input))
    with pytest.raises(TaskConflict, match="another input"):
        await handle.result()


async def test_a_publish_whose_answer_was_lost_is_our_own(client: AsyncClient, namespace: str) -> None:
    address = TaskAddress(namespace, "images", Lane.NORMAL, Kind.DIRECT, "k1")
    envelope = Envelope("resize", datetime.now(UTC), digest=digest_of("resize", RESIZE.input))
    publisher = Publisher(client.broker)
    await publisher.publish(address, envelope, chosen_id=True)
    assert not (await publisher.publish_once(address, envelope)).duplicate


def declared(namespace: str, **spec: object) -> Task:
    fields = {"queueName": "images", "handler": "resize", "input": {"path": "a.jpg", "edge": 100}, **spec}
    text = "".join(f"  {name}: {value}\n" for name, value in fields.items())
    [task] = parse_manifests(
        "apiVersion: galley.dev/v1alpha1\nkind: Task\n"
        f"metadata: {{name: k1, namespace: {namespace}}}\nspec:\n{text}", "test"
    )  # fmt: skip
    assert isinstance(task, Task)
    return task


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"handler": "crop"}, "handler"),
        ({"input": {"path": "b.jpg"}}, "input"),
        ({"priority": "high"}, "spec"),
        ({"timeoutSeconds": 5}, "spec"),
        ({"retry": {"attempts": 5}}, "spec"),
        ({"deadline": "2100-01-01T00:00:00Z"}, "spec"),
        ({"notBefore": "2100-01-01T00:00:00Z"}, "spec"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
async def test_a_manifest_that_changed_is_a_conflict(
    client: AsyncClient, namespace: str, change: dict[str, object], differs: str, ended: bool
) -> None:
    task = declared(namespace)
    assert (await submit_declared(client.broker, task)).created
    if ended:
        await client.handle("images", "k1").cancel()

    assert not (await submit_declared(client.broker, task)).created
    with pytest.raises(TaskConflict, match=f"another {differs}"):
        await submit_declared(client.broker, declared(namespace, **change))


async def test_a_manifest_and_a_call_of_the_same_work_are_one_task(
    client: AsyncClient, namespace: str
) -> None:
    assert (await submit_declared(client.broker, declared(namespace))).created
    assert (await client.submit(RESIZE, task_id="k1")).existed
    with pytest.raises(TaskConflict):
        await client.submit(OTHERS[0][0], task_id="k1")


async def test_a_cancel_by_name_of_what_never_was_leaves_nothing(client: AsyncClient) -> None:
    with pytest.raises(TaskNotFound):
        await client.handle("images", "k1").cancel()
    handle = await client.submit(RESIZE, task_id="k1")
    assert not handle.existed
    await handle.cancel()
    with pytest.raises(TaskCancelled):
        await handle.result(within=5)


async def test_many_with_ids_of_their_own_are_stored_once_each(client: AsyncClient, namespace: str) -> None:
    await ensure(client.broker, a_queue("scans", namespace=namespace))

    def calls() -> list[Call[Any]]:
        return [
            call("scans", "resize", n=n).options(task_id=f"many-{n}", lane="high" if n == 7 else None)
            for n in range(600)
        ]

    first = await client.submit_many(calls())
    again = await client.submit_many(calls())
    assert [handle.id for handle in first] == [f"many-{n}" for n in range(600)]
    assert {handle.existed for handle in first} == {False}
    assert {handle.existed for handle in again} == {True}
    assert (await again[7].status()).address.lane is Lane.HIGH
    assert len(await client.tasks("scans")) == 600


async def test_one_of_many_that_conflicts_is_refused_and_the_others_are_stored(client: AsyncClient) -> None:
    await client.submit(call("images", "resize", n=1), task_id="taken")
    ids = ["free", "taken", "also-free"]
    with pytest.raises(SomeRefused) as some:
        await client.submit_many(call("images", "resize", n=2).options(task_id=one) for one in ids)
    assert list(some.value.submitted) == [0, 2]
    assert isinstance(some.value.refused[1], TaskConflict)


def print_n(n: int) -> None:
    """Stand for a handler."""


async def test_options_come_before_when_which_comes_before_the_decorator(client: AsyncClient) -> None:
    resize = Handler(print_n, "images", "resize", When(lane=Lane.LOW))
    one = await client.submit(resize.call(n=1))
    other = await client.submit(resize.call(n=2), When(lane=Lane.NORMAL, timeout_seconds=9))
    third = await client.submit(resize.call(n=3).options(lane="high", timeout_seconds=5), When(lane=Lane.LOW))
    assert [handle.address.lane for handle in (one, other, third)] == [Lane.LOW, Lane.NORMAL, Lane.HIGH]
    assert third.envelope is not None
    assert third.envelope.timeout_seconds == 5
    with pytest.raises(SubmissionInvalid, match="lane: 'urgent'"):
        resize.call(n=1).options(lane="urgent")
