"""Whatever a handler does, its task gets one outcome, and no other task notices."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from galley import (
    AsyncClient,
    Phase,
    RetryPolicy,
    TaskFailed,
    When,
    call,
)
from galley import envelope as wire
from galley.address import TaskAddress
from galley.broker import queue_view, topology
from galley.broker.dead_letters import count_dead
from galley.broker.lean_client import header_block
from galley.history import EndedBy
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.builders import an_envelope
from tests.support.eventually import eventually

ONE_WORKER = True


@pytest.fixture
def start(start: StartWorkers) -> StartWorkers:
    """Starts the worker of the file, which buries a task of no handler at once."""
    return partial(start, GALLEY_UNKNOWN_HANDLER_SECONDS="0")


async def test_a_plain_function_an_async_one_and_their_results(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    plain = await client.submit(call("drills", "echo", value={"a": [1, 2.5, None, "ü"]}))
    waiting = await client.submit(call("drills", "aecho", value="later", seconds=0.01))

    assert await plain.result(within=20) == {"a": [1, 2.5, None, "ü"]}
    assert await waiting.result(within=20) == "later"
    status = await plain.status()
    assert (status.phase, status.attempt, status.worker) == (Phase.SUCCEEDED, 1, "w1")


async def test_a_task_that_fails_once_is_tried_again_and_succeeds(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(drills)
    handle = await client.submit(call("drills", "fail_until", path=str(tmp_path / "count"), times=1))

    assert await handle.result(within=20) == "try 2"
    status = await handle.status()
    assert (status.attempt, status.history.errors, status.history.crashes) == (2, 1, 0)
    assert "RuntimeError: try 1" in status.history.attempts[0].message


async def test_a_task_that_always_fails_is_a_dead_letter_with_its_history(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    handle = await client.submit(call("drills", "fail", message="the disk is green"))

    with pytest.raises(TaskFailed, match="the disk is green") as failed:
        await handle.result(within=20)

    assert failed.value.why == "AttemptsExhausted"
    status = await handle.status()
    assert status.history.errors == 3
    assert [past.number for past in status.history.attempts] == [1, 2, 3]

    async def letter() -> bytes:
        subject = topology.dead_subject(handle.address)
        stream = topology.dead_stream(client.namespace, "drills")
        found = await client.broker.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
        return found.data if found is not None else b""

    # The record tells the outcome before the letter is written.
    assert b"the disk is green" in await eventually(letter, within=30)


async def test_a_handler_that_says_never_is_tried_once(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    handle = await client.submit(call("drills", "fail_for_good", message="it is a poem"))

    with pytest.raises(TaskFailed, match="NonRetryable: it is a poem") as failed:
        await handle.result(within=20)

    assert failed.value.why == "NonRetryable"
    assert [past.reason for past in (await handle.status()).history.attempts] == ["NonRetryable"]


@pytest.mark.parametrize(
    ("handler", "arguments", "why", "message"),
    [
        ("nothing_like_it", {}, "HandlerNotFound", "known to worker w1: aecho"),
        ("echo", {"valeu": 1}, "InputInvalid", "valeu"),
        ("not_json", {}, "ResultInvalid", "object"),
        ("huge", {"size": 70_000_000}, "ResultTooLarge", "67108864"),
        ("vanish", {"code": 7}, "KillsItsWorker", "exit code 7"),
    ],
)
async def test_what_can_never_work_fails_with_its_reason(
    client: AsyncClient,
    drills: TaskQueue,
    start: StartWorkers,
    *,
    handler: str,
    arguments: dict[str, object],
    why: str,
    message: str,
) -> None:
    await start(drills)
    other = [await client.submit(call("drills", "echo", value=n)) for n in range(5)]
    handle = await client.submit(call("drills", handler, **arguments))

    with pytest.raises(TaskFailed, match=message) as failed:
        await handle.result(within=30)

    assert failed.value.why == why
    assert [await task.result(within=20) for task in other] == [0, 1, 2, 3, 4]


async def test_a_handler_that_kills_its_process_is_counted_as_crash_not_as_error(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    handle = await client.submit(call("drills", "vanish"))

    with pytest.raises(TaskFailed):
        await handle.result(within=30)

    history = (await handle.status()).history
    # Three beside other tasks, and one alone.
    assert (history.crashes, history.errors) == (4, 0)
    assert {past.ended_by for past in history.attempts} == {EndedBy.CRASH}


async def test_an_attempt_is_killed_at_its_timeout(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    rules = When(timeout_seconds=0.5, retry=RetryPolicy(attempts=1))
    handle = await client.submit(call("drills", "hold", word="slow", seconds=60), rules)

    with pytest.raises(TaskFailed, match=r"longer than 0.5 s") as failed:
        await handle.result(within=20)

    assert failed.value.why == "TimedOut"


async def test_a_task_is_not_started_after_its_deadline(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    rules = When(deadline=datetime.now(UTC) - timedelta(seconds=1))
    handle = await client.submit(call("drills", "note", word="too late"), rules)
    await start(drills)

    with pytest.raises(TaskFailed) as failed:
        await handle.result(within=20)

    assert failed.value.why == "DeadlineExceeded"


async def test_a_running_attempt_is_cut_at_the_deadline(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    await (await client.submit(call("drills", "echo"))).result(within=20)
    rules = When(deadline=datetime.now(UTC) + timedelta(seconds=1))
    handle = await client.submit(call("drills", "hold", word="long", seconds=60), rules)

    with pytest.raises(TaskFailed) as failed:
        await handle.result(within=20)

    assert failed.value.why == "DeadlineExceeded"


async def test_a_task_for_later_runs_when_it_is_due(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    at = datetime.now(UTC) + timedelta(seconds=1)
    handle = await client.submit(call("drills", "echo", value=1), When(not_before=at))

    assert await handle.result(within=20) == 1
    status = await handle.status()
    assert status.started_at is not None
    # The broker's timers may fire a fraction of a millisecond early by the clock of others.
    assert status.started_at >= at - timedelta(milliseconds=1)


async def test_the_same_id_submitted_after_its_end_does_not_run_again(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(drills)
    counter = tmp_path / "count"
    count_it = call("drills", "fail_until", path=str(counter), times=0)
    first = await client.submit(count_it, task_id="once")
    assert await first.result(within=20) == "try 1"

    second = await client.submit(count_it, task_id="once")
    marker = await client.submit(call("drills", "echo", value="after"))
    await marker.result(within=20)

    assert await second.result(within=20) == "try 1"
    assert counter.read_text() == "1"


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ("v=1;a=1;f=0", b"\xff\x00 not json", "not a task"),
        ("v=1;a=1;f=0", b'{"handler":"echo"}', "submittedAt"),
        ("v=9;a=1;f=0", None, "its version is '9'"),
        ("v=1;a=1;f=0", b'{"handler":"echo","submittedAt":"2026-01-01T00:00:00Z","v":7}', "its version is 7"),
        (None, None, "no Galley header"),
        ("v=1;a=minus", None, "its Galley header"),
    ],
)
async def test_a_foreign_message_is_buried_whole_and_harms_no_other(
    client: AsyncClient,
    drills: TaskQueue,
    start: StartWorkers,
    *,
    header: str | None,
    body: bytes | None,
    message: str,
) -> None:

    handle = client.handle("drills", secrets.token_hex(6))
    address: TaskAddress = handle.address
    headers = header_block({topology.FLAGS_HEADER: header}) if header else b""
    payload = body if body is not None else wire.encode(an_envelope("echo"))
    ack = await (await client.broker.pipeline.send(topology.task_subject(address), payload, headers))
    assert ack.stored
    await start(drills)
    good = await client.submit(call("drills", "echo", value="fine"))

    assert await good.result(within=20) == "fine"
    with pytest.raises(TaskFailed, match=message) as failed:
        await handle.result(within=20)
    assert failed.value.why == "EnvelopeInvalid"


async def test_a_flood_of_output_is_cut_and_the_task_succeeds(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    (worker,) = await start(drills)
    loud = await client.submit(call("drills", "shout", megabytes=100))
    quiet = await client.submit(call("drills", "echo", value=1))

    assert await quiet.result(within=20) == 1
    assert await loud.result(within=60) == "done"
    assert worker.log_file.stat().st_size < 1_000_000


async def test_a_task_whose_id_is_not_utf_8_becomes_a_dead_letter(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    before = await count_dead(client.broker, client.namespace, "drills")
    host, port = client.broker.server.removeprefix("nats://").split(":")
    subject = f"galley.task.{client.namespace}.drills.normal.sdk.".encode() + b"caf\xe9"
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose":false}\r\nPUB ' + subject + b" 2\r\n{}\r\nPING\r\n")
    await writer.drain()

    async def settled() -> bool:
        held = (await queue_view.queue(client.broker, client.namespace, "drills")).held
        dead = await count_dead(client.broker, client.namespace, "drills") - before
        assert (held, dead) == (0, 1)
        return True

    try:
        await eventually(settled, within=20)
    finally:
        writer.close()
    assert await (await client.submit(call("drills", "echo", value=1))).result(within=20) == 1
