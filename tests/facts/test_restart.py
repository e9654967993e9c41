"""What a crash of the server leaves: everything it had acknowledged, and every lease."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from galley.broker import topology
from galley.broker.topology import EXPECTED_SEQUENCE, SCHEDULE, SCHEDULE_TARGET, TTL
from galley.lanes import Lane
from galley_local.nats_server import NatsServer
from tests.facts.jetstream import BRIEF, JetStream, delivered
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually

WORK = topology.work_stream(a_queue().namespace, a_queue().queue)
LATER = topology.later_stream(a_queue().namespace, a_queue().queue)
RECORDS = topology.records_stream(a_queue().namespace, a_queue().queue)


@pytest.fixture
async def crashing(own_nats_server: NatsServer) -> AsyncIterator[JetStream]:
    """A queue with short leases on a server of its own."""
    async with await JetStream.connect(own_nats_server.url, max_reconnect_attempts=-1) as connected:
        await connected.create_queue(a_queue(), lease_seconds=BRIEF)
        yield connected


async def crash_and_restart(server: NatsServer, jetstream: JetStream) -> None:
    server.kill()
    await eventually(lambda: not jetstream.client.is_connected, within=30)
    await server.start()
    await eventually(lambda: jetstream.client.is_connected, within=30)


def leases_file(server: NatsServer) -> Path:
    """Return where the server writes down the leases of the lane `normal`."""
    return server.folder / f"jetstream/$G/streams/{WORK}/obs/{Lane.NORMAL}/o.dat"


async def lease_that_is_written_down(server: NatsServer, jetstream: JetStream) -> Msg:
    before = leases_file(server).read_bytes()
    leased = await jetstream.next(WORK)
    await eventually(lambda: leases_file(server).read_bytes() != before, within=30)
    return leased


async def test_each_start_of_a_server_has_an_id_of_its_own_which_a_reload_keeps(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    """Why a mark names it: it is the server's life."""

    def life() -> str:
        return str(crashing.client._server_info["server_id"])

    lives = [life()]
    assert own_nats_server.pid is not None
    os.kill(own_nats_server.pid, signal.SIGHUP)
    assert (await crashing.consumer(WORK))["config"]["name"] == Lane.NORMAL
    assert life() == lives[0]
    await crash_and_restart(own_nats_server, crashing)
    lives.append(life())
    await own_nats_server.stop()
    await eventually(lambda: not crashing.client.is_connected, within=30)
    await own_nats_server.start()
    await eventually(lambda: crashing.client.is_connected, within=30)
    lives.append(life())
    assert len(set(lives)) == 3
    assert crashing.client._server_info["jetstream"]
    assert "cluster" not in crashing.client._server_info


