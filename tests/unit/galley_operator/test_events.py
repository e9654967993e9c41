"""Events of queues over an API in memory: counted, limited, made again, and lost without harm."""

import logging

import pytest

from galley_operator.cluster.errors import ApiRefused
from galley_operator.cluster.resource import EVENTS
from galley_operator.events import BURST, Events, Occurrence
from galley_operator.tasks.known_queues import QueueObject
from tests.support.memory_cluster import MemoryCluster, Written

QUEUE = QueueObject("shop", "images", "uid-1", 3, None)


def scaled(to: int) -> Occurrence:
    return Occurrence(QUEUE, "Scaled", f"{to} workers")


def written(api: MemoryCluster) -> list[str]:
    return [name for plural, _, name in api.objects if plural == EVENTS.plural]


async def test_the_same_event_is_counted_and_made_again_once_it_has_expired() -> None:
    api = MemoryCluster()
    events = Events(api, "operator-1", lambda: 0.0)
    await events.write(scaled(3))
    await events.write(scaled(3))
    [name] = written(api)
    assert api.objects[EVENTS.plural, "shop", name]["series"]["count"] == 2
    api.remove(EVENTS, name, "shop")  # events are kept for an hour
    await events.write(scaled(3))
    assert len(written(api)) == 1
    assert written(api) != [name]


async def test_a_queue_with_many_events_is_limited_until_time_has_passed() -> None:
    api, now = MemoryCluster(), 0.0
    events = Events(api, "operator-1", lambda: now)
    for number in range(BURST + 5):
        await events.write(scaled(number))
    assert len(written(api)) == BURST
    now = 3600.0
    await events.write(scaled(99))
    assert len(written(api)) == BURST + 1


async def test_an_event_that_cannot_be_written_is_logged_and_the_next_one_is_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = MemoryCluster()
    events = Events(api, "operator-1", lambda: 0.0)

    def refuse(request: Written) -> None:
        raise ApiRefused(request.verb, request.name, 500, "etcd is full")

    api.before = refuse
    with caplog.at_level(logging.WARNING):
        await events.write(scaled(3))
    assert [record.message for record in caplog.records] == ["event not written"]
    api.before = lambda _request: None
    await events.write(scaled(3))
    assert len(written(api)) == 1


async def test_a_note_is_as_long_as_the_api_server_accepts_in_any_script() -> None:
    api = MemoryCluster()
    await Events(api, "operator-1", lambda: 0.0).write(Occurrence(QUEUE, "Rejected", "a" + "ж" * 2000))
    [name] = written(api)
    note = api.objects[EVENTS.plural, "shop", name]["note"]
    assert note.startswith("aж")
    assert note.endswith("ж")
    assert 990 < len(note.encode()) <= 1024
