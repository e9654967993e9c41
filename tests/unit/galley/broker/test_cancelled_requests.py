"""A request, or a try to connect, of a task that is cancelled, and a request of one that was before."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from nats.aio.msg import Msg

from galley.broker.connection import Broker
from galley.broker.errors import BrokerUnreachable
from galley.broker.lean_client import LeanClient
from tests.support.memory_nats import client as memory_client
from tests.support.memory_nats.client import MemoryClient, MemorySubscription
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench


async def fail_in_a_group() -> None:
    """Have a member of a task group fail while the group is waited for."""

    async def member() -> None:
        await asyncio.sleep(0.1)
        raise ValueError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(member())


async def ask(broker: Broker) -> None:
    await broker.api("look", "STREAM.INFO.GW_default_images")


@in_virtual_time
async def test_a_task_whose_group_failed_before_goes_on_asking() -> None:
    async with a_bench() as bench:
        for _ in range(3):
            await fail_in_a_group()
            await ask(bench.producer)
            assert await bench.producer.reached(within=1)


@pytest.mark.parametrize("failed_before", [False, True])
@in_virtual_time
async def test_a_cancellation_that_comes_with_the_answer_is_heeded(
    failed_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_bench() as bench:
        request = bench.producer.nats.request

        async def swallowing(subject: str, body: bytes, **rest: Any) -> Any:
            """Return an answer though the task was cancelled, as `wait_for` of Python 3.11 does."""
            answer = await request(subject, body, **rest)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
            return answer

        async def asking() -> None:
            if failed_before:
                await fail_in_a_group()
            monkeypatch.setattr(bench.producer.nats, "request", swallowing)
            await ask(bench.producer)

        task = bench.start(asking())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


@in_virtual_time
async def test_a_cancellation_that_comes_with_one_of_many_answers_is_heeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bench() as bench:
        heard: list[str] = []

        class Answers(MemorySubscription):
            async def next_msg(self, timeout: float | None = 1.0) -> Msg:  # noqa: ASYNC109 - as the library's
                del timeout
                await deaf_once(heard)
                return Msg(bench.producer.nats, data=b"{}")

        monkeypatch.setattr(memory_client, "MemorySubscription", Answers)

        async def listing() -> None:
            async for answer in bench.producer.request_many("records", b""):
                raise AssertionError(answer)

        task = bench.start(listing())
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait({task}, timeout=30)
        assert task.cancelled()
        assert heard == ["cancelled"]


@in_virtual_time
async def test_a_limit_of_time_that_ends_while_it_is_waited_for_is_no_cancellation() -> None:
    async with a_bench() as bench:
        silent = True
        bench.producer.line.lose(to_server=lambda subject: silent and subject.startswith("$JS.API."))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await ask(bench.producer)
        with pytest.raises(BrokerUnreachable):
            await ask(bench.producer)
        silent = False
        await ask(bench.producer)


async def opened(broker: Broker) -> None:
    async with broker:
        raise AssertionError("it cannot be opened")


async def deaf_once(heard: list[str]) -> None:
    """Swallow the first cancellation, as `wait_for` of Python 3.11 does if its result comes with it."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        heard.append("cancelled")
        if len(heard) > 1:
            raise


@pytest.mark.parametrize("cancelled", [False, True], ids=["its limit of time", "its task"])
@in_virtual_time
async def test_a_cancellation_that_comes_with_a_failed_try_to_connect_is_heeded(
    cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    async def refused(_client: LeanClient, _server: object) -> None:
        await deaf_once(heard)
        raise ConnectionRefusedError

    monkeypatch.setattr(LeanClient, "_connect_to_server", refused)
    opening = asyncio.create_task(opened(Broker(name="test", connect_seconds=1e9 if cancelled else 1.5)))
    await asyncio.sleep(1)
    if cancelled:
        opening.cancel()
    await asyncio.wait({opening}, timeout=30)
    assert opening.done()
    assert opening.cancelled() if cancelled else isinstance(opening.exception(), BrokerUnreachable)


@pytest.mark.parametrize("said", [b'{"error": {"err_code": 10008, "description": "no leader"}}', b"{}"])
@in_virtual_time
async def test_a_cancellation_that_comes_with_what_jetstream_says_is_heeded(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_bench() as bench:
        heard: list[str] = []

        async def answered(*_: object, **_options: object) -> Msg:
            await deaf_once(heard)
            return Msg(bench.producer.nats, data=said)

        broker = Broker(name="test", connect_seconds=1.5)
        broker.nats = MemoryClient(bench.server)
        monkeypatch.setattr(broker.nats, "request", answered)
        opening = asyncio.create_task(opened(broker))
        await asyncio.wait({opening}, timeout=30)
        assert opening.done()
        assert isinstance(opening.exception(), BrokerUnreachable)
