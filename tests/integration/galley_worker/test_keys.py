"""Keys on a real server with real workers: permits, order and turns, also where workers are killed."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from galley import AsyncClient, Phase, RetryPolicy, SubmissionInvalid, TaskNotFound, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.declared import submit_declared
from galley.event import Event
from galley.resources import Task
from galley.topic import Subscription, Topic, copy_id
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, ensure_with_leases


def _notes(folder: Path) -> list[str]:
    return (folder / "drills.log").read_text().splitlines()


def _most_at_once(log: Path) -> Counter[str]:
    """Return how many of each key ran at a time, by the notes that `hold` made."""
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for line in _notes(log.parent):
        _, word, key = line.split()
        key = key.split("-")[0]
        running[key] += 1 if word == "begin" else -1
        most[key] = max(most[key], running[key])
    return most


async def test_no_more_tasks_of_a_key_run_than_its_queue_allows(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 6}, limits={"perKey": {"concurrency": 2}})
    await ensure(client.broker, layout_of(queue, "tests"))
    calls = [
        call("drills", "hold", word=f"{key}-{n}", seconds=0.05).options(key=key)
        for n in range(6)
        for key in ("a", "b", "c")
    ]
    handles = await client.submit_many(calls)
    await start(queue, ("w1", "w2"))
    await asyncio.gather(*(each.result(within=30) for each in handles))
    most = _most_at_once(tmp_path / "drills.log")
    assert set(most) == {"a", "b", "c"}
    assert max(most.values()) <= 2


async def test_keys_tasks_and_waiters_add_no_consumer(
    client: AsyncClient, namespace: str, start: StartWorkers
) -> None:
    queue = a_task_queue(namespace, limits={"perKey": {"concurrency": 1}, "concurrency": 8})
    await ensure(client.broker, layout_of(queue, "tests"))

    async def consumers() -> Counter[str]:
        listed = await client.broker.api(
            "list streams", "STREAM.LIST", {"subject": f"galley.*.{namespace}.>"}
        )
        return Counter(
            {each["config"]["name"]: each["state"]["consumer_count"] for each in listed["streams"]}
        )

    await start(queue, ("w1", "w2"))
    await (await client.submit(call("drills", "echo").options(key="first"))).result(within=30)
    before = await consumers()
    handles = await client.submit_many(
        [call("drills", "hold", word=f"{n}", seconds=0.3).options(key=f"k-{n}") for n in range(100)]
    )
    waits = [asyncio.create_task(each.result(within=60)) for each in handles for _ in range(3)]
    await handles[0].result(within=60)
    meanwhile = await consumers()
    await asyncio.gather(*waits)
    assert sum(before.values()) > 0
    assert meanwhile == before


async def test_a_worker_that_is_killed_neither_keeps_nor_loses_a_permit(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 4}, limits={"perKey": {"concurrency": 1}})
    await ensure_with_leases(client.broker, queue, 2)
    calls = [
        call("drills", "hold", word=f"{key}-{n}", seconds=0.2).options(key=key)
        for n in range(6)
        for key in ("a", "b", "c")
    ]
    handles = await client.submit_many(calls)
    victim, *_ = await start(queue, ("w1", "w2"), GALLEY_LEASE_SECONDS="2")
    await handles[0].result(within=30)
    victim.kill()
    victim.restart()
    await asyncio.gather(*(each.result(within=60) for each in handles))
    begun = Counter(line.split()[2] for line in _notes(tmp_path) if " begin " in line)
    assert len(begun) == len(handles)
    assert sum(begun.values()) <= len(handles) + 4


async def test_tasks_of_a_key_run_in_order_retries_included(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 4}, limits={"perKey": {"ordered": True}})
    await ensure(client.broker, layout_of(queue, "tests"))
    quick = RetryPolicy(attempts=3, backoff_seconds=0.1)
    first = call("drills", "fail_once", path=str(tmp_path / "once")).options(key="k", retry=quick)
    calls = [call("drills", "note", word=f"k-{n}").options(key="k") for n in range(4)]
    handles = await client.submit_many([calls[0], first, *calls[1:]])
    await start(queue, ("w1", "w2"))
    await asyncio.gather(*(each.result(within=30) for each in handles))
    ends = [(await each.status()).ended_at for each in handles]
    assert None not in ends
    assert ends == sorted(ends, key=str)


async def test_tasks_of_a_key_start_as_fast_as_its_rate_over_all_workers(
    client: AsyncClient, namespace: str, start: StartWorkers
) -> None:
    rate = {"tasks": 4, "seconds": 1, "burst": 2}
    queue = a_task_queue(namespace, worker={"concurrency": 4}, limits={"perKey": {"rate": rate}})
    await ensure(client.broker, layout_of(queue, "tests"))
    calls = [
        call("drills", "note", word=f"{key}-{n}").options(key=key) for n in range(8) for key in ("a", "b")
    ]
    await start(queue, ("w1", "w2"))
    await (await client.submit(call("drills", "note", word="up"))).result(within=30)
    before = datetime.now(UTC)
    handles = await client.submit_many(calls)
    await asyncio.gather(*(each.result(within=30) for each in handles))
    for key in range(2):
        starts = []
        for each in handles[key::2]:
            begun = (await each.status()).started_at
            assert begun is not None
            starts.append(begun)
        starts.sort()
        # A start is counted when its task is moved, and a busy worker may begin it later; none begins before.
        for earlier, begun in enumerate(starts):
            assert (begun - before).total_seconds() >= (earlier + 1 - 2) / 4 - 0.1


async def test_tasks_of_events_run_in_their_order_by_key_through_retries_and_a_killed_worker(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(
        namespace, worker={"concurrency": 4}, limits={"perKey": {"ordered": True}},
        retry={"attempts": 3, "backoffSeconds": 0.1},
    )  # fmt: skip
    await ensure_with_leases(client.broker, queue, 2)
    steady = Subscription("steady", "drills", "hold", 'type == "hold"', key="subject", ordered=True)
    shaky = Subscription("shaky", "drills", "fail_once", 'type == "fail"', key="subject", ordered=True)
    topic = Declared(Topic("moves"), (steady, shaky))
    assert await TopicKeeper(client.broker, namespace, "tests").keep([topic]) == []
    copies: list[tuple[str, str]] = []
    for number in range(30):
        key, kind = "abc"[number % 3], "fail" if number % 7 == 3 else "hold"
        data = {"word": f"{key}-{number}", "seconds": 0.05}
        if kind == "fail":
            data = {"path": str(tmp_path / f"once-{number}")}
        event = f"e{number}"
        await client.publish("moves", data, event_id=event, source="test", subject=key, event_type=kind)
        named = Event(event, "test", kind, datetime.now(UTC))
        copies.append((key, copy_id("moves", "shaky" if kind == "fail" else "steady", named)))
    victim, *_ = await start(queue, ("w1", "w2"), GALLEY_LEASE_SECONDS="2")
    handles = [(key, client.handle("drills", task_id)) for key, task_id in copies]

    async def ended(count: int) -> bool:
        return len(_notes(tmp_path)) >= count if (tmp_path / "drills.log").exists() else False

    await eventually(lambda: ended(6), within=60)
    victim.kill()
    victim.restart()

    async def all_ended() -> bool:
        try:
            views = [await each.status() for _, each in handles]
        except TaskNotFound:
            return False  # the event is not copied yet
        return all(view.ended_at is not None for view in views)

    await eventually(all_ended, within=240)
    for wanted in "abc":
        views = [await each.status() for key, each in handles if key == wanted]
        assert {view.phase for view in views} == {Phase.SUCCEEDED}
        ends = [view.ended_at for view in views]
        assert ends == sorted(ends, key=str)
    assert max(_most_at_once(tmp_path / "drills.log").values()) <= 2, "one, and the one that was killed"


async def test_a_manifest_takes_its_key_from_its_input(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 4}, limits={"perKey": {"concurrency": 1}})
    await ensure(client.broker, layout_of(queue, "tests"))

    def a_task(name: str, word: object) -> Task:
        spec = {"queueName": "drills", "handler": "hold", "input": {"word": word, "seconds": 0.05}}
        return Task.model_validate(
            {"metadata": {"name": name, "namespace": namespace}, "spec": {**spec, "key": "${input.word}"}}
        )

    handles = []
    for number in range(9):
        word = "abc"[number % 3]
        submitted = await submit_declared(client.broker, a_task(f"t{number}", word))
        handles.append(client.handle("drills", submitted.address.id))
        assert (await handles[-1].status()).key == word
    with pytest.raises(SubmissionInvalid, match=r"input\.word is null"):
        await submit_declared(client.broker, a_task("none", None))
    with pytest.raises(TaskNotFound):
        await client.handle("drills", "none").status()
    await start(queue, ("w1", "w2"))
    await asyncio.gather(*(each.result(within=60) for each in handles))
    assert _most_at_once(tmp_path / "drills.log") == {"a": 1, "b": 1, "c": 1}