async def test_a_stream_in_memory_is_gone_after_a_start_with_its_definition(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    """Why the mark is not in one: a program with the right to make streams would have to be there first."""
    await crashing.ok("STREAM.CREATE.MEM", {"name": "MEM", "subjects": ["mem"], "storage": "memory"})
    await crashing.stored("mem")
    await crash_and_restart(own_nats_server, crashing)
    assert "MEM" not in (await crashing.ok("STREAM.NAMES"))["streams"]


async def test_a_change_of_metadata_keeps_the_counts_of_deliveries_and_a_new_consumer_does_not(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    await crashing.stored(topology.task_subject(an_address()))
    await crashing.next(WORK)
    config = (await crashing.ok(f"STREAM.INFO.{WORK}"))["config"]
    await crashing.ok(f"STREAM.UPDATE.{WORK}", config | {"metadata": config["metadata"] | {"mark": "x"}})
    assert delivered(await crashing.next(WORK)) == 2
    consumer = (await crashing.consumer(WORK))["config"]
    await crashing.ok(f"CONSUMER.DELETE.{WORK}.{Lane.NORMAL}")
    subject = f"CONSUMER.CREATE.{WORK}.{Lane.NORMAL}.{consumer['filter_subject']}"
    await crashing.ok(subject, {"stream_name": WORK, "config": consumer})
    assert delivered(await crashing.next(WORK)) == 1


async def test_ready_tasks_outlive_a_crash_in_their_order(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    for number in range(50):
        await crashing.stored(topology.task_subject(an_address()), str(number).encode())
    await crash_and_restart(own_nats_server, crashing)
    pulled = await (await crashing.pull(WORK, batch=50)).ended()
    assert [int(message.data) for message in pulled.messages] == list(range(50))


async def test_a_task_that_was_leased_at_a_crash_is_delivered_again_as_the_second_time(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    await crashing.stored(topology.task_subject(an_address()))
    await lease_that_is_written_down(own_nats_server, crashing)
    await crash_and_restart(own_nats_server, crashing)
    assert (await crashing.consumer(WORK))["num_ack_pending"] == 1
    assert delivered(await crashing.next(WORK)) == 2


async def test_a_lease_not_yet_written_down_at_a_crash_is_forgotten_and_the_task_comes_as_the_first_time(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    """So a first delivery after a crash may be a second run, and the ack of the first run does nothing.

    Leases are written a moment after the delivery: of 12 servers killed right after one, 2 had
    forgotten it; of 12 killed 50 ms later, none. Here the file is put back to make that moment certain.
    """
    await crashing.stored(topology.task_subject(an_address()))
    before = leases_file(own_nats_server).read_bytes()
    leased = await lease_that_is_written_down(own_nats_server, crashing)
    own_nats_server.kill()
    leases_file(own_nats_server).write_bytes(before)
    await crash_and_restart(own_nats_server, crashing)
    await crashing.client.publish(leased.reply, b"+ACK")
    assert await crashing.held(WORK) == 1
    assert delivered(await crashing.next(WORK)) == 1


async def test_an_acknowledged_task_does_not_come_back_after_a_crash(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    await crashing.stored(topology.task_subject(an_address()))
    await crashing.acknowledge(await crashing.next(WORK))
    await crash_and_restart(own_nats_server, crashing)
    assert await crashing.held(WORK) == 0
    assert await crashing.is_empty(WORK)


async def test_a_delivery_of_before_a_crash_can_be_acknowledged_after_it(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    await crashing.stored(topology.task_subject(an_address()))
    leased = await lease_that_is_written_down(own_nats_server, crashing)
    await crash_and_restart(own_nats_server, crashing)
    await crashing.acknowledge(leased)

    async def removed() -> bool:
        return await crashing.held(WORK) == 0

    await eventually(removed, within=30)


async def test_sequences_go_on_after_a_crash_that_found_the_stream_empty(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    """A claim names stream and sequence, so no sequence may come twice."""
    subject = topology.task_subject(an_address())
    await crashing.stored(subject)
    await crashing.acknowledge(await crashing.next(WORK))
    await crash_and_restart(own_nats_server, crashing)
    assert await crashing.stored(subject, headers={EXPECTED_SEQUENCE: "0"}) == 2


async def test_a_record_and_its_fence_outlive_a_crash(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    subject = topology.record_subject(an_address())
    sequence = await crashing.stored(subject, b"record", {TTL: "60"})
    await crash_and_restart(own_nats_server, crashing)
    assert (await crashing.get(RECORDS, subject)).data == b"record"
    refused = await crashing.publish(subject, headers={EXPECTED_SEQUENCE: "0"})
    assert refused.refusal == (10071, f"wrong last sequence: {sequence}")


async def test_the_life_time_of_a_record_goes_on_after_a_crash(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    await crashing.stored(topology.record_subject(an_address()), headers={TTL: "2"})
    await crash_and_restart(own_nats_server, crashing)

    async def gone() -> bool:
        return await crashing.held(RECORDS) == 0

    await eventually(gone, within=30)


@pytest.mark.parametrize("seconds", [0.3, 1.2], ids=["overdue", "not yet due"])
async def test_a_schedule_outlives_a_crash_and_fires_once(
    own_nats_server: NatsServer, crashing: JetStream, seconds: float
) -> None:
    address = an_address()
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    headers = {
        SCHEDULE: f"@at {moment.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z",
        SCHEDULE_TARGET: topology.due_subject(address),
    }
    await crashing.stored(topology.schedule_subject(address), headers=headers)
    own_nats_server.kill()
    if seconds < 1:
        await eventually(lambda: datetime.now(UTC) > moment, within=30)
    await crash_and_restart(own_nats_server, crashing)
    message = await crashing.next(LATER)
    assert datetime.now(UTC) >= moment
    await crashing.acknowledge(message)
    assert await crashing.held(LATER) == 0


async def test_a_fired_task_that_was_acknowledged_does_not_come_back_after_a_crash(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    """It did with sourcing between streams: why workers pull due tasks where they fire."""
    address = an_address()
    headers = {SCHEDULE: "@at 2000-01-01T00:00:00Z", SCHEDULE_TARGET: topology.due_subject(address)}
    await crashing.stored(topology.schedule_subject(address), headers=headers)
    await crashing.acknowledge(await crashing.next(LATER))
    await crash_and_restart(own_nats_server, crashing)
    assert (await (await crashing.pull(LATER, expires=600_000_000)).ended()).status == "408"


async def test_a_paused_lane_stays_paused_after_a_crash(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    await crashing.ok(f"CONSUMER.PAUSE.{WORK}.{Lane.NORMAL}", {"pause_until": "2099-01-01T00:00:00Z"})
    await crash_and_restart(own_nats_server, crashing)
    assert (await crashing.consumer(WORK))["paused"] is True


async def test_a_pull_that_was_open_at_a_crash_is_lost_without_a_word(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    parked = await crashing.pull(WORK, expires=10_000_000_000, idle_heartbeat=200_000_000)
    await parked.heartbeat()
    await crash_and_restart(own_nats_server, crashing)
    await crashing.stored(topology.task_subject(an_address()))
    assert delivered(await crashing.next(WORK)) == 1, "the task is not the lost pull's"
    with pytest.raises(TimeoutError):
        await parked.ended(within=0.5)


async def test_the_client_sends_after_a_reconnection_what_was_published_before_it(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    """Why Galley publishes only while connected: what is reported as failed must not happen later."""
    own_nats_server.kill()
    await eventually(lambda: not crashing.client.is_connected, within=30)
    await crashing.client.publish(topology.task_subject(an_address()), b"buffered")
    await own_nats_server.start()
    await eventually(lambda: crashing.client.is_connected, within=30)
    assert (await crashing.next(WORK)).data == b"buffered"


async def test_a_frozen_server_answers_what_it_was_asked_once_it_goes_on(
    own_nats_server: NatsServer, crashing: JetStream
) -> None:
    """An unanswered publish may still be stored: it is repeated with the `r` flag, never taken as refused."""
    own_nats_server.freeze()
    publish = asyncio.create_task(crashing.publish(topology.task_subject(an_address())))
    done, _ = await asyncio.wait({publish}, timeout=0.3)
    assert not done
    own_nats_server.thaw()
    assert (await publish).sequence == 1
