"""Leases: how long a delivered task is kept from others, and what the words about it do."""

import asyncio

import pytest

from galley.broker import stream_config, topology
from galley.broker.topology import QueueLayout
from galley.lanes import Lane
from tests.facts.jetstream import BRIEF, JetStream, delivered
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually

WPI, NAK = b"+WPI", b"-NAK"


async def submit(jetstream: JetStream, queue: QueueLayout, body: bytes = b"{}", **changes: object) -> None:
    await jetstream.stored(topology.task_subject(an_address(of=queue, **changes)), body)


async def test_a_lease_without_sign_of_life_lapses_and_the_task_comes_again(
    jetstream: JetStream, brief_queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, brief_queue)
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = await jetstream.next(work)
    second = await jetstream.next(work)
    assert (delivered(first), delivered(second)) == (1, 2)
    assert loop.time() - began >= 0.9 * BRIEF


async def test_signs_of_life_keep_a_lease(jetstream: JetStream, brief_queue: QueueLayout, work: str) -> None:
    await submit(jetstream, brief_queue)
    leased = await jetstream.next(work)
    other = await jetstream.pull(work, expires=int((BRIEF + 1) * 1e9))
    async with asyncio.TaskGroup() as group:
        verdict = group.create_task(other.ended())
        while not verdict.done():
            await jetstream.client.publish(leased.reply, WPI)
            await asyncio.wait({verdict}, timeout=0.3)
    assert verdict.result().status == "408"
    assert delivered(await jetstream.next(work)) == 2


async def test_a_lapsed_lease_stays_counted_while_no_worker_pulls(
    jetstream: JetStream, brief_queue: QueueLayout, work: str
) -> None:
    """Redelivery is lazy: a scaler that waits for this to fall before it starts a worker waits forever."""
    await submit(jetstream, brief_queue)
    await jetstream.next(work)
    loop = asyncio.get_running_loop()
    lapsed = loop.time() + BRIEF + 0.5
    await eventually(lambda: loop.time() > lapsed, within=30)
    info = await jetstream.consumer(work)
    assert (info["num_pending"], info["num_ack_pending"]) == (0, 1)


async def test_a_task_given_back_comes_again_at_once_and_counts_as_delivered_twice(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue)
    await jetstream.acknowledge(await jetstream.next(work), NAK)
    pulled = await (await jetstream.pull(work, no_wait=True)).ended()
    assert [delivered(message) for message in pulled.messages] == [2]


async def test_a_task_given_back_comes_before_those_that_wait_behind_it(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue, b"first")
    await submit(jetstream, queue, b"second")
    await jetstream.acknowledge(await jetstream.next(work), NAK)
    assert [(await jetstream.next(work)).data for _ in range(2)] == [b"first", b"second"]


async def test_an_ack_removes_the_task(jetstream: JetStream, queue: QueueLayout, work: str) -> None:
    await submit(jetstream, queue)
    assert await jetstream.acknowledge(await jetstream.next(work)) == b""
    assert await jetstream.held(work) == 0


async def test_a_late_ack_is_answered_as_if_it_had_done_something(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    """Nothing may be concluded from the answer to an ack: the record is the proof."""
    await submit(jetstream, queue)
    leased = await jetstream.next(work)
    await jetstream.ok(f"STREAM.PURGE.{work}")
    assert await jetstream.acknowledge(leased) == b""
    assert await jetstream.acknowledge(leased) == b""
    assert await jetstream.acknowledge(leased, WPI) == b""


async def test_an_ack_of_a_delivery_that_lost_its_lease_removes_the_task_from_its_new_holder(
    jetstream: JetStream, brief_queue: QueueLayout, work: str
) -> None:
    """The broker does not fence: results are fenced by their records."""
    await submit(jetstream, brief_queue)
    stale = await jetstream.next(work)
    assert delivered(await jetstream.next(work)) == 2
    await jetstream.acknowledge(stale)
    assert await jetstream.held(work) == 0


async def test_a_sign_of_life_of_a_delivery_that_lost_its_lease_extends_that_of_its_new_holder(
    jetstream: JetStream, brief_queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, brief_queue)
    stale = await jetstream.next(work)
    assert delivered(await jetstream.next(work)) == 2
    third = await jetstream.pull(work, expires=int((BRIEF + 1) * 1e9))
    async with asyncio.TaskGroup() as group:
        verdict = group.create_task(third.ended())
        while not verdict.done():
            await jetstream.client.publish(stale.reply, WPI)
            await asyncio.wait({verdict}, timeout=0.3)
    assert verdict.result().status == "408"


async def test_giving_back_a_delivery_that_lost_its_lease_takes_the_task_from_its_new_holder(
    jetstream: JetStream, brief_queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, brief_queue)
    stale = await jetstream.next(work)
    assert delivered(await jetstream.next(work)) == 2
    await jetstream.acknowledge(stale, NAK)
    pulled = await (await jetstream.pull(work, no_wait=True)).ended()
    assert [delivered(message) for message in pulled.messages] == [3]


async def test_the_in_flight_fuse_holds_for_each_lane_alone(
    jetstream: JetStream, namespace: str, work: str
) -> None:
    layout = a_queue(namespace=namespace, in_flight=1)
    await jetstream.create_queue(layout)
    for lane in (Lane.NORMAL, Lane.NORMAL, Lane.LOW):
        await submit(jetstream, layout, lane=lane)
    held = await jetstream.next(work)
    await jetstream.next(work, Lane.LOW)
    parked = await jetstream.pull(work, expires=200_000_000)
    assert (await parked.ended()).status == "408"
    parked = await jetstream.pull(work)
    await jetstream.acknowledge(held)
    assert (await parked.ended()).messages, "an ack lets a pull go on that waits for the fuse"


async def test_a_sweep_at_the_in_flight_fuse_gets_no_answer_until_an_ack(
    jetstream: JetStream, namespace: str, work: str
) -> None:
    """Neither tasks nor a status: a sweep needs a timeout, and set the fuse wide."""
    layout = a_queue(namespace=namespace, in_flight=1)
    await jetstream.create_queue(layout)
    await submit(jetstream, layout)
    await submit(jetstream, layout)
    held = await jetstream.next(work)
    sweep = await jetstream.pull(work, no_wait=True)
    with pytest.raises(TimeoutError):
        await sweep.ended(within=0.3)
    await jetstream.acknowledge(held)
    assert (await sweep.ended()).messages


async def test_two_consumers_of_a_work_queue_may_not_overlap(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    stream, definition = next(iter(stream_config.consumer_definitions(queue)))
    second = definition | {"name": "second", "durable_name": "second"}
    code, text = await jetstream.refused(*jetstream.consumer_request(stream, second))
    assert (code, text) == (10100, "filtered consumer not unique on workqueue stream")
