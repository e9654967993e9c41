"""Purging by subject: how a cancelled task leaves the broker, whatever state it is in."""

from datetime import UTC, datetime, timedelta

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.topology import SCHEDULE, SCHEDULE_TARGET, QueueLayout
from galley.lanes import Lane
from tests.facts.jetstream import BRIEF, JetStream
from tests.support.builders import an_address
from tests.support.eventually import eventually

FAR = "@at 2099-01-01T00:00:00Z"
SOON = "@at 2000-01-01T00:00:00Z"


async def purge_ready(jetstream: JetStream, stream: str, address: TaskAddress) -> int:
    answer = await jetstream.ok(f"STREAM.PURGE.{stream}", {"filter": topology.in_any_lane(address)})
    purged: int = answer["purged"]
    return purged


async def purge_later(jetstream: JetStream, stream: str, address: TaskAddress) -> int:
    answer = await jetstream.ok(f"STREAM.PURGE.{stream}", {"filter": topology.in_any_lane(address)})
    purged: int = answer["purged"]
    return purged


async def test_a_purge_removes_a_ready_task_and_leaves_the_others(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    cancelled, other = an_address(of=queue, lane=Lane.LOW), an_address(of=queue)
    await jetstream.stored(topology.task_subject(cancelled))
    await jetstream.stored(topology.task_subject(other))
    assert await purge_ready(jetstream, work, cancelled) == 1
    assert await jetstream.is_empty(work, Lane.LOW)
    assert (await jetstream.next(work)).subject == topology.task_subject(other)


async def test_a_purge_removes_a_leased_task_which_is_not_delivered_again(
    jetstream: JetStream, brief_queue: QueueLayout, work: str
) -> None:
    address = an_address(of=brief_queue)
    await jetstream.stored(topology.task_subject(address))
    await jetstream.next(work)
    assert await purge_ready(jetstream, work, address) == 1
    assert await jetstream.held(work) == 0
    beyond_the_lease = await jetstream.pull(work, expires=int((BRIEF + 0.5) * 1e9))
    assert (await beyond_the_lease.ended()).status == "408"


async def test_a_leased_task_purged_by_its_exact_subject_is_no_longer_in_flight(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    subject = topology.task_subject(an_address(of=queue))
    await jetstream.stored(subject)
    await jetstream.next(work)
    assert (await jetstream.consumer(work))["num_ack_pending"] == 1
    await jetstream.ok(f"STREAM.PURGE.{work}", {"filter": subject})
    assert (await jetstream.consumer(work))["num_ack_pending"] == 0


async def test_a_leased_task_purged_by_a_pattern_over_lanes_counts_as_in_flight_until_its_lease_lapses(
    jetstream: JetStream, brief_queue: QueueLayout, work: str
) -> None:
    """A consumer forgets at once only what is purged by a pattern within its own filter."""
    address = an_address(of=brief_queue)
    await jetstream.stored(topology.task_subject(address))
    await jetstream.next(work)
    assert await purge_ready(jetstream, work, address) == 1
    assert (await jetstream.consumer(work))["num_ack_pending"] == 1

    async def forgotten() -> bool:
        info = await jetstream.consumer(work)
        return bool(info["num_ack_pending"] == 0)

    await eventually(forgotten, within=30)


async def test_an_ack_of_a_purged_task_ends_its_counting_as_in_flight(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    address = an_address(of=queue)
    await jetstream.stored(topology.task_subject(address))
    leased = await jetstream.next(work)
    await purge_ready(jetstream, work, address)
    await jetstream.acknowledge(leased)
    assert (await jetstream.consumer(work))["num_ack_pending"] == 0


async def test_one_purge_removes_a_task_scheduled_waiting_for_a_retry_and_due(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    address = an_address(of=queue)
    target = {SCHEDULE_TARGET: topology.due_subject(address)}
    await jetstream.stored(topology.schedule_subject(address), headers={SCHEDULE: SOON, **target})
    await jetstream.next(later)
    await jetstream.stored(topology.schedule_subject(address), headers={SCHEDULE: FAR, **target})
    await jetstream.stored(topology.again_subject(address), headers={SCHEDULE: FAR, **target})
    assert await purge_later(jetstream, later, address) == 3
    assert await jetstream.held(later) == 0


async def test_a_purged_schedule_does_not_fire(jetstream: JetStream, queue: QueueLayout, later: str) -> None:
    address = an_address(of=queue)
    moment = (datetime.now(UTC) + timedelta(seconds=BRIEF)).isoformat(timespec="seconds")
    headers = {
        SCHEDULE: f"@at {moment.removesuffix('+00:00')}Z",
        SCHEDULE_TARGET: topology.due_subject(address),
    }
    await jetstream.stored(topology.schedule_subject(address), headers=headers)
    assert await purge_later(jetstream, later, address) == 1
    beyond_its_time = await jetstream.pull(later, expires=int((BRIEF + 0.7) * 1e9))
    assert (await beyond_its_time.ended()).status == "408"


async def test_a_purge_of_what_is_not_there_succeeds(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    assert await purge_ready(jetstream, work, an_address(of=queue)) == 0


async def test_a_purged_task_can_be_submitted_again_expecting_nothing(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    address = an_address(of=queue)
    first = {topology.EXPECTED_SEQUENCE: "0"}
    await jetstream.stored(topology.task_subject(address), headers=first)
    await purge_ready(jetstream, work, address)
    await jetstream.stored(topology.task_subject(address), headers=first)
