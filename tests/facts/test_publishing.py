"""What the server says to a publish: compare-and-set, limits, and subjects of no stream."""

import pytest
from msgspec.structs import replace

from galley.broker import topology
from galley.broker.topology import EXPECTED_SEQUENCE, EXPECTED_SUBJECT, QueueLayout
from galley.lanes import Lane
from tests.facts.jetstream import JetStream
from tests.support.builders import a_queue, an_address

FIRST = {EXPECTED_SEQUENCE: "0"}


async def test_expecting_nothing_refuses_a_second_task_while_the_first_waits(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    subject = topology.task_subject(an_address(of=queue))
    sequence = await jetstream.stored(subject, headers=FIRST)
    again = await jetstream.publish(subject, headers=FIRST)
    assert again.refusal == (10071, f"wrong last sequence: {sequence}")


async def test_expecting_nothing_refuses_a_second_task_while_the_first_is_leased(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    subject = topology.task_subject(an_address(of=queue))
    await jetstream.stored(subject, headers=FIRST)
    await jetstream.next(work)
    assert (await jetstream.publish(subject, headers=FIRST)).code == 10071


async def test_expecting_nothing_accepts_the_same_task_again_after_its_ack(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    subject = topology.task_subject(an_address(of=queue))
    first = await jetstream.stored(subject, headers=FIRST)
    await jetstream.acknowledge(await jetstream.next(work))
    assert await jetstream.stored(subject, headers=FIRST) == first + 1


async def test_without_a_pattern_the_same_id_is_accepted_in_another_lane(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    address = an_address(of=queue)
    await jetstream.stored(topology.task_subject(address), headers=FIRST)
    await jetstream.stored(topology.task_subject(replace(address, lane=Lane.HIGH)), headers=FIRST)


async def test_a_pattern_finds_the_same_id_in_another_lane(jetstream: JetStream, queue: QueueLayout) -> None:
    address = an_address(of=queue)
    anywhere = {**FIRST, EXPECTED_SUBJECT: topology.in_any_lane(address)}
    sequence = await jetstream.stored(topology.task_subject(address), headers=anywhere)
    other_lane = topology.task_subject(replace(address, lane=Lane.HIGH))
    again = await jetstream.publish(other_lane, headers=anywhere)
    assert again.refusal == (10071, f"wrong last sequence: {sequence}")


@pytest.mark.parametrize("waits_as", ["schedule", "again", "due"])
async def test_a_pattern_finds_a_task_that_waits_in_the_later_stream(
    jetstream: JetStream, queue: QueueLayout, waits_as: str
) -> None:
    address = an_address(of=queue)
    subject = {"schedule": topology.schedule_subject, "again": topology.again_subject,
               "due": topology.due_subject}[waits_as](address)  # fmt: skip
    sequence = await jetstream.stored(subject)
    delayed = {
        **FIRST,
        EXPECTED_SUBJECT: topology.in_any_lane(address),
        topology.SCHEDULE: "@at 2099-01-01T00:00:00Z",
        topology.SCHEDULE_TARGET: topology.due_subject(address),
    }
    again = await jetstream.publish(topology.schedule_subject(address), headers=delayed)
    assert again.refusal == (10071, f"wrong last sequence: {sequence}")


async def test_a_stream_full_by_messages_refuses_the_next(jetstream: JetStream, namespace: str) -> None:
    layout = a_queue(namespace=namespace, backlog=1)
    await jetstream.create_queue(layout)
    await jetstream.stored(topology.task_subject(an_address(of=layout)))
    refused = await jetstream.publish(topology.task_subject(an_address(of=layout)))
    assert refused.refusal == (10077, "maximum messages exceeded")


async def test_a_stream_full_by_bytes_refuses_the_next_with_the_same_code(
    jetstream: JetStream, namespace: str
) -> None:
    layout = a_queue(namespace=namespace, backlog_bytes=2000)
    await jetstream.create_queue(layout)
    await jetstream.stored(topology.task_subject(an_address(of=layout)), bytes(1500))
    refused = await jetstream.publish(topology.task_subject(an_address(of=layout)), bytes(1500))
    assert refused.refusal == (10077, "maximum bytes exceeded")


async def test_leased_tasks_and_other_lanes_count_against_the_limit_until_they_are_acked(
    jetstream: JetStream, namespace: str, work: str
) -> None:
    layout = a_queue(namespace=namespace, backlog=1)
    await jetstream.create_queue(layout)
    await jetstream.stored(topology.task_subject(an_address(of=layout, lane=Lane.LOW)))
    leased = await jetstream.next(work, Lane.LOW)
    urgent = topology.task_subject(an_address(of=layout, lane=Lane.HIGH))
    assert (await jetstream.publish(urgent)).code == 10077
    await jetstream.acknowledge(leased)
    await jetstream.stored(urgent)


async def test_a_full_stream_says_that_a_task_is_there_before_it_says_that_it_is_full(
    jetstream: JetStream, namespace: str
) -> None:
    layout = a_queue(namespace=namespace, backlog=1)
    await jetstream.create_queue(layout)
    subject = topology.task_subject(an_address(of=layout))
    await jetstream.stored(subject, headers=FIRST)
    assert (await jetstream.publish(subject, headers=FIRST)).code == 10071


async def test_nothing_answers_for_a_queue_that_does_not_exist(jetstream: JetStream, namespace: str) -> None:
    nowhere = topology.task_subject(an_address(namespace=namespace))
    assert (await jetstream.publish(nowhere)).refusal == (503, "")


async def test_nothing_answers_for_a_lane_that_is_not_in_the_stream(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    address = an_address(of=queue, lane=Lane.CRITICAL)
    assert address.lane not in queue.lanes
    assert (await jetstream.publish(topology.task_subject(address))).refusal == (503, "")


async def test_nothing_answers_for_a_kind_that_is_not_in_the_stream(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    subject = topology.task_subject(an_address(of=queue)).replace(".sdk.", ".foreign.")
    assert (await jetstream.publish(subject)).refusal == (503, "")
