"""The producer's side against a real broker, with no worker about."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from galley import (
    AsyncClient,
    BrokerUnreachable,
    Cancelled,
    InputInvalid,
    Lane,
    LaneNotEnabled,
    Phase,
    QueueFull,
    QueueNotFound,
    ResultTimeout,
    RetryPolicy,
    SomeRefused,
    SubmissionInvalid,
    TaskCancelled,
    TaskNotFound,
    When,
    call,
    connect,
    dev_file,
)
from galley import handle as handle_module
from galley.address import TaskAddress
from galley.broker import inspect, queue_view
from galley.broker.connection import Broker
from galley.broker.ensure import ensure, remove
from galley.broker.errors import QueueConflict
from galley.broker.records import Records
from galley.record import Stored
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.eventually import eventually


@pytest.fixture
async def client(nats_server: NatsServer, namespace: str) -> AsyncIterator[AsyncClient]:
    async with connect(nats_server.url, namespace) as client:
        await ensure(client.broker, a_queue("images", namespace=namespace, backlog=5))
        yield client


async def test_a_task_submitted_while_no_worker_runs_waits(client: AsyncClient) -> None:
    handle = await client.submit(call("images", "resize", path="a.jpg"))

    status = await handle.status()

    assert (status.phase, status.handler, status.attempt) == (Phase.QUEUED, "resize", 0)


@pytest.mark.parametrize(("silent", "heard"), [(2, True), (3, False)])
async def test_a_wait_outlives_a_broker_that_is_silent_for_a_while(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, silent: int, heard: bool
) -> None:
    handle = await client.submit(call("images", "resize"))
    assert await handle.cancel() is Cancelled.BEFORE_START
    looks, look_up = iter(range(silent)), Records.look_up

    async def unheard(records: Records, address: TaskAddress) -> Stored | None:
        if next(looks, None) is not None:
            raise BrokerUnreachable(client.broker.server, "no answer")
        return await look_up(records, address)

    monkeypatch.setattr(Records, "look_up", unheard)
    with pytest.raises(TaskCancelled if heard else BrokerUnreachable):
        await handle.result(within=20)


async def test_waiting_for_a_result_ends_when_the_caller_says(client: AsyncClient) -> None:
    handle = await client.submit(call("images", "resize"))

    with pytest.raises(ResultTimeout, match=rf"task {handle.id} had not ended after 0.1 s"):
        await handle.result(within=0.1)


async def test_an_unknown_queue_is_named(client: AsyncClient) -> None:
    with pytest.raises(QueueNotFound, match="there is no queue 'nowhere'"):
        await client.submit(call("nowhere", "resize"))


async def test_a_lane_the_queue_has_not_is_refused_with_those_it_has(client: AsyncClient) -> None:
    with pytest.raises(LaneNotEnabled, match="no lane 'critical'") as refusal:
        await client.submit(call("images", "resize"), When(lane=Lane.CRITICAL))

    assert "high, normal, low" in refusal.value.hint


async def test_a_full_queue_refuses_the_next_task(client: AsyncClient) -> None:
    await client.submit_many([call("images", "resize", n=n) for n in range(5)])

    with pytest.raises(QueueFull, match="queue 'images' is full"):
        await client.submit(call("images", "resize"))


async def test_of_many_tasks_the_accepted_ones_are_told_from_the_refused(client: AsyncClient) -> None:
    with pytest.raises(SomeRefused, match="3 of 8 tasks were refused") as refusal:
        await client.submit_many([call("images", "resize", n=n) for n in range(8)])

    assert sorted(refusal.value.handles) == [0, 1, 2, 3, 4]
    assert {type(error) for error in refusal.value.refused.values()} == {QueueFull}


async def test_an_input_too_large_for_a_task_is_refused_before_it_travels() -> None:
    with pytest.raises(InputInvalid, match="70000011 bytes of JSON, the limit is 67108864") as refusal:
        call("images", "resize", blob="x" * 70_000_000)

    assert "galley.File" in refusal.value.hint


async def test_an_input_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(InputInvalid, match="resize"):
        call("images", "resize", shape=object())


@pytest.mark.parametrize("task_id", ["", "with.dots", "x" * 65, "späti", "a b"])
async def test_an_id_that_cannot_stand_in_a_subject_is_refused(client: AsyncClient, task_id: str) -> None:
    with pytest.raises(SubmissionInvalid, match="task id"):
        await client.submit(call("images", "resize"), task_id=task_id)


async def test_the_same_id_twice_is_one_task(client: AsyncClient, namespace: str) -> None:
    first = await client.submit(call("images", "resize", n=1, m=2), task_id="holiday-1")
    again = call("images", "resize", m=2.0, n=1)
    second = await client.submit(again, When(lane=Lane.HIGH), task_id="holiday-1")

    assert (first.existed, second.existed) == (False, True)
    assert second.address == first.address
    assert [view.held for view in await queue_view.queues(client.broker, namespace)] == [1]


async def test_a_task_for_later_is_scheduled_until_it_is_due(client: AsyncClient) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    handle = await client.submit(call("images", "resize"), When(not_before=at))

    status = await handle.status()

    assert (status.phase, status.due_at) == (Phase.SCHEDULED, at)


async def test_a_waiting_task_is_cancelled(client: AsyncClient, namespace: str) -> None:
    handle = await client.submit(call("images", "resize"))

    assert await handle.cancel() is Cancelled.BEFORE_START
    assert (await handle.status()).phase is Phase.CANCELLED
    assert [view.held for view in await queue_view.queues(client.broker, namespace)] == [0]
    with pytest.raises(TaskCancelled, match=handle.id):
        await handle.result(within=1)


async def test_a_scheduled_task_is_cancelled(client: AsyncClient, namespace: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    handle = await client.submit(call("images", "resize"), When(not_before=at))

    assert await handle.cancel() is Cancelled.BEFORE_START
    assert [view.later for view in await queue_view.queues(client.broker, namespace)] == [0]


async def test_cancelling_twice_is_too_late_the_second_time(client: AsyncClient) -> None:
    handle = await client.submit(call("images", "resize"))
    await handle.cancel()

    assert await handle.cancel() is Cancelled.TOO_LATE


async def test_cancelling_a_task_that_was_not_submitted_leaves_nothing_behind(client: AsyncClient) -> None:
    handle = client.handle("images", "never-seen")

    with pytest.raises(TaskNotFound, match="never-seen"):
        await handle.cancel()
    with pytest.raises(TaskNotFound):
        await handle.status()


async def test_who_cancels_a_step_that_was_not_submitted_is_led_to_its_workflow(client: AsyncClient) -> None:
    for step in ("flow_order-42_3", "flow_order-42_x"):
        with pytest.raises(TaskNotFound) as missing:
            await client.handle("images", step).cancel()
        assert ("`galley workflow show images/order-42`" in missing.value.hint) is step.endswith("3")


async def test_the_result_of_an_id_that_never_was_is_not_waited_for_long(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle_module, "APPEARS_SECONDS", 0.1)
    handle = client.handle("images", "never-seen")

    for wait in (handle.result, handle.wait):
        with pytest.raises(TaskNotFound, match="no task 'never-seen' in queue 'images'"):
            await wait()
    waiting = await client.submit(call("images", "resize").options(task_id="waits"))
    later = When(not_before=datetime.now(UTC) + timedelta(hours=1))
    delayed = await client.submit(call("images", "resize").options(task_id="delayed"), later)
    for known in (waiting, delayed):
        with pytest.raises(ResultTimeout):
            await client.handle("images", known.id).result(within=0.2)


async def test_a_task_may_be_submitted_a_moment_after_a_wait_for_its_id_began(client: AsyncClient) -> None:
    waiting = asyncio.create_task(client.handle("images", "soon").wait())
    await asyncio.sleep(0)
    handle = await client.submit(call("images", "resize").options(task_id="soon"))
    await handle.cancel()
    assert (await waiting).phase is Phase.CANCELLED


async def test_a_wait_for_a_result_that_has_expired_ends_by_saying_so(client: AsyncClient) -> None:
    handle = await client.submit(call("images", "resize"))
    await handle.cancel()
    await Records(client.broker).forget(handle.address)

    with pytest.raises(TaskNotFound, match=handle.id):
        await handle.result(within=1)


async def test_a_task_of_a_queue_that_does_not_exist_is_not_found_for_that_reason(
    client: AsyncClient,
) -> None:
    with pytest.raises(QueueNotFound, match="there is no queue 'nowhere'"):
        await client.handle("nowhere", "never-seen").status()


async def test_where_there_never_was_a_queue_that_is_what_is_missing(
    nats_server: NatsServer, namespace: str
) -> None:
    async with connect(nats_server.url, namespace) as client:
        handle = client.handle("images", "never-seen")
        for ask in (handle.status, handle.result, handle.cancel):
            with pytest.raises(
                QueueNotFound, match=f"no queue 'images' in namespace '{namespace}'"
            ) as missing:
                await ask()
            assert missing.value.hint.startswith("check the name and the namespace")


async def test_all_tasks_of_a_queue_are_listed(client: AsyncClient, namespace: str) -> None:
    later = When(not_before=datetime.now(UTC) + timedelta(hours=1))
    waiting = await client.submit(call("images", "resize"))
    scheduled = await client.submit(call("images", "resize"), later)
    cancelled = await client.submit(call("images", "resize"))
    await cancelled.cancel()

    found = {
        status.address.id: status.phase async for status in inspect.tasks(client.broker, namespace, "images")
    }

    assert found == {
        waiting.id: Phase.QUEUED,
        scheduled.id: Phase.SCHEDULED,
        cancelled.id: Phase.CANCELLED,
    }


async def test_tasks_are_found_by_their_labels_waiting_or_ended(client: AsyncClient) -> None:
    gold = await client.submit(call("images", "resize"), labels={"tier": "gold"})
    ended = await client.submit(call("images", "resize").options(labels={"tier": "gold", "old": ""}))
    await client.submit(call("images", "resize"), When(labels={"tier": "low"}))
    await client.handle("images", ended.id).cancel()

    found = await client.tasks("images", labels="tier=gold")

    assert [(status.address.id, status.labels) for status in found] == [
        (gold.id, {"tier": "gold"}),
        (ended.id, {"tier": "gold", "old": ""}),
    ]


async def test_ensuring_a_queue_again_changes_nothing_and_loses_nothing(
    client: AsyncClient, namespace: str
) -> None:
    handle = await client.submit(call("images", "resize"))

    for backlog in (5, 50):
        await ensure(client.broker, a_queue("images", namespace=namespace, backlog=backlog))

    assert (await handle.status()).phase is Phase.QUEUED
    assert [view.backlog_limit for view in await queue_view.queues(client.broker, namespace)] == [50]


async def test_a_lane_that_holds_tasks_cannot_be_taken_away(client: AsyncClient, namespace: str) -> None:
    handle = await client.submit(call("images", "resize"), When(lane=Lane.LOW))
    fewer = a_queue("images", namespace=namespace, lanes=(Lane.NORMAL,))

    with pytest.raises(QueueConflict, match="lane low cannot go while it holds 1 tasks"):
        await ensure(client.broker, fewer)
    await handle.cancel()
    await ensure(client.broker, fewer)

    with pytest.raises(LaneNotEnabled):
        await client.submit(call("images", "resize"), When(lane=Lane.LOW))


async def test_a_queue_of_another_installation_is_left_alone(client: AsyncClient, namespace: str) -> None:
    with pytest.raises(QueueConflict, match="not of installation 'other'"):
        await ensure(client.broker, a_queue("images", namespace=namespace, install="other"))


async def test_a_removed_queue_takes_no_tasks(client: AsyncClient, namespace: str) -> None:
    await remove(client.broker, namespace, "images")
    await remove(client.broker, namespace, "images")

    with pytest.raises(QueueNotFound):
        await client.submit(call("images", "resize"))


async def test_a_program_finds_its_server_and_namespace_in_the_environment(
    client: AsyncClient, nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALLEY_SERVER", nats_server.url)
    monkeypatch.setenv("GALLEY_NAMESPACE", namespace)
    async with connect() as found:
        assert (found.broker.server, found.namespace) == (nats_server.url, namespace)
    async with connect(namespace="other") as found:
        assert found.namespace == "other"


async def test_a_program_finds_the_galley_dev_of_its_folder(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GALLEY_SERVER", raising=False)
    monkeypatch.delenv("GALLEY_NAMESPACE", raising=False)
    (tmp_path / dev_file.FOLDER).mkdir()
    dev_file.write(tmp_path, dev_file.DevFile(nats_server.url, "ships", os.getpid(), "2026-03-01T12:00:00Z"))
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    async with connect() as found:
        assert (found.broker.server, found.namespace) == (nats_server.url, "ships")


async def test_no_server_is_said_so_within_the_time_given(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokerUnreachable, match="no answer from NATS at") as error:
        async with Broker("nats://127.0.0.1:1", name="test", connect_seconds=0.5):
            pass

    assert "GALLEY_SERVER" in error.value.hint
    assert not caplog.messages, "the error says it, and a program that logs nothing shows no more than that"


async def test_a_server_that_went_away_is_said_so_and_the_task_can_be_submitted_again(
    own_nats_server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "galley.broker.connection")
    async with connect(own_nats_server.url, namespace) as client:
        await ensure(client.broker, a_queue("images", namespace=namespace))
        own_nats_server.kill()
        with pytest.raises(BrokerUnreachable):
            await AsyncClient.over(client.broker, namespace, patience_seconds=0.5).submit(
                call("images", "resize"), task_id="once"
            )
        attempts = "broker connection error"
        await eventually(lambda: [line for line in caplog.records if line.msg == attempts][3:], within=20)
        await own_nats_server.start()
        await client.submit(call("images", "resize"), task_id="once")

        assert [view.held for view in await queue_view.queues(client.broker, namespace)] == [1]
        lines = [line for line in caplog.records if line.msg == attempts]
        told = [vars(line)["error"] for line in lines if line.levelname == "WARNING"]
        assert len(set(told)) == len(told) < len(lines), "each reason once, and not at each attempt"
        caplog.clear()
        for _ in range(2):
            await client.broker.nats._error_cb(OSError("a message was dropped"))
        assert [line.levelname for line in caplog.records] == ["WARNING"] * 2, "on a connection each is news"


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"deadline": datetime(2030, 1, 1)}, "deadline"),  # noqa: DTZ001
        ({"not_before": datetime(2030, 1, 1)}, "not_before"),  # noqa: DTZ001
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 1e9}, "timeout_seconds"),
        ({"retry": RetryPolicy(attempts=0)}, "retry"),
    ],
)
async def test_rules_no_task_can_run_under_are_refused(rules: dict[str, Any], field: str) -> None:
    with pytest.raises(SubmissionInvalid, match=field):
        When(**rules)
