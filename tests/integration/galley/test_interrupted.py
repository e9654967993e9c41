"""Submitting many tasks that is cut short: what is known of each is kept."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from galley import (
    AsyncClient,
    Call,
    InputInvalid,
    Phase,
    SubmitIncomplete,
    SubmitInterrupted,
    TaskNotFound,
    call,
    connect,
)
from galley.broker import queue_view
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue


@pytest.fixture
async def client(nats_server: NatsServer, namespace: str) -> AsyncIterator[AsyncClient]:
    async with connect(nats_server.url, namespace) as client:
        await ensure(client.broker, a_queue("images", namespace=namespace, backlog=10_000))
        yield client


def resize(n: int) -> Call[object]:
    return call("images", "resize", n=n)


async def held(client: AsyncClient) -> int:
    [view] = await queue_view.queues(client.broker, client.namespace)
    return view.held


@pytest.mark.parametrize("bad", [0, 15, 19])
async def test_one_bad_row_keeps_the_handles_of_those_before_it(client: AsyncClient, bad: int) -> None:
    def calls() -> Iterator[Call[object]]:
        for n in range(20):
            yield call("images", "resize", n=float("nan") if n == bad else n)

    with pytest.raises(SubmitInterrupted, match=f"ended after {bad} tasks: InputInvalid: .*NaN") as cut:
        await client.submit_many(calls())

    error = cut.value
    assert isinstance(error.__cause__, InputInvalid)
    assert list(error.submitted) == list(range(bad))
    assert error.handles == error.submitted
    assert (error.not_sent_from, error.unknown, error.refused) == (bad, {}, {})
    assert await held(client) == bad
    if bad:
        assert (await error.submitted[bad - 1].status()).phase is Phase.QUEUED


async def test_whatever_the_iterable_raises_is_the_cause(client: AsyncClient) -> None:
    def calls() -> Iterator[Call[object]]:
        yield resize(1)
        raise OSError("the file ends here")

    with pytest.raises(SubmitInterrupted, match="OSError: the file ends here") as cut:
        await client.submit_many(calls())
    assert isinstance(cut.value, SubmitIncomplete)
    assert list(cut.value.submitted) == [0]


async def test_something_that_is_no_call_is_named(client: AsyncClient) -> None:
    calls: Any = [resize(1), "resize"]
    with pytest.raises(SubmitInterrupted, match="call: it is of type str") as cut:
        await client.submit_many(calls)
    assert cut.value.not_sent_from == 1


async def test_a_refusal_and_a_bad_row_are_both_told(client: AsyncClient, namespace: str) -> None:
    await ensure(client.broker, a_queue("small", namespace=namespace, backlog=1))

    def calls() -> Iterator[Call[object]]:
        yield from (call("small", "resize", n=n) for n in range(3))
        raise ValueError("no more")

    with pytest.raises(SubmitInterrupted) as cut:
        await client.submit_many(calls())
    assert list(cut.value.submitted) == [0]
    assert [type(error).__name__ for error in cut.value.refused.values()] == ["QueueFull"] * 2


async def test_a_cancel_loses_no_handle(client: AsyncClient) -> None:
    await client.submit(resize(0))  # the first submit asks for the rules of the queue
    with pytest.raises(TimeoutError) as timed_out:
        async with asyncio.timeout(0):
            await client.submit_many(resize(n) for n in range(5000))

    error = SubmitInterrupted.of(timed_out.value)
    assert error is not None
    assert "it was cancelled" in str(error)
    assert 0 < error.not_sent_from <= 5000
    assert sorted([*error.submitted, *error.unknown]) == list(range(error.not_sent_from))
    # What was sent arrives, also if its answer was not waited for.
    await client.submit(resize(0))
    stored = 1
    for handle in (*error.submitted.values(), *error.unknown.values()):
        try:
            stored += (await handle.status()).phase is Phase.QUEUED
        except TaskNotFound:
            assert handle not in error.submitted.values()
    assert await held(client) == stored + 1


async def test_a_cancelled_task_of_the_event_loop_tells_too(client: AsyncClient) -> None:
    await client.submit(resize(0))
    submitting = asyncio.create_task(client.submit_many(resize(n) for n in range(3000)))
    await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await submitting
    error = SubmitInterrupted.of(cancelled.value)
    assert error is not None
    assert len(error.submitted) + len(error.unknown) == error.not_sent_from > 0


async def test_one_submit_that_is_cancelled_leaves_its_handle(client: AsyncClient) -> None:
    await client.submit(resize(0))
    with pytest.raises(TimeoutError) as timed_out:
        async with asyncio.timeout(0):
            await client.submit(resize(1))
    error = SubmitInterrupted.of(timed_out.value)
    assert error is not None
    [handle] = error.unknown.values()
    again = await client.submit(resize(1), task_id=handle.id)
    assert again.existed
    assert await held(client) == 2


async def test_one_that_is_cancelled_before_anything_was_sent_can_be_submitted_again(
    client: AsyncClient,
) -> None:
    with pytest.raises(TimeoutError) as timed_out:
        async with asyncio.timeout(0):
            await client.submit(resize(1))
    error = SubmitInterrupted.of(timed_out.value)
    assert error is not None
    [handle] = error.unknown.values()
    assert not (await client.submit(resize(1), task_id=handle.id)).existed
    assert await held(client) == 1


async def test_without_an_interruption_there_is_nothing_to_find() -> None:
    assert SubmitInterrupted.of(ValueError("other")) is None
    assert SubmitInterrupted.of(None) is None


async def test_a_broker_that_goes_away_in_the_middle_leaves_all_handles(
    own_nats_server: NatsServer, namespace: str
) -> None:
    async with Broker(own_nats_server.url, name="test") as broker:
        client = AsyncClient.over(broker, namespace, patience_seconds=0.5)
        await ensure(broker, a_queue("images", namespace=namespace, backlog=10_000))

        def calls() -> Iterator[Call[object]]:
            for n in range(3000):
                if n == 2000:
                    own_nats_server.kill()
                yield resize(n)

        with pytest.raises(SubmitInterrupted, match="no answer from NATS") as cut:
            await client.submit_many(calls())

        error = cut.value
        assert error.not_sent_from == 3000
        assert error.refused == {}
        assert sorted([*error.submitted, *error.unknown]) == list(range(3000))
        assert len(error.unknown) >= 1000

        await own_nats_server.start()
        client = AsyncClient.over(broker, namespace)
        for place, handle in [*error.unknown.items()][-5:]:
            # Submitting it again is safe, whether or not it was stored.
            assert (await client.submit(resize(place), task_id=handle.id)).id == handle.id


async def test_ids_of_their_own_do_not_make_many_tasks_wait_for_a_silent_broker_one_after_the_other(
    own_nats_server: NatsServer, namespace: str
) -> None:
    async with Broker(own_nats_server.url, name="test") as broker:
        await ensure(broker, a_queue("images", namespace=namespace, backlog=10_000))
        client = AsyncClient.over(broker, namespace, patience_seconds=0.5)
        await client.submit(resize(0))
        own_nats_server.freeze()
        try:
            async with asyncio.timeout(20):
                with pytest.raises(SubmitInterrupted) as cut:
                    await client.submit_many(resize(n).options(task_id=f"k{n}") for n in range(2000))
        finally:
            own_nats_server.thaw()
    assert len(cut.value.unknown) == cut.value.not_sent_from < 2000
