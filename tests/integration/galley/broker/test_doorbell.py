from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley.broker.connection import Broker
from galley.broker.doorbell import Doorbell
from galley.broker.ensure import ensure
from galley.broker.later import Door, send_later
from galley.broker.pause import pause, resume
from galley.broker.publish import Publisher
from galley.broker.topology import QueueLayout
from galley.envelope import FIRST, encode
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually


@pytest.fixture
async def broker(nats_server: NatsServer) -> AsyncIterator[Broker]:
    async with Broker(nats_server.url, name="test") as connected:
        yield connected


@pytest.fixture
async def queue(broker: Broker, namespace: str) -> QueueLayout:
    layout = a_queue(namespace=namespace)
    await ensure(broker, layout)
    return layout


@pytest.fixture
async def bell(broker: Broker, queue: QueueLayout) -> AsyncIterator[Doorbell]:
    async with Doorbell(broker, queue.namespace, queue.queue) as open_bell:
        yield open_bell


async def submit(broker: Broker, queue: QueueLayout, **changes: Any) -> None:
    await Publisher(broker).publish(an_address(of=queue), an_envelope(**changes))


async def test_a_new_task_rings(broker: Broker, queue: QueueLayout, bell: Doorbell) -> None:
    await bell.arm()
    await submit(broker, queue)
    assert await bell.wait(30)


async def test_a_task_for_later_rings_for_a_worker_that_moves_it(
    broker: Broker, queue: QueueLayout, bell: Doorbell
) -> None:
    await bell.arm()
    await submit(broker, queue, not_before=datetime.now(UTC) + timedelta(hours=1))
    assert await bell.wait(30)


async def test_a_schedule_that_fires_rings(broker: Broker, queue: QueueLayout, bell: Doorbell) -> None:
    address, at = an_address(of=queue), datetime.now(UTC) + timedelta(seconds=1)
    assert (await (await send_later(broker, address, encode(an_envelope()), FIRST, at, Door.FIRST))).stored
    await bell.arm()
    assert await bell.wait(30)


async def test_a_pause_rings_and_so_does_its_end(broker: Broker, queue: QueueLayout, bell: Doorbell) -> None:
    for change in (pause, resume):
        await bell.arm()
        await change(broker, queue.namespace, queue.queue)
        assert await bell.wait(30)
        # Each lane tells of it.
        await broker.reached(2)


async def test_a_task_of_another_queue_does_not_ring(
    broker: Broker, queue: QueueLayout, bell: Doorbell
) -> None:
    other = a_queue("other", namespace=queue.namespace)
    await ensure(broker, other)
    await bell.arm()
    await submit(broker, other)
    assert not await bell.wait(0.1)


async def test_a_flood_costs_the_listener_one_message_for_each_arming(
    broker: Broker, queue: QueueLayout, nats_server: NatsServer
) -> None:
    async with (
        Broker(nats_server.url, name="listener") as listener,
        Doorbell(listener, queue.namespace, queue.queue) as bell,
    ):
        for _ in range(2):
            await bell.arm()
            before = listener.nats.stats["in_msgs"]
            for _ in range(20):
                await submit(broker, queue)
            assert await bell.wait(30)
            await listener.nats.flush()
            assert listener.nats.stats["in_msgs"] - before == 1


async def test_a_ring_before_the_arming_is_forgotten(
    broker: Broker, queue: QueueLayout, bell: Doorbell
) -> None:
    await bell.arm()
    await submit(broker, queue)
    assert await bell.wait(30)
    await bell.arm()
    assert not await bell.wait(0.05)
    await submit(broker, queue)
    assert await bell.wait(30)


async def test_a_disarmed_bell_stays_silent(broker: Broker, queue: QueueLayout, bell: Doorbell) -> None:
    await bell.arm()
    bell.disarm()
    await submit(broker, queue)
    assert not await bell.wait(0.1)


async def test_an_armed_bell_survives_a_restart_of_the_server(
    own_nats_server: NatsServer, namespace: str
) -> None:
    queue = a_queue(namespace=namespace)
    async with Broker(own_nats_server.url, name="test") as broker:
        await ensure(broker, queue)
        async with Doorbell(broker, queue.namespace, queue.queue) as bell:
            await bell.arm()
            own_nats_server.kill()
            await eventually(lambda: not broker.connected, within=30)
            await bell.arm()
            await own_nats_server.start()
            await eventually(lambda: broker.connected, within=30)
            await bell.arm()
            await submit(broker, queue)
            assert await bell.wait(30)
