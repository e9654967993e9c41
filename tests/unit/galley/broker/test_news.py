"""Waiters of one connection, over a server in memory: few subscriptions, and each waiter is woken."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from galley.broker import topology
from galley.broker.news import FEW
from galley.errors import ClientClosed
from galley.record import Outcome, Record, State
from tests.support.builders import a_queue, an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import Bench, a_bench

DONE = Record(State.DONE, 1, outcome=Outcome.SUCCEEDED)


def heard(bench: Bench) -> list[str]:
    """Return the subjects of news that the producer has subscribed to."""
    found = (each.subject for each in bench.producer.line._interest)
    return sorted(subject for subject in found if subject.startswith("galley.done."))


async def enter(stack: AsyncExitStack, bench: Bench, count: int) -> list[asyncio.Event]:
    news = bench.producer.news
    addresses = [an_address(of=bench.layout, id=f"t{number}") for number in range(count)]
    return [await stack.enter_async_context(news.of(address)) for address in addresses]


@in_virtual_time
async def test_few_waiters_hear_of_their_own_tasks_alone() -> None:
    async with a_bench() as bench, AsyncExitStack() as stack:
        events = await enter(stack, bench, FEW)
        assert heard(bench) == sorted(
            topology.done_subject(an_address(of=bench.layout, id=f"t{number}")) for number in range(FEW)
        )
        bench.put(an_address(of=bench.layout, id="t3"), DONE)
        await bench.pass_time(0.1)
        assert [number for number, event in enumerate(events) if event.is_set()] == [3]


@in_virtual_time
async def test_many_waiters_share_one_subscription_and_each_is_woken_for_its_own_task() -> None:
    async with a_bench() as bench:
        async with AsyncExitStack() as stack:
            events = await enter(stack, bench, 10 * FEW)
            assert len(heard(bench)) == FEW + 1
            bench.put(an_address(of=bench.layout, id=f"t{9 * FEW}"), DONE)
            await bench.pass_time(0.1)
            assert [number for number, event in enumerate(events) if event.is_set()] == [9 * FEW]
        assert heard(bench) == []
        assert not bench.producer._on_close
        assert not bench.producer._reconnected


@in_virtual_time
async def test_waiters_of_one_task_share_its_subscription_until_the_last_has_left() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        async with bench.producer.news.of(address) as first:
            async with bench.producer.news.of(address) as second:
                assert len(heard(bench)) == 1
                bench.put(address, DONE)
                await bench.pass_time(0.1)
                assert first.is_set()
                assert second.is_set()
            assert len(heard(bench)) == 1
        assert heard(bench) == []


@in_virtual_time
async def test_queues_do_not_share() -> None:
    async with a_bench() as bench:
        other = a_queue("other")
        bench.server.create(other)
        address = an_address(of=other)
        async with AsyncExitStack() as stack:
            await enter(stack, bench, FEW + 1)
            event = await stack.enter_async_context(bench.producer.news.of(address))
            assert topology.done_subject(address) in heard(bench)
            bench.put(address, DONE)
            await bench.pass_time(0.1)
            assert event.is_set()


@in_virtual_time
async def test_a_reconnection_and_the_close_wake_all() -> None:
    async with a_bench() as bench, AsyncExitStack() as stack:
        events = await enter(stack, bench, FEW + 5)
        bench.producer.line.cut()
        await bench.pass_time(0.5)
        assert not any(event.is_set() for event in events)
        await bench.pass_time(3)
        assert all(event.is_set() for event in events)
        for event in events:
            event.clear()
        await bench.producer.__aexit__(None, None, None)
        assert all(event.is_set() for event in events)


@in_virtual_time
async def test_who_leaves_while_the_connection_is_away_leaves_no_subscription_behind() -> None:
    async with a_bench() as bench:
        async with AsyncExitStack() as stack:
            await enter(stack, bench, FEW + 5)
            bench.producer.line.cut()
        await bench.pass_time(3)
        assert heard(bench) == []


@in_virtual_time
async def test_a_closed_connection_has_no_news() -> None:
    async with a_bench() as bench:
        await bench.producer.__aexit__(None, None, None)
        with pytest.raises(ClientClosed):
            async with bench.producer.news.of(an_address(of=bench.layout)):
                pass
        assert bench.producer.news._queues == {}
