"""A gateway that is killed loses no task it accepted, and no result that is waited for."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import pytest

from galley import AsyncClient
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.gateway_process import GatewayProcess, gateway
from tests.support.workers import a_task_queue, workers

SUBMITTERS: Final = 8
EACH: Final = 40
BEFORE_THE_KILL: Final = 60
WAITED_FOR: Final = 10
"""Tasks of each queue, each waited for in both ways."""
LONG: Final = 240.0
"""Seconds after which something that must happen has not."""

LATER: Final = """\
from galley import task


@task
def echo(value: str) -> str:
    return value
"""

pytestmark = pytest.mark.timeout(600)


class Accepted(NamedTuple):
    key: str
    id: str
    refusals: int
    """Requests that got no answer before."""


class Program:
    """Another program, as it should be written: it repeats what got no answer, with the same key."""

    def __init__(self, session: aiohttp.ClientSession, address: str, namespace: str) -> None:
        self._session, self._address, self._namespace = session, address, namespace
        self.accepted: list[Accepted] = []
        self.cut_off: Counter[str] = Counter()
        """Requests that the end of the gateway ended, by what they were."""

    def path(self, queue: str, rest: str) -> str:
        return f"{self._address}/api/v1/namespaces/{self._namespace}/queues/{queue}{rest}"

    async def _again(self, what: str, once: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(LONG):
            while True:
                try:
                    found = await once()
                except (aiohttp.ClientError, ConnectionError):
                    self.cut_off[what] += 1
                    found = None
                if found is not None:
                    return found
                await asyncio.sleep(0.05)

    async def submit(self, queue: str, key: str, task: dict[str, Any]) -> str:
        async def once() -> str | None:
            headers = {"Idempotency-Key": key}
            async with self._session.post(self.path(queue, "/tasks"), json=task, headers=headers) as answer:
                if answer.status in {429, 503}:
                    return None
                assert answer.status in {200, 201}, await answer.text()
                return str((await answer.json())["id"])

        before = self.cut_off["submit"]
        found: str = await self._again("submit", once)
        self.accepted.append(Accepted(key, found, self.cut_off["submit"] - before))
        return found

    async def submit_in_turn(self, number: int) -> None:
        for at in range(EACH):
            word = f"s{number}-{at}"
            await self.submit("drills", word, {"handler": "note", "input": {"word": word}})

    async def poll(self, queue: str, task: str) -> Any:
        async def once() -> Any:
            async with self._session.get(self.path(queue, f"/tasks/{task}/wait?seconds=120")) as answer:
                found = await answer.json()
                return found["result"] if answer.status == 200 else None

        return await self._again("long poll", once)

    async def follow(self, queue: str, task: str) -> Any:
        async def once() -> Any:
            async with self._session.get(self.path(queue, f"/tasks/{task}/events")) as answer:
                name = ""
                async for line in answer.content:
                    word, _, rest = line.decode().rstrip("\n").partition(": ")
                    if word == "event":
                        name = rest
                    elif word == "data" and name == "ended":
                        return json.loads(rest)["result"]
            self.cut_off["stream"] += 1
            return None

        return await self._again("stream", once)


@pytest.fixture
async def program(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[Program, GatewayProcess]]:
    with gateway(nats_server.url, tmp_path) as process:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await eventually(lambda: asyncio.to_thread(lambda: process.ready), within=LONG)
            yield Program(session, process.address, namespace), process


async def test_a_killed_gateway_loses_no_accepted_task_and_no_waiter_s_result(
    program: tuple[Program, GatewayProcess], nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    shop, process = program
    (tmp_path / "later_handlers.py").write_text(LATER, "utf-8")
    later = {"modules": ["later_handlers"]}
    queues = [a_task_queue(namespace), a_task_queue(namespace, "later", worker=later)]
    async with AsyncClient(nats_server.url, namespace) as client, asyncio.TaskGroup() as group:
        for each in queues:
            await ensure(client.broker, layout_of(each, "tests"))
        waited = [(queue, f"w{at}") for queue in ("drills", "later") for at in range(WAITED_FOR)]
        for queue, task in waited:
            await shop.submit(queue, f"{queue}-{task}", {"handler": "echo", "input": {"value": task}})
        ids = [each.id for each in shop.accepted]
        results = [
            (task, [group.create_task(way(queue, of)) for way in (shop.poll, shop.follow)])
            for (queue, task), of in zip(waited, ids, strict=True)
        ]
        waits = len(waited) * 2
        await eventually(lambda: asyncio.to_thread(lambda: process.waits == waits), within=LONG)
        submitting = [group.create_task(shop.submit_in_turn(number)) for number in range(SUBMITTERS)]
        await eventually(lambda: len(shop.accepted) >= len(waited) + BEFORE_THE_KILL, within=LONG)
        # There is no worker yet: no task has ended, and all requests are under way.
        process.kill()
        accepted_before = len(shop.accepted)
        assert accepted_before < len(waited) + SUBMITTERS * EACH

        with workers(nats_server.url, queues[0], tmp_path):
            for task in ids[:WAITED_FOR]:
                handle = client.handle("drills", task)
                await eventually(lambda h=handle: _ended(h), within=LONG)  # type: ignore[misc]
            assert not any(each.done() for _, both in results for each in both)
            process.start()
            await asyncio.gather(*submitting)
            # Those that wait for a task that has not ended wait again.
            await eventually(lambda: asyncio.to_thread(lambda: process.waits == waits // 2), within=LONG)
            paths = {"GALLEY_IMPORT_PATHS": str(tmp_path)}
            with workers(nats_server.url, queues[1], tmp_path, ["w2"], **paths):
                for task, both in results:
                    assert await asyncio.gather(*both) == [task, task]
            assert shop.cut_off["long poll"] >= len(waited)
            assert shop.cut_off["stream"] >= len(waited)
            assert shop.cut_off["submit"] >= 1
            await _each_is_there_once(shop, client, tmp_path)


async def _ended(handle: Any) -> bool:
    return bool((await handle.status()).phase.ended)


async def _each_is_there_once(shop: Program, client: AsyncClient, folder: Path) -> None:
    """Fail if a task that was accepted is not there, or is there twice, or ran twice."""
    submitted = [each for each in shop.accepted if each.key.startswith("s")]
    assert len({each.id for each in submitted}) == len(submitted) == SUBMITTERS * EACH
    for each in submitted:
        assert await client.handle("drills", each.id).result(within=LONG) == each.key
    counts = Counter(line.split()[1] for line in (folder / "drills.log").read_text().splitlines())
    assert counts == Counter(each.key for each in submitted)
