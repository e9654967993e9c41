"""The later stream: the server keeps a task until it is due, and hands it out from there."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from galley.address import TaskAddress
from galley.broker import stream_config, topology
from galley.broker.topology import (
    EXPECTED_SEQUENCE,
    EXPECTED_SUBJECT,
    FLAGS_HEADER,
    SCHEDULE,
    SCHEDULE_TARGET,
    TTL,
    QueueLayout,
)
from tests.facts.jetstream import JetStream
from tests.support.builders import a_queue, an_address


def at(moment: datetime) -> str:
    return f"@at {moment.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def due_in(seconds: float, address: TaskAddress, **more: str) -> dict[str, str]:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return {SCHEDULE: at(moment), SCHEDULE_TARGET: topology.due_subject(address), **more}


async def test_a_schedule_fires_into_the_due_subject_of_its_own_stream(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    address = an_address(of=queue)
    await jetstream.stored(topology.schedule_subject(address), b"body", due_in(0.3, address))
    message = await jetstream.next(later)
    assert message.subject == topology.due_subject(address)
    assert message.data == b"body"
    assert await jetstream.held(later) == 1, "the schedule itself is gone once it fired"


async def test_a_fired_task_carries_our_header_and_loses_expectations_and_life_time(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    address = an_address(of=queue)
    subject = topology.schedule_subject(address)
    headers = due_in(0, address, **{FLAGS_HEADER: "v=1;a=2;f=7;r", EXPECTED_SEQUENCE: "0", TTL: "60"})
    await jetstream.stored(subject, headers=headers)
    message = await jetstream.next(later)
    assert message.headers == {
        FLAGS_HEADER: "v=1;a=2;f=7;r",
        "Nats-Scheduler": subject,
        "Nats-Schedule-Next": "purge",
    }


@pytest.mark.parametrize("seconds", [-5, 0.05])
async def test_a_schedule_nearer_than_the_timers_grain_fires_after_that_grain(
    jetstream: JetStream, queue: QueueLayout, later: str, seconds: float
) -> None:
    address = an_address(of=queue)
    loop = asyncio.get_running_loop()
    pull = await jetstream.pull(later)
    began = loop.time()
    await jetstream.stored(topology.schedule_subject(address), headers=due_in(seconds, address))
    assert (await pull.ended()).messages
    assert loop.time() - began >= topology.SHORTEST_DELAY_SECONDS - 0.01


async def test_a_schedule_does_not_fire_before_its_time(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    address = an_address(of=queue)
    moment = datetime.now(UTC) + timedelta(seconds=0.7)
    headers = {SCHEDULE: at(moment), SCHEDULE_TARGET: topology.due_subject(address)}
    await jetstream.stored(topology.schedule_subject(address), headers=headers)
    await jetstream.next(later)
    assert datetime.now(UTC) >= moment - timedelta(milliseconds=1)


async def test_a_second_schedule_of_the_same_task_replaces_the_first(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    address = an_address(of=queue)
    subject = topology.again_subject(address)
    await jetstream.stored(subject, b"first", due_in(60, address))
    await jetstream.stored(subject, b"second", due_in(0, address))
    assert await jetstream.held(later) == 1
    assert (await jetstream.next(later)).data == b"second"


async def test_expecting_nothing_refuses_a_second_schedule_of_a_producer(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    address = an_address(of=queue)
    headers = due_in(60, address, **{EXPECTED_SEQUENCE: "0"})
    sequence = await jetstream.stored(topology.schedule_subject(address), headers=headers)
    again = await jetstream.publish(topology.schedule_subject(address), headers=headers)
    assert again.refusal == (10071, f"wrong last sequence: {sequence}")


async def test_a_schedule_cannot_reach_the_stream_of_another_queue(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    foreign = a_queue("foreign", namespace=queue.namespace)
    await jetstream.create_queue(foreign)
    headers = due_in(0, an_address(of=foreign))
    refused = await jetstream.publish(topology.schedule_subject(an_address(of=queue)), headers=headers)
    assert refused.code == 10190


async def test_two_schedules_that_fire_for_one_task_are_two_messages(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    """The due subject knows no duplicates: the record chain is what keeps the second from running."""
    address = an_address(of=queue)
    await jetstream.stored(topology.schedule_subject(address), b"producer", due_in(0, address))
    await jetstream.stored(topology.again_subject(address), b"worker", due_in(0, address))
    pulled = await (await jetstream.pull(later, batch=2)).ended()
    assert {message.data for message in pulled.messages} == {b"producer", b"worker"}


async def test_a_stream_with_schedules_may_not_be_bounded_by_refusing(
    jetstream: JetStream, namespace: str
) -> None:
    layout = a_queue(namespace=namespace)
    definition = stream_config.later_definition(layout, 1) | {"discard": "new", "max_msgs": 10}
    code, _ = await jetstream.refused(f"STREAM.CREATE.{definition['name']}", definition)
    assert code == 10052


async def test_closing_the_producers_door_leaves_workers_and_waiting_schedules_alone(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    waiting, retried, refused = (an_address(of=queue) for _ in range(3))
    await jetstream.stored(topology.schedule_subject(waiting), b"waiting", due_in(0.5, waiting))
    open_definition = stream_config.later_definition(queue, 1)
    closed = [subject for subject in open_definition["subjects"] if ".schedule." not in subject]
    await jetstream.ok(f"STREAM.UPDATE.{later}", open_definition | {"subjects": closed})
    producer = await jetstream.publish(topology.schedule_subject(refused), headers=due_in(0, refused))
    assert producer.refusal == (503, "")
    await jetstream.stored(topology.again_subject(retried), b"retried", due_in(0, retried))
    pulled = await (await jetstream.pull(later, batch=2)).ended()
    assert {message.data for message in pulled.messages} == {b"waiting", b"retried"}
    await jetstream.ok(f"STREAM.UPDATE.{later}", open_definition)
    await jetstream.stored(topology.schedule_subject(refused), headers=due_in(60, refused))


async def test_a_producer_can_wipe_the_delayed_tasks_of_its_own_queue_with_a_roll_up(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    """Streams with schedules cannot forbid it: why a queue is one trust domain and has its own stream."""
    for address in (an_address(of=queue), an_address(of=queue)):
        await jetstream.stored(topology.schedule_subject(address), headers=due_in(60, address))
    await jetstream.stored(topology.due_subject(an_address(of=queue)), headers={"Nats-Rollup": "all"})
    assert await jetstream.held(later) == 1


async def test_a_fired_task_does_not_reach_core_subscribers_of_its_due_subject(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    address = an_address(of=queue)
    direct = await jetstream.hear(f"galley.due.{queue.namespace}.>")
    bell = await jetstream.hear(topology.doorbells(queue.namespace, queue.queue)[-1])
    await jetstream.stored(topology.schedule_subject(address), b"secret", due_in(0, address))
    rung = await bell.one()
    await jetstream.next(later)
    assert rung.subject == topology.due_subject(address).replace(".due.", ".bell.")
    assert rung.data == b""
    assert direct.waiting == 0


async def test_a_ready_task_is_heard_by_plain_listeners(jetstream: JetStream, queue: QueueLayout) -> None:
    address = an_address(of=queue)
    heard = await jetstream.hear(topology.doorbells(queue.namespace, queue.queue)[0])
    await jetstream.stored(topology.task_subject(address))
    assert (await heard.one()).subject == topology.task_subject(address)


def recurring(queue: QueueLayout, seconds: float, expected: int) -> dict[str, str]:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        SCHEDULE: at(moment),
        SCHEDULE_TARGET: topology.fired_subject(queue.namespace, queue.queue, "nightly"),
        EXPECTED_SEQUENCE: str(expected),
        EXPECTED_SUBJECT: topology.schedule_in_any_state(queue.namespace, queue.queue, "nightly"),
    }


async def test_a_schedule_is_replaced_only_in_the_state_it_was_seen_in(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    """Whether it waits, is due, or was acknowledged or deleted: why a schedule is fenced by one pattern."""
    subject = topology.timer_subject(queue.namespace, queue.queue, "nightly")
    first = await jetstream.stored(subject, b"1", recurring(queue, 60, 0))
    assert (await jetstream.publish(subject, b"2", recurring(queue, 60, 0))).code == 10071
    second = await jetstream.stored(subject, b"2", recurring(queue, 0, first))
    fired = await jetstream.next(later, lane=topology.TIMER)
    assert fired.data == b"2"
    assert (await jetstream.publish(subject, b"3", recurring(queue, 60, second))).code == 10071
    due = int(topology.parse_ack_subject(fired.reply)[3])
    third = await jetstream.stored(subject, b"3", recurring(queue, 60, due))
    assert await jetstream.held(later) == 2, "the one that fired stays until it is acknowledged"
    assert (await jetstream.publish(subject, b"4", recurring(queue, 60, due))).code == 10071
    for gone in (fired.subject, subject):
        await jetstream.ok(f"STREAM.PURGE.{later}", {"filter": gone})
    for known in (due, third):
        assert (await jetstream.publish(subject, b"5", recurring(queue, 60, known))).code == 10071
    assert await jetstream.held(later) == 0


async def test_a_delivery_tells_when_the_server_stored_it(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    before = datetime.now(UTC)
    subject = topology.timer_subject(queue.namespace, queue.queue, "nightly")
    await jetstream.stored(subject, b"1", recurring(queue, -3600, 0))
    fired = await jetstream.next(later, lane=topology.TIMER)
    stamp = int(topology.parse_ack_subject(fired.reply)[5]) / 1e9
    assert before.timestamp() - 0.1 <= stamp <= datetime.now(UTC).timestamp() + 0.1
