"""Making and changing streams and consumers: what is idempotent, what is refused, what is kept."""

from pathlib import Path

import pytest

from galley.broker import stream_config, topology
from galley.broker.topology import QueueLayout
from galley.lanes import Lane
from galley_local.nats_server import NatsServer
from tests.facts.jetstream import JetStream
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually


async def test_the_server_speaks_the_api_level_galley_was_written_for(jetstream: JetStream) -> None:
    level = (await jetstream.ok("INFO"))["api"]["level"]
    assert level >= 5
    version = jetstream.client.connected_server_version
    assert (version.major, version.minor, version.patch) >= (2, 15, 1)


async def test_creating_the_same_again_changes_nothing(jetstream: JetStream, queue: QueueLayout) -> None:
    await jetstream.create_queue(queue)


async def test_creating_a_stream_with_another_definition_is_refused(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    other = stream_config.work_definition(queue, 1) | {"max_msgs": 1}
    assert await jetstream.refused(f"STREAM.CREATE.{work}", other) == (
        10058, "stream name already in use with a different configuration")  # fmt: skip


async def test_creating_a_consumer_with_another_definition_is_refused(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    _, definition = next(iter(stream_config.consumer_definitions(queue)))
    request = jetstream.consumer_request(work, definition | {"ack_wait": 5_000_000_000})
    assert await jetstream.refused(*request) == (10148, "consumer already exists")


@pytest.mark.parametrize(
    "change", [{"ack_wait": 5_000_000_000}, {"max_ack_pending": 7}], ids=["lease", "fuse"]
)
async def test_lease_and_fuse_of_a_consumer_can_be_changed(
    jetstream: JetStream, queue: QueueLayout, work: str, change: dict[str, int]
) -> None:
    _, definition = next(iter(stream_config.consumer_definitions(queue)))
    await jetstream.ok(*jetstream.consumer_request(work, definition | change, "update"))
    config = (await jetstream.consumer(work, definition["name"]))["config"]
    assert config | change == config


async def test_the_number_of_parked_pulls_cannot_be_changed(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    _, definition = next(iter(stream_config.consumer_definitions(queue)))
    request = jetstream.consumer_request(work, definition | {"max_waiting": 16}, "update")
    assert await jetstream.refused(*request) == (10012, "max waiting can not be updated")


async def test_two_streams_may_not_share_a_subject(jetstream: JetStream, queue: QueueLayout) -> None:
    thief = stream_config.work_definition(queue, 1) | {"name": f"thief_{queue.namespace}"}
    assert await jetstream.refused(f"STREAM.CREATE.{thief['name']}", thief) == (
        10065, "subjects overlap with an existing stream")  # fmt: skip


async def test_an_update_that_drops_a_lane_keeps_the_tasks_in_it(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await jetstream.stored(topology.task_subject(an_address(of=queue, lane=Lane.LOW)))
    definition = stream_config.work_definition(queue, 1)
    kept = [subject for subject in definition["subjects"] if f".{Lane.LOW}." not in subject]
    await jetstream.ok(f"STREAM.UPDATE.{work}", definition | {"subjects": kept})
    assert await jetstream.held(work) == 1
    dropped = topology.task_subject(an_address(of=queue, lane=Lane.LOW))
    assert (await jetstream.publish(dropped)).code == 503
    assert (await jetstream.next(work, Lane.LOW)).data == b"{}"


async def test_a_lower_limit_refuses_new_tasks_and_keeps_those_that_are_there(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    for _ in range(3):
        await jetstream.stored(topology.task_subject(an_address(of=queue)))
    await jetstream.ok(f"STREAM.UPDATE.{work}", stream_config.work_definition(queue, 1) | {"max_msgs": 1})
    assert await jetstream.held(work) == 3
    assert (await jetstream.publish(topology.task_subject(an_address(of=queue)))).code == 10077


async def test_deleting_a_consumer_of_a_work_queue_keeps_its_tasks(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await jetstream.stored(topology.task_subject(an_address(of=queue)))
    await jetstream.next(work)
    await jetstream.ok(f"CONSUMER.DELETE.{work}.{Lane.NORMAL}")
    assert await jetstream.held(work) == 1
    await jetstream.create_queue(queue)
    assert (await jetstream.next(work)).data == b"{}"


async def test_an_unknown_field_is_refused(jetstream: JetStream, namespace: str) -> None:
    definition = stream_config.work_definition(a_queue(namespace=namespace), 1) | {"no_such_field": 1}
    assert await jetstream.refused(f"STREAM.CREATE.{definition['name']}", definition) == (
        10025, "invalid JSON: json: unknown field \"no_such_field\"")  # fmt: skip


async def test_what_does_not_exist_is_told_by_code(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    assert await jetstream.refused("STREAM.INFO.no_such_stream") == (10059, "stream not found")
    assert await jetstream.refused(f"CONSUMER.INFO.{work}.{Lane.CRITICAL}") == (10014, "consumer not found")


async def test_our_metadata_is_kept_beside_the_servers_own(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    metadata = (await jetstream.ok(f"STREAM.INFO.{work}"))["config"]["metadata"]
    assert metadata[topology.OWNER_KEY] == queue.install
    assert {key for key in metadata if not key.startswith("galley.dev/")} == {
        "_nats.level", "_nats.req.level", "_nats.ver"}  # fmt: skip


async def test_a_stream_reserves_its_bytes_so_that_a_small_store_has_no_room_for_records(
    tmp_path: Path,
) -> None:
    layout = a_queue()
    store = layout.record_bytes // 2
    async with (
        NatsServer(tmp_path, max_store_bytes=store) as server,
        await JetStream.connect(server.url) as jetstream,
    ):
        definition = stream_config.records_definition(layout, 1)
        assert await jetstream.refused(f"STREAM.CREATE.{definition['name']}", definition) == (
            10047, "insufficient storage resources available")  # fmt: skip


async def test_a_snapshot_is_delivered_to_whatever_subject_is_asked_for(
    jetstream: JetStream, namespace: str
) -> None:
    mine, victim = (
        stream_config.work_definition(a_queue(queue, namespace=namespace), 1) for queue in ("mine", "victim")
    )
    for definition in (mine, victim):
        await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
    deliver = {"deliver_subject": f"$JS.API.STREAM.DELETE.{victim['name']}", "chunk_size": 1024}
    await jetstream.ok(f"STREAM.SNAPSHOT.{mine['name']}", deliver)

    async def is_gone() -> bool:
        return await jetstream.refused(f"STREAM.INFO.{victim['name']}") == (10059, "stream not found")

    await eventually(is_gone, within=20)
