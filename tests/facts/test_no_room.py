"""A server whose room for streams is used up: what it refuses, what still works, what gets stuck."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from galley.broker import stream_config, topology
from galley.broker.topology import SCHEDULE, SCHEDULE_TARGET
from galley_local.nats_server import NatsServer
from tests.facts.jetstream import JetStream
from tests.support.builders import a_queue, an_address

NO_ROOM = (10023, "insufficient resources")
ROOM = 2 * 1024 * 1024
LAYOUT = a_queue()
WORK = topology.work_stream(LAYOUT.namespace, LAYOUT.queue)
LATER = topology.later_stream(LAYOUT.namespace, LAYOUT.queue)


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[JetStream]:
    """A queue whose own limits leave it all the room a small server has, half of it for records."""
    async with (
        NatsServer(tmp_path, max_store_bytes=ROOM) as server,
        await JetStream.connect(server.url) as jetstream,
    ):
        for definition in (
            stream_config.work_definition(LAYOUT, 1) | {"max_bytes": -1},
            stream_config.later_definition(LAYOUT, 1) | {"max_bytes": -1},
            stream_config.records_definition(LAYOUT, 1) | {"max_bytes": ROOM // 2},
        ):
            await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
        for stream, definition in stream_config.consumer_definitions(LAYOUT):
            await jetstream.create_consumer(stream, definition)
        yield jetstream


async def fill(jetstream: JetStream) -> None:
    """Publish ever smaller tasks until not even the smallest finds room."""
    for size in (100_000, 10_000, 100):
        for _ in range(1000):
            answer = await jetstream.publish(topology.task_subject(an_address()), bytes(size))
            if answer.code:
                assert answer.refusal == NO_ROOM
                break


def due_in(seconds: float) -> tuple[str, dict[str, str]]:
    address = an_address()
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return topology.again_subject(address), {
        SCHEDULE: f"@at {moment.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z",
        SCHEDULE_TARGET: topology.due_subject(address),
    }


async def test_without_room_tasks_and_schedules_and_even_records_are_refused(small: JetStream) -> None:
    """Records too, although their stream has room of its own left: it is not set aside."""
    await fill(small)
    subject, headers = due_in(60)
    assert (await small.publish(subject, bytes(1000), headers)).refusal == NO_ROOM
    assert (await small.publish(topology.record_subject(an_address()), bytes(1000))).refusal == NO_ROOM


async def test_without_room_tasks_are_still_handed_out_and_acks_make_room(small: JetStream) -> None:
    await fill(small)
    await small.acknowledge(await small.next(WORK))
    await small.stored(topology.task_subject(an_address()), bytes(1000))


async def test_a_schedule_that_fires_without_room_is_stuck_until_it_is_published_again(
    small: JetStream,
) -> None:
    subject, headers = due_in(2)
    await small.stored(subject, b"stuck", headers)
    await fill(small)
    beyond_its_time = await small.pull(LATER, expires=2_800_000_000)
    assert (await beyond_its_time.ended()).status == "408"
    await small.ok(f"STREAM.PURGE.{WORK}")
    with_room_again = await small.pull(LATER, expires=600_000_000)
    assert (await with_room_again.ended()).status == "408"
    await small.stored(subject, b"published again", headers)
    assert (await small.next(LATER)).data == b"published again"
    assert await small.held(LATER) == 1
