"""Answers that are none: any client with a worker's credentials of a queue can answer what is asked there."""

from typing import Final

import pytest
from nats.aio.msg import Msg

from galley import AsyncClient, Phase
from galley.broker import topology
from galley.broker.control import Question, Request, Verb, ask_holder, ask_supply, ask_workers
from galley.broker.errors import BrokerRefused
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench

QUEUE: Final = ("default", "images")
GARBAGE: Final = (
    b"{", b"\xff", b"null", b'{"worker":7,"problem":7}', b'{"worker":"w","started_at":7,"workers":7}',
    b"[" * 100_000,
)  # fmt: skip
TIMES: Final = (
    b'{"worker":"w","started_at":"2026-01-01T00:00:00"}',
    b'{"worker":"w","started_at":"0001-01-01T00:00:00+23:59"}',
    b'{"worker":"w","started_at":"9999-12-31T23:59:59-23:59"}',
)
"""They cannot be compared with other times, or not be written in UTC."""


async def answer_with(broker: MemoryBroker, subject: str, said: bytes) -> None:
    async def hear(message: Msg) -> None:
        broker.publish(message.reply, said)

    await broker.subscribe(subject, hear)


@pytest.mark.parametrize("said", [*GARBAGE, *TIMES])
@in_virtual_time
async def test_a_worker_that_answers_garbage_is_named(said: bytes) -> None:
    async with a_bench() as bench, bench.worker("w0") as worker, bench.worker("w1") as other:
        await answer_with(other.broker, topology.holder_subject(*QUEUE, "h0"), said)
        with pytest.raises(BrokerRefused, match="'h0'"):
            await ask_holder(worker.broker, *QUEUE, "h0", Question("GW_default_images", 7))


@pytest.mark.parametrize("said", [*GARBAGE, *TIMES])
@in_virtual_time
async def test_a_worker_that_answers_garbage_is_not_said_to_run_a_task(said: bytes) -> None:
    async with a_bench() as bench, bench.worker() as worker:
        address = await bench.submit()
        await answer_with(worker.broker, topology.control_subject(*QUEUE, Verb.PING), said)
        assert await ask_workers(bench.producer, *QUEUE, Verb.PING, Request()) is None
        status = await AsyncClient.over(bench.producer, "default").handle("images", address.id).status()
        assert (status.phase, status.started_at) == (Phase.QUEUED, None)


@pytest.mark.parametrize("said", GARBAGE)
@in_virtual_time
async def test_what_starts_the_workers_and_answers_garbage_is_refused(said: bytes) -> None:
    async with a_bench() as bench, MemoryBroker(bench.server, "operator") as operator:
        await answer_with(operator, topology.workers_subject(*QUEUE), said)
        with pytest.raises(BrokerRefused, match="'images'"):
            await ask_supply(bench.producer, *QUEUE)
