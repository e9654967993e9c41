"""The page of tasks looks at a bounded number of them, however many there are."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest

from galley import AsyncClient, Phase, QueueNotFound, SubmissionInvalid, When, call
from galley.broker import inspect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.task_status import TaskStatus
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.gateways import served


async def test_the_oldest_that_wait_and_the_last_that_ended_are_looked_at(
    nats_server: NatsServer, namespace: str
) -> None:
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, a_queue("many", namespace=namespace))
        client = AsyncClient.over(broker, namespace)
        for number in range(8):
            await client.submit(call("many", "echo", value=number), task_id=f"t{number}")
        for number in (0, 1, 2):
            await client.handle("many", f"t{number}").cancel()

        found = await inspect.latest(broker, namespace, "many", 2)
        last = await client.tasks("many", limit=2)
        ended = await client.tasks("many", Phase.CANCELLED, limit=1)
        for wrong in (0, -1, 10_001, True, "2", 1.0):
            with pytest.raises(SubmissionInvalid, match="limit"):
                await client.tasks("many", limit=wrong)  # type: ignore[arg-type]

    assert [(each.address.id, each.phase) for each in found] == [
        ("t1", Phase.CANCELLED), ("t2", Phase.CANCELLED), ("t3", Phase.QUEUED), ("t4", Phase.QUEUED),
    ]  # fmt: skip
    assert [each.address.id for each in last] == ["t3", "t4"]
    assert [each.address.id for each in ended] == ["t2"]


async def test_pages_of_tasks_have_each_once_though_others_come_meanwhile(
    nats_server: NatsServer, namespace: str
) -> None:
    async with served(nats_server.url, namespace) as api:
        await ensure(api.gateway.broker, a_queue("paged", namespace=namespace))
        tasks = api.path("paged", "/tasks")
        for number in range(7):
            await api.ask(
                "POST", tasks, {"handler": "echo", "id": f"t{number}", "labels": {"n": str(number)}}
            )
        seen: list[str] = []
        following = ""
        for turn in range(4):
            query = {"limit": "2", **({"continue": following} if following else {})}
            page = (await api.ask("GET", f"{tasks}?{urlencode(query)}")).body
            seen += [each["id"] for each in page["tasks"]]
            assert page["total"] == 7 + turn
            following = page.get("next", "")
            await api.ask("POST", tasks, {"handler": "echo", "id": f"later{turn}"})
        assert (seen, following) == ([f"t{number}" for number in range(6, -1, -1)], "")
        chosen = (await api.ask("GET", f"{tasks}?labels=n%3D3&recent=true")).body
        assert ([each["id"] for each in chosen["tasks"]], chosen["total"]) == (["t3"], 1)
        for wrong in ("7", "x~y", "2026-01-01T00:00:00~t", "~"):
            answer = await api.ask("GET", f"{tasks}?{urlencode({'continue': wrong})}")
            assert (answer.status, answer.body["reason"]) == (400, "RequestInvalid"), wrong
        assert (await api.ask("GET", api.path("nowhere", "/tasks?recent=true"))).status == 404
        assert (await api.ask("GET", api.path("nowhere", "/tasks"))).status == 404


async def test_a_search_by_id_finds_tasks_in_every_state_and_says_how_many_there_are(
    nats_server: NatsServer, namespace: str
) -> None:
    async with served(nats_server.url, namespace) as api:
        broker = api.gateway.broker
        await ensure(broker, a_queue("named", namespace=namespace))
        client = AsyncClient.over(broker, namespace)
        for number in range(6):
            await client.submit(call("named", "echo", value=number), task_id=f"order-{number}")
        await client.submit(call("named", "echo", value=0), task_id="bill-1")
        await client.submit(
            call("named", "echo", value=0),
            When(not_before=datetime(2090, 1, 1, tzinfo=UTC)),
            task_id="order-late",
        )
        await client.handle("named", "order-2").cancel()

        found, count = await inspect.named(broker, namespace, "named", "order", 3)
        none, nothing = await inspect.named(broker, namespace, "named", "zzz", 3)
        everything, _ = await inspect.named(broker, namespace, "named", "", 100)
        with pytest.raises(QueueNotFound):
            await inspect.named(broker, namespace, "nowhere", "x", 3)
        page = f"{api.address}/ui/{namespace}/queues/named/tasks"
        one = await api.ask("GET", f"{page}?search=der-2")
        whole = await api.ask("GET", f"{page}?all=1&phase=Queued")
        live = await api.ask("GET", f"{page}?all=1&live=1")

    assert (sorted(each.address.id for each in found), count) == (["order-4", "order-5", "order-late"], 7)
    assert (none, nothing, len(everything)) == ([], 0, 8)
    states = {each.address.id: each.phase for each in everything}
    assert states["order-2"] is Phase.CANCELLED
    assert states["order-late"] is Phase.SCHEDULED
    assert states["bill-1"] is Phase.QUEUED
    assert "order-2" in one.body
    assert "order-3" not in one.body
    assert "The ids of all tasks were looked at" in one.body
    assert "All tasks of the queue were looked at" in whole.body
    assert "data-live" not in whole.body
    assert "order-2<" not in whole.body
    assert live.status == 204


async def test_the_pages_of_all_tasks_are_of_one_reading(
    nats_server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, read = [], inspect.tasks

    def counted(broker: Broker, of: str, queue: str) -> AsyncIterator[TaskStatus]:
        readings.append(queue)
        return read(broker, of, queue)

    monkeypatch.setattr(inspect, "tasks", counted)
    async with served(nats_server.url, namespace) as api:
        for queue in ("long", "other"):
            await ensure(api.gateway.broker, a_queue(queue, namespace=namespace))
        client = AsyncClient.over(api.gateway.broker, namespace)
        await client.submit_many([call("long", "echo", value="x" * 1000) for _ in range(120)])
        page = f"{api.address}/ui/{namespace}/queues/long/tasks?all=1"
        first = await api.ask("GET", page)
        await client.submit(call("long", "echo", value=1), task_id="later")
        several = [await api.ask("GET", f"{page}&continue={first}") for first in (50, 100, 0, 50)]
        assert readings == ["long"]
        assert "50 of 120" in first.body
        assert "120 of 120" in several[1].body
        assert not any("later" in each.body for each in several)
        ids = {row for each in (first, *several) for row in re.findall(r"tasks/(\w{20,})", each.body)}
        assert len(ids) == 120
        # Others ask for something else: other filters, another queue.
        assert "later" in (await api.ask("GET", f"{page}&search=later")).body
        await api.ask("GET", page.replace("long", "other"))
        await asyncio.gather(*(api.ask("GET", f"{page}&phase=Failed") for _ in range(5)))
        assert readings == ["long", "long", "other", "long"]
