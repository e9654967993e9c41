"""The client for programs without an event loop: in threads, after a fork, in a notebook, interrupted."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from galley import (
    BrokerUnreachable,
    Call,
    Cancelled,
    Client,
    ClientClosed,
    Handle,
    Lane,
    LaneNotEnabled,
    Phase,
    QueueNotFound,
    ResultTimeout,
    SomeRefused,
    SubmissionInvalid,
    SubmitInterrupted,
    TaskFailed,
    When,
    call,
    connect,
)
from galley.broker.ensure import ensure
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.builders import a_queue


def echo(value: Any, seconds: float = 0) -> Call[Any]:
    return call("drills", "echo", value=value, **({"seconds": seconds} if seconds else {}))


@pytest.fixture
def sync(nats_server: NatsServer, namespace: str, drills: TaskQueue) -> Iterator[Client]:
    with Client(nats_server.url, namespace) as client:
        yield client


async def test_a_task_is_submitted_awaited_listed_and_cancelled(
    sync: Client, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    handle = sync.submit(echo("one"), task_id="k1")
    assert handle.result(within=20) == "one"
    assert handle.wait(within=20).phase is Phase.SUCCEEDED
    assert sync.submit(echo("one"), task_id="k1").existed
    failing = sync.submit(call("drills", "no-such-handler"), When(timeout_seconds=5))
    assert failing.cancel() in (Cancelled.BEFORE_START, Cancelled.RUNNING)
    assert failing.wait(within=20).phase is Phase.CANCELLED
    assert [status.address.id for status in sync.tasks("drills")] == ["k1", failing.id]
    assert [status.address.id for status in sync.tasks("drills", Phase.CANCELLED)] == [failing.id]
    assert sync.handle("drills", "k1").status().phase is Phase.SUCCEEDED


async def test_a_failure_raises_as_it_does_for_the_async_client(
    sync: Client, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    handle = sync.submit(call("drills", "echo", wrong="name"))
    with pytest.raises(TaskFailed, match="InputInvalid"):
        handle.result(within=20)
    with pytest.raises(QueueNotFound):
        sync.submit(call("nowhere", "echo"))
    with pytest.raises(QueueNotFound):
        sync.tasks("nowhere")
    with pytest.raises(SubmissionInvalid):
        sync.handle("drills", "not an id")


async def test_threads_share_a_client(sync: Client, drills: TaskQueue, start: StartWorkers) -> None:
    await start(drills)

    def work(n: int) -> list[int]:
        handles = sync.submit_many(echo(n * 100 + m) for m in range(10))
        return [handle.result(within=30) for handle in handles]

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(work, range(16)))
    assert results == [[n * 100 + m for m in range(10)] for n in range(16)]


def in_a_fork(use: Callable[[], object]) -> str:
    """Return what `use` returned or raised in a forked process, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = "nothing"
        try:
            signal.alarm(20)
            told = str(use())
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, told.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


async def test_a_fork_goes_on_with_client_and_handles_of_its_parent(
    sync: Client, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    before = sync.submit(echo("before"))
    assert in_a_fork(lambda: (before.result(within=20), sync.submit(echo("after")).result(within=20))) == (
        "('before', 'after')"
    )
    assert before.result(within=20) == "before", "the parent's connection is as it was"


async def test_a_fork_is_not_held_up_by_a_lock_another_thread_held(sync: Client, drills: TaskQueue) -> None:
    portal = sync._portal
    with portal._lock:
        told = await asyncio.to_thread(in_a_fork, lambda: sync.submit(echo(1)).status().phase)
    assert told == "Queued"


async def test_a_loop_that_runs_already_is_no_obstacle(sync: Client) -> None:
    assert asyncio.get_running_loop().is_running()
    assert sync.submit(echo(1)).status().phase is Phase.QUEUED


async def test_without_a_broker_the_error_is_that_of_the_broker_and_the_next_call_tries_again(
    own_nats_server: NatsServer, namespace: str
) -> None:
    own_nats_server.kill()
    client = Client(own_nats_server.url, namespace)
    with pytest.raises(BrokerUnreachable):
        client.tasks("drills")
    await own_nats_server.start()
    with pytest.raises(QueueNotFound):
        client.tasks("drills")
    client.close()


def test_a_namespace_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(SubmissionInvalid, match="namespace"):
        Client("nats://127.0.0.1:4", "No Namespace")


async def test_closing_ends_what_waits_in_other_threads(sync: Client) -> None:
    handle = sync.submit(echo(1))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.result, 60)
        await asyncio.sleep(0.1)
        began = time.monotonic()
        sync.close()
        assert isinstance(waiting.exception(30), ClientClosed)
    assert time.monotonic() - began < 30
    sync.close()
    for use in (handle.status, lambda: sync.submit(echo(2)), lambda: sync.tasks("drills"), sync.__enter__):
        with pytest.raises(ClientClosed):
            use()


