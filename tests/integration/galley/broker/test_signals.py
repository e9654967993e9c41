import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley.backlog import LaneBacklog, QueueBacklog, Unknown, Usage
from galley.broker import stream_listing, topology
from galley.broker.connection import Broker
from galley.broker.ensure import ensure, remove
from galley.broker.later import Door, send_later
from galley.broker.pause import pause
from galley.broker.publish import Publisher
from galley.broker.signals import SignalReader
from galley.broker.topology import QueueLayout
from galley.envelope import FIRST, encode
from galley.lanes import Lane
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
def reader(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> SignalReader:
    # Each read of these tests is a sweep of its own.
    monkeypatch.setattr(stream_listing, "LISTING_SECONDS", 0.0)
    return SignalReader(broker)


async def submit(broker: Broker, queue: QueueLayout, lane: Lane = Lane.NORMAL, **changes: Any) -> None:
    await Publisher(broker).publish(an_address(of=queue, lane=lane), an_envelope(**changes))


async def take(broker: Broker, queue: QueueLayout, lane: Lane = Lane.NORMAL, stream: str = "") -> str:
    """Take one task as a worker would; returns where its acknowledgement goes."""
    stream = stream or topology.work_stream(queue.namespace, queue.queue)
    request = json.dumps({"batch": 1, "expires": 2_000_000_000}).encode()
    async for answer in broker.request_many(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{lane}", request):
        assert answer.reply.startswith("$JS.ACK"), answer.headers
        return answer.reply
    raise AssertionError("unreachable: an answer or BrokerUnreachable")


async def known(reader: SignalReader, queue: QueueLayout) -> QueueBacklog:
    backlog = await reader.read(queue.namespace, queue.queue)
    assert isinstance(backlog, QueueBacklog), backlog
    return backlog


def lane_of(backlog: QueueBacklog, lane: Lane) -> LaneBacklog:
    return next(found for found in backlog.lanes if found.lane is lane)


async def test_an_empty_queue_has_a_backlog_of_nothing(reader: SignalReader, queue: QueueLayout) -> None:
    assert await known(reader, queue) == QueueBacklog(
        (LaneBacklog(Lane.HIGH, 0, 0), LaneBacklog(Lane.NORMAL, 0, 0), LaneBacklog(Lane.LOW, 0, 0)),
        usage=(
            Usage("backlog", 0, queue.backlog),
            Usage("backlogBytes", 0, queue.backlog_bytes),
            Usage("laterBytes", 0, int(queue.later_bytes * 0.9)),
            Usage("deadLetterBytes", 0, queue.dead_letter_bytes),
            Usage("objectBytes", 0, queue.object_bytes),
            Usage("workflowBytes", 0, int(queue.workflow_bytes * topology.FLOW_SHARE)),
        ),
    )


async def test_waiting_and_running_tasks_are_told_apart_by_lane(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    for lane, count in ((Lane.HIGH, 1), (Lane.NORMAL, 3), (Lane.LOW, 2)):
        for _ in range(count):
            await submit(broker, queue, lane)
    await take(broker, queue, Lane.NORMAL)
    backlog = await known(reader, queue)
    assert [(lane.waiting, lane.in_flight) for lane in backlog.lanes] == [(1, 0), (2, 1), (2, 0)]
    assert (backlog.waiting, backlog.in_flight) == (5, 1)


async def test_new_work_in_a_queue_seen_empty_is_seen(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    assert (await known(reader, queue)).waiting == 0
    await submit(broker, queue)
    assert (await known(reader, queue)).waiting == 1


async def test_an_acknowledged_task_is_gone_from_the_backlog(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    await submit(broker, queue)
    reply = await take(broker, queue)
    assert (await known(reader, queue)).in_flight == 1
    broker.publish(reply, b"+ACK")

    async def nothing_left() -> bool:
        backlog = await known(reader, queue)
        return (backlog.waiting, backlog.in_flight) == (0, 0)

    await eventually(nothing_left, within=30)


async def test_a_scheduled_task_is_for_later_and_waits_once_it_is_due(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    address, at = an_address(of=queue), datetime.now(UTC) + timedelta(seconds=1)
    assert (await (await send_later(broker, address, encode(an_envelope()), FIRST, at, Door.FIRST))).stored
    backlog = await known(reader, queue)
    assert (backlog.waiting, backlog.later) == (0, 1)
    assert backlog.coming == ((at.replace(microsecond=0), 1),)

    async def due() -> bool:
        backlog = await known(reader, queue)
        return (backlog.waiting, backlog.later, backlog.coming) == (1, 0, ())

    await eventually(due, within=30)
    await take(broker, queue, stream=topology.later_stream(queue.namespace, queue.queue))
    backlog = await known(reader, queue)
    assert (backlog.waiting, backlog.in_flight, backlog.later) == (0, 1, 0)


async def test_tasks_for_later_that_are_not_moved_yet_wake_one_worker(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    for _ in range(3):
        await submit(broker, queue, not_before=datetime.now(UTC) + timedelta(hours=1))
    backlog = await known(reader, queue)
    assert (backlog.waiting, backlog.later) == (1, 3)
    await submit(broker, queue)
    backlog = await known(reader, queue)
    assert (backlog.waiting, backlog.later) == (1, 3)


async def test_the_oldest_wait_is_of_the_first_task_no_worker_was_handed(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    await submit(broker, queue, Lane.LOW)
    await take(broker, queue, Lane.LOW)
    before = datetime.now(UTC)
    await submit(broker, queue, Lane.LOW)
    after = datetime.now(UTC)
    await submit(broker, queue, Lane.LOW)
    backlog = await known(reader, queue)
    oldest = lane_of(backlog, Lane.LOW).oldest_at
    assert oldest is not None
    assert before <= oldest <= after
    assert backlog.oldest_at == oldest
    assert lane_of(backlog, Lane.HIGH).oldest_at is None


async def test_a_sweep_costs_one_request_and_one_for_each_lane_of_what_changed(
    own_nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_listing, "LISTING_SECONDS", 0.0)
    queue = a_queue(namespace=namespace)
    async with (
        Broker(own_nats_server.url, name="test") as broker,
        Broker(own_nats_server.url, name="producer") as producer,
    ):
        await ensure(broker, queue)
        reader = SignalReader(broker)

        async def cost() -> int:
            before: int = broker.nats.stats["out_msgs"]
            await known(reader, queue)
            after: int = broker.nats.stats["out_msgs"]
            return after - before

        # Of empty streams only those are asked that tell whether the queue is paused.
        assert await cost() == 1 + len(queue.lanes)
        assert await cost() == 1
        await submit(producer, queue)
        # The work stream changed, the later one did not; one more to see how long the task has waited.
        assert await cost() == 2 + len(queue.lanes) + 1


async def test_a_queue_that_is_paused_while_it_is_empty_is_known_as_paused_at_the_first_look(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    await pause(broker, queue.namespace, queue.queue)
    assert (await known(reader, queue)).paused


async def test_a_queue_without_streams_is_not_known_rather_than_empty(
    reader: SignalReader, namespace: str
) -> None:
    first = await reader.read(namespace, "nowhere")
    assert isinstance(first, Unknown)
    assert "no streams of queue 'nowhere'" in first.why
    second = await reader.read(namespace, "nowhere")
    assert isinstance(second, Unknown)
    assert second.since == first.since


async def test_a_queue_that_was_removed_is_not_known_any_longer(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    await known(reader, queue)
    await remove(broker, queue.namespace, queue.queue)
    assert isinstance(await reader.read(queue.namespace, queue.queue), Unknown)


async def test_a_lane_that_does_not_answer_keeps_its_last_figures_marked_stale(
    broker: Broker, reader: SignalReader, queue: QueueLayout
) -> None:
    await submit(broker, queue, Lane.HIGH)
    before = datetime.now(UTC)
    await known(reader, queue)
    stream = topology.work_stream(queue.namespace, queue.queue)
    await broker.api("delete consumer", f"CONSUMER.DELETE.{stream}.high")
    high = lane_of(await known(reader, queue), Lane.HIGH)
    assert high.waiting == 1
    assert high.stale is not None
    assert before <= high.stale.since <= datetime.now(UTC)
    await ensure(broker, queue)
    assert (await known(reader, queue)).stale is None


async def test_a_server_that_is_gone_leaves_the_last_figures_stale(
    own_nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_listing, "LISTING_SECONDS", 0.0)
    async with Broker(own_nats_server.url, name="test") as broker:
        queue = a_queue(namespace=namespace)
        await ensure(broker, queue)
        reader = SignalReader(broker)
        await submit(broker, queue)
        assert (await known(reader, queue)).stale is None
        own_nats_server.kill()
        backlog = await known(reader, queue)
        assert backlog.waiting == 1
        assert backlog.stale is not None
        fresh = await SignalReader(broker).read(queue.namespace, queue.queue)
        assert isinstance(fresh, Unknown)
        await own_nats_server.start()
        await eventually(lambda: broker.connected, within=30)

        async def confirmed() -> bool:
            return (await known(reader, queue)).stale is None

        await eventually(confirmed, within=30)


async def test_a_ring_is_answered_by_the_lanes_without_a_listing(
    broker: Broker, queue: QueueLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that no reading sees a change by itself.
    monkeypatch.setattr(stream_listing, "LISTING_SECONDS", 3600.0)
    reader = SignalReader(broker)
    assert (await known(reader, queue)).waiting == 0
    await submit(broker, queue)
    assert (await known(reader, queue)).waiting == 0

    async def counted() -> bool:
        rung = await reader.read(queue.namespace, queue.queue, rung=True)
        return isinstance(rung, QueueBacklog) and rung.waiting == 1

    # The server confirms a task a moment before it counts it.
    await eventually(counted, within=30)
