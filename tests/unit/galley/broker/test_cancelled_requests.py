"""A request of a task that is cancelled, and of one that was before it asked."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from galley.broker.connection import Broker
from galley.broker.errors import BrokerUnreachable
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