async def test_a_call_that_comes_while_the_loop_ends_is_woken(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(nats_server.url, namespace)
    portal = client._portal
    portal.open()
    opened = portal._open
    assert opened is not None
    calling: list[threading.Thread] = []
    raised: list[BaseException] = []

    async def wait_without_end(_: object) -> None:
        asyncio.current_task()._log_destroy_pending = False  # type: ignore[union-attr]
        await asyncio.Event().wait()

    def call_late() -> None:
        try:
            portal.call(wait_without_end)
        except BaseException as error:
            raised.append(error)

    async def after_all_were_cancelled() -> None:
        calling.append(threading.Thread(target=call_late))
        calling[0].start()
        for _ in range(1000):
            if len(asyncio.all_tasks()) > 1:
                return
            await asyncio.sleep(0.005)

    monkeypatch.setattr(opened.loop, "shutdown_asyncgens", after_all_were_cancelled)
    monkeypatch.setattr(portal, "_opened", lambda: opened)
    client.close()
    await asyncio.to_thread(calling[0].join, 10)
    assert [type(error) for error in raised] == [ClientClosed]


async def test_ctrl_c_stays_ctrl_c_if_the_loop_is_busy(sync: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galley.portal._CANCEL_SECONDS", 0.1)
    goes_on = threading.Event()

    async def block(_: object) -> None:
        goes_on.wait(20)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_soon(1)
        with pytest.raises(KeyboardInterrupt):
            sync._portal.call(block)
    finally:
        signal.signal(signal.SIGINT, previous)
        goes_on.set()
    assert sync.submit(echo(1)).status().phase is Phase.QUEUED


def interrupt_soon(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


async def test_ctrl_c_ends_a_wait_and_the_client_goes_on(sync: Client) -> None:
    handle = sync.submit(echo(1))
    began = time.monotonic()

    def wait() -> None:
        interrupt_soon(1)
        with pytest.raises(KeyboardInterrupt):
            handle.result(within=30)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert time.monotonic() - began < 20
    assert handle.status().phase is Phase.QUEUED


async def test_ctrl_c_in_a_submit_says_what_may_be_stored(
    own_nats_server: NatsServer, namespace: str
) -> None:
    async with connect(own_nats_server.url, namespace) as other:
        await ensure(other.broker, a_queue("drills", namespace=namespace))
    with Client(own_nats_server.url, namespace) as client:
        client.submit(echo("first"))
        own_nats_server.freeze()
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt_soon(2)
        try:
            with pytest.raises(KeyboardInterrupt) as cut:
                client.submit_many(echo(n) for n in range(5))
        finally:
            signal.signal(signal.SIGINT, previous)
            own_nats_server.thaw()
        known = SubmitInterrupted.of(cut.value)
        assert known is not None
        assert [type(handle) for handle in known.unknown.values()] == [Handle] * 5


async def test_some_refused_holds_handles_of_this_client(sync: Client) -> None:
    mixed = [echo(1), call("nowhere", "echo"), echo(2)]
    with pytest.raises(SomeRefused) as some:
        sync.submit_many(mixed)
    assert [type(handle) for handle in some.value.submitted.values()] == [Handle, Handle]
    assert some.value.submitted[0].status().phase is Phase.QUEUED
    assert isinstance(some.value.refused[1], QueueNotFound)
    with pytest.raises(LaneNotEnabled):
        sync.submit(echo(1), When(lane=Lane.CRITICAL))


async def test_calls_are_made_in_the_thread_that_submits(sync: Client) -> None:
    threads: set[int] = set()

    def calls() -> Iterator[Call[Any]]:
        for n in range(3):
            threads.add(threading.get_ident())
            yield echo(n)
        raise LookupError("no more rows")

    with pytest.raises(SubmitInterrupted, match="no more rows") as cut:
        sync.submit_many(calls())
    assert threads == {threading.get_ident()}
    assert len(cut.value.submitted) == 3


async def test_tasks_are_yielded_as_they_end(sync: Client, drills: TaskQueue, start: StartWorkers) -> None:
    await start(drills)
    slow, quick = sync.submit(call("drills", "hold", word="slow", seconds=6)), sync.submit(echo("quick"))
    failing = sync.submit(call("drills", "echo", wrong=1))
    ended = [handle.id for handle in sync.as_completed([slow, quick, failing], within=30)]
    assert set(ended) == {slow.id, quick.id, failing.id}
    assert ended[-1] == slow.id

    forgotten = sync.submit(call("drills", "hold", word="x", seconds=60))
    with pytest.raises(ResultTimeout):
        list(sync.as_completed([forgotten, quick], within=0.5))
    for handle in sync.as_completed([quick, forgotten]):
        assert handle.id == quick.id
        break
    forgotten.cancel()


def test_a_program_that_never_closes_its_client_ends_quietly(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import galley, sys\n"
        "client = galley.Client(sys.argv[1], sys.argv[2])\n"
        "try:\n"
        "    client.submit(galley.call('nowhere', 'echo'))\n"
        "except galley.QueueNotFound:\n"
        "    print('not found')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", program, nats_server.url, namespace],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "not found\n", "")
