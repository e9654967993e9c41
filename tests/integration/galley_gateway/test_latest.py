"""The page of tasks looks at a bounded number of them, however many there are."""

from urllib.parse import urlencode

import pytest

from galley import AsyncClient, Phase, SubmissionInvalid, call
from galley.broker import inspect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
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
