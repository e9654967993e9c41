"""Streams with limits: what the server refuses, and what it deletes instead."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from galley.address import Kind
from galley.broker import stream_config, topology
from galley.broker.topology import SCHEDULE, SCHEDULE_TARGET
from tests.facts.jetstream import JetStream
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually

FULL: Final = (10077, "maximum bytes exceeded")
KIB: Final = 1024


def tomorrow(target: str) -> dict[str, str]:
    at = datetime.now(UTC) + timedelta(days=1)
    return {SCHEDULE: f"@at {at.isoformat(timespec='seconds')[:-6]}Z", SCHEDULE_TARGET: target}


async def test_a_stream_with_schedules_cannot_refuse_what_is_too_much(
    jetstream: JetStream, namespace: str
) -> None:
    definition = stream_config.later_definition(a_queue(namespace=namespace), 1) | {"discard": "new"}
    code, _ = await jetstream.refused(f"STREAM.CREATE.{definition['name']}", definition)
    assert code == 10052


async def test_a_full_stream_with_schedules_deletes_its_oldest(jetstream: JetStream, namespace: str) -> None:
    """Why workers stop before that."""
    layout = a_queue(namespace=namespace, later_bytes=8 * KIB)
    definition = stream_config.later_definition(layout, 1)
    await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
    old, new = an_address(of=layout), an_address(of=layout)
    for address in (old, new):
        await jetstream.stored(
            topology.schedule_subject(address), bytes(5 * KIB), tomorrow(topology.due_subject(address))
        )
    found = await jetstream.ok(f"STREAM.INFO.{definition['name']}", {"subjects_filter": ">"})
    assert found["state"]["subjects"] == {topology.schedule_subject(new): 1}


async def test_who_may_schedule_chooses_any_subject_of_the_stream_and_may_repeat(
    jetstream: JetStream, namespace: str
) -> None:
    """Why producers may not."""
    layout = a_queue(namespace=namespace)
    definition = stream_config.later_definition(layout, 1)
    await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
    mine, declared = an_address(of=layout), an_address(of=layout, kind=Kind.DECLARED)
    headers = {SCHEDULE: "@every 1s", SCHEDULE_TARGET: topology.due_subject(declared)}
    assert await jetstream.stored(topology.schedule_subject(mine), headers=headers)


@pytest.mark.parametrize("verb", [topology.task_subject, topology.plan_subject])
async def test_the_work_stream_takes_no_schedules(jetstream: JetStream, namespace: str, verb: object) -> None:
    layout = a_queue(namespace=namespace)
    definition = stream_config.work_definition(layout, 1)
    await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
    address = an_address(of=layout)
    assert callable(verb)
    answer = await jetstream.publish(verb(address), headers=tomorrow(topology.task_subject(address)))
    assert answer.code == 10188, answer.refusal


async def test_dead_letters_are_refused_when_there_is_no_room(jetstream: JetStream, namespace: str) -> None:
    layout = a_queue(namespace=namespace, dead_letter_bytes=8 * KIB)
    definition = stream_config.dead_definition(layout, 1)
    await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
    first, second = an_address(of=layout), an_address(of=layout)
    await jetstream.stored(topology.dead_subject(first), bytes(5 * KIB))
    refused = await jetstream.publish(topology.dead_subject(second), bytes(5 * KIB))
    assert refused.refusal == FULL
    found = await jetstream.ok(f"STREAM.INFO.{definition['name']}")
    assert found["state"]["messages"] == 1


async def test_a_dead_letter_goes_only_where_an_age_is_set(jetstream: JetStream, namespace: str) -> None:
    kept = a_queue(namespace=namespace, queue="kept")
    short = a_queue(namespace=namespace, queue="short", dead_letter_seconds=1)
    for layout in (kept, short):
        definition = stream_config.dead_definition(layout, 1)
        await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
        await jetstream.stored(topology.dead_subject(an_address(of=layout)), b"{}")

    async def messages(layout: topology.QueueLayout) -> int:
        found = await jetstream.ok(f"STREAM.INFO.{topology.dead_stream(layout.namespace, layout.queue)}")
        return int(found["state"]["messages"])

    async def gone() -> bool:
        return await messages(short) == 0

    await eventually(gone, within=30)
    assert await messages(kept) == 1
