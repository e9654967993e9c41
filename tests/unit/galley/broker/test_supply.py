"""Asking what starts the workers of a queue why none comes up, over a server in memory."""

import asyncio

import pytest

from galley.broker import queue_view, topology
from galley.broker.control import Supply, answering_supply, ask_supply
from galley.client import AsyncClient
from galley.history import HANDLER_NOT_FOUND, NO_HISTORY, EndedBy, PastAttempt
from galley.record import Outcome, Record, State
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench

WHY = "the image cannot be pulled; check spec.worker.image"


def of_images(namespace: str, queue: str) -> Supply | None:
    return Supply(WHY) if (namespace, queue) == ("default", "images") else None


@in_virtual_time
async def test_a_waiter_is_told_what_keeps_workers_from_starting() -> None:
    async with a_bench() as bench, MemoryBroker(bench.server, "operator") as operator:
        address = await bench.submit()
        handle = AsyncClient.over(bench.producer, "default").handle("images", address.id)
        assert await handle.worker_problem() == "", "nothing that starts workers is there"
        async with answering_supply(operator, "*", "*", of_images):
            assert await ask_supply(bench.producer, "default", "images") == Supply(WHY)
            assert await handle.worker_problem() == f"workers of queue 'images' do not start: {WHY}"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await queue_view.worker_problem(bench.producer, "default", "another")
        assert await handle.worker_problem() == ""


@pytest.mark.parametrize(
    "reply", ["galley.result.default.images.sdk.id", "$JS.API.STREAM.PURGE.GW", "_INBOX"]
)
@in_virtual_time
async def test_a_requester_cannot_choose_where_the_answer_is_published(reply: str) -> None:
    async with a_bench() as bench, MemoryBroker(bench.server, "operator") as operator:
        heard: list[str] = []

        def react(namespace: str, queue: str) -> Supply | None:
            heard.append(queue)
            return of_images(namespace, queue)

        async with answering_supply(operator, "*", "*", react):
            bench.mark()
            bench.producer.publish(topology.workers_subject("default", "images"), b"", reply)
            await bench.pass_time(1)
        assert heard == []
        assert bench.writes() == []


@in_virtual_time
async def test_a_waiter_is_told_that_no_worker_knows_the_handler_until_that_is_over() -> None:
    async with a_bench() as bench:
        address = await bench.submit()
        handle = AsyncClient.over(bench.producer, "default").handle("images", address.id)
        now = bench.server.now()
        past = PastAttempt(1, EndedBy.PREEMPTION, HANDLER_NOT_FOUND, "no handler 'x'", "w1", now)
        history = NO_HISTORY.with_attempt(past)
        for state in (State.RETRY, State.RUN):
            bench.put(address, Record(state, 1, history=history, due_at=now))
            assert (await handle.worker_problem()).startswith("no handler 'x'; ")
        bench.put(address, Record(State.RETRY, 2, history=history, due_at=now))
        assert await handle.worker_problem() == "", "a worker has run it meanwhile"
        bench.put(address, Record(State.DONE, 1, outcome=Outcome.FAILED, history=history))
        assert await handle.worker_problem() == ""
