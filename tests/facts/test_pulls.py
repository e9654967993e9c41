"""Pulls: how each of them ends, and what comes with a delivered task."""

import pytest

from galley.broker import stream_config, topology
from galley.broker.topology import QueueLayout
from galley.lanes import Lane
from galley_local.nats_server import NatsServer
from tests.facts.jetstream import JetStream, Pull, delivered
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually


async def submit(jetstream: JetStream, queue: QueueLayout, count: int = 1) -> None:
    for _ in range(count):
        await jetstream.stored(topology.task_subject(an_address(of=queue)))


async def test_a_sweep_of_an_empty_lane_ends_with_404(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    pulled = await (await jetstream.pull(work, batch=5, no_wait=True)).ended()
    assert pulled == ([], "404", "No Messages")


async def test_a_sweep_brings_what_is_there_and_ends_with_404(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue, 2)
    pulled = await (await jetstream.pull(work, batch=5, no_wait=True)).ended()
    assert (len(pulled.messages), pulled.status, pulled.description) == (2, "404", "No Messages")


async def test_a_sweep_that_is_filled_ends_without_a_status(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue, 2)
    pull = await jetstream.pull(work, batch=2, no_wait=True)
    assert len((await pull.ended()).messages) == 2
    with pytest.raises(TimeoutError):
        await pull.heartbeat(within=0.2)


async def test_a_parked_pull_gets_the_next_task(jetstream: JetStream, queue: QueueLayout, work: str) -> None:
    parked = await jetstream.pull(work)
    await submit(jetstream, queue)
    assert len((await parked.ended()).messages) == 1


async def test_a_parked_pull_that_expires_ends_with_408(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    parked = await jetstream.pull(work, batch=3, expires=200_000_000)
    await submit(jetstream, queue)
    pulled = await parked.ended()
    assert (len(pulled.messages), pulled.status, pulled.description) == (1, "408", "Request Timeout")
    assert parked.headers["Nats-Pending-Messages"] == "2"


async def test_a_parked_pull_beats_while_it_waits(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    parked = await jetstream.pull(work, expires=1_000_000_000, idle_heartbeat=200_000_000)
    beat = await parked.heartbeat()
    assert (beat["Status"], beat["Description"]) == ("100", "Idle Heartbeat")


async def test_a_heartbeat_longer_than_half_the_life_of_a_pull_is_refused(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    pull = await jetstream.pull(work, expires=1_000_000_000, idle_heartbeat=600_000_000)
    assert (await pull.ended()).status == "400"


async def parked_pull(jetstream: JetStream, stream: str) -> Pull:
    """Return a pull that has reached its consumer; one still on its way there is forgotten in silence."""
    pull = await jetstream.pull(stream)

    async def waits() -> bool:
        info = await jetstream.ok(f"CONSUMER.INFO.{stream}.{Lane.NORMAL}")
        return bool(info["num_waiting"] == 1)

    await eventually(waits, within=30)
    return pull


async def test_a_parked_pull_ends_with_409_when_its_consumer_is_deleted(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    parked = await parked_pull(jetstream, work)
    await jetstream.ok(f"CONSUMER.DELETE.{work}.{Lane.NORMAL}")
    assert await parked.ended() == ([], "409", "Consumer Deleted")


async def test_a_parked_pull_ends_with_409_when_its_stream_is_deleted(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    parked = await parked_pull(jetstream, work)
    await jetstream.ok(f"STREAM.DELETE.{work}")
    assert await parked.ended() == ([], "409", "Consumer Deleted")


async def test_a_parked_pull_ends_with_its_connection_when_its_server_stops(
    own_nats_server: NatsServer,
) -> None:
    """Mostly a 409 comes first, and about one time in fifty nothing but the end of the connection."""
    layout = a_queue()
    async with await JetStream.connect(own_nats_server.url) as jetstream:
        await jetstream.create_queue(layout)
        parked = await jetstream.pull(topology.work_stream(layout.namespace, layout.queue))
        await own_nats_server.stop()
        await eventually(lambda: not jetstream.client.is_connected, within=30)
        if parked.answered:
            assert await parked.ended() == ([], "409", "Server Shutdown")


async def test_a_pull_from_a_consumer_that_does_not_exist_gets_no_responders(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    assert (await (await jetstream.pull(work, Lane.CRITICAL)).ended()).status == "503"


async def test_more_parked_pulls_than_the_consumer_holds_are_refused(
    jetstream: JetStream, namespace: str, work: str
) -> None:
    layout = a_queue(namespace=namespace)
    await jetstream.ok(f"STREAM.CREATE.{work}", stream_config.work_definition(layout, 1))
    _, definition = next(iter(stream_config.consumer_definitions(layout)))
    await jetstream.create_consumer(work, definition | {"max_waiting": 1})
    await jetstream.pull(work, Lane.HIGH)
    second = await jetstream.pull(work, Lane.HIGH)
    assert await second.ended() == ([], "409", "Exceeded MaxWaiting")


async def test_a_pull_whose_asker_is_gone_takes_no_task(
    jetstream: JetStream, nats_server: NatsServer, queue: QueueLayout, work: str
) -> None:
    """A worker that dies with a parked pull costs the next task nothing, not even a lease."""
    async with await JetStream.connect(nats_server.url) as doomed:
        await doomed.pull(work, expires=30_000_000_000)

    async def noticed() -> bool:
        info = await jetstream.consumer(work)
        return bool(info["num_waiting"] == 0)

    await eventually(noticed, within=30)
    await submit(jetstream, queue)
    assert delivered(await jetstream.next(work)) == 1


async def test_parked_pulls_are_counted_as_idle_capacity(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await jetstream.pull(work)

    async def counted() -> bool:
        info = await jetstream.consumer(work)
        return bool(info["num_waiting"] == 1)

    await eventually(counted, within=30)


async def test_a_delivery_tells_how_many_tasks_wait_behind_it(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue, 3)
    words = (await jetstream.next(work)).reply.split(".")
    # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>
    assert words[:7] == ["$JS", "ACK", work, Lane.NORMAL, "1", "1", "1"]
    assert len(words) == 9
    assert words[8] == "2"


async def test_a_lane_is_handed_out_in_the_order_of_submission(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue, 20)
    pulled = await (await jetstream.pull(work, batch=20)).ended()
    assert [int(message.reply.split(".")[5]) for message in pulled.messages] == list(range(1, 21))


async def test_a_paused_lane_hands_out_nothing_until_it_is_resumed(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue)
    pause = f"CONSUMER.PAUSE.{work}.{Lane.NORMAL}"
    await jetstream.ok(pause, {"pause_until": "2099-01-01T00:00:00Z"})
    assert await jetstream.is_empty(work)
    await jetstream.ok(pause)
    await jetstream.next(work)


async def test_a_pull_parked_in_a_paused_lane_goes_on_when_another_asks_after_the_resume(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    """The resume alone often wakes no pull: the next pull, or the next task, does."""
    await submit(jetstream, queue)
    pause = f"CONSUMER.PAUSE.{work}.{Lane.NORMAL}"
    await jetstream.ok(pause, {"pause_until": "2099-01-01T00:00:00Z"})
    parked = await jetstream.pull(work, expires=30_000_000_000)
    await jetstream.ok(pause)

    async def woken() -> bool:
        await jetstream.pull(work, no_wait=True)
        return parked.answered

    await eventually(woken, within=30)
    assert (await parked.ended()).messages


async def test_a_running_task_can_be_acked_in_a_paused_lane(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await submit(jetstream, queue)
    leased = await jetstream.next(work)
    await jetstream.ok(f"CONSUMER.PAUSE.{work}.{Lane.NORMAL}", {"pause_until": "2099-01-01T00:00:00Z"})
    await jetstream.acknowledge(leased)

    async def removed() -> bool:
        return await jetstream.held(work) == 0

    await eventually(removed, within=30)
