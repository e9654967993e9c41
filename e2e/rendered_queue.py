"""A queue on servers of the rendered chart, and what its tasks came to."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from e2e.rendered_cluster import RenderedCluster
from galley import BrokerError, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.permissions import Role
from galley.client import AsyncClient
from galley.resources import TaskQueue
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue

SHOP, QUEUE = "shop", "drills"


async def a_queue(cluster: RenderedCluster, replicas: int) -> TaskQueue:
    """Make the streams of a queue, as soon as the servers have a leader."""
    queue = a_task_queue(SHOP, QUEUE, worker={"concurrency": 4}, retry={"attempts": 1})

    async def made() -> bool:
        try:
            async with cluster.operator() as operator:
                await ensure(operator, layout_of(queue, "tests"), replicas)
        except BrokerError:
            return False
        return True

    await eventually(made, within=60)
    return queue


async def settings_of(cluster: RenderedCluster) -> dict[str, str]:
    """Return the environment of a worker."""
    creds = await cluster.credentials(Role.WORKER, SHOP, QUEUE)
    return {"GALLEY_CREDENTIALS": str(creds), "GALLEY_TLS_CA": str(cluster.ca_file)}


async def submitting(client: AsyncClient, until: asyncio.Event, prefix: str = "w") -> list[str]:
    """Submit tasks until told to stop and return their words once all have succeeded."""
    words: list[str] = []
    results: list[asyncio.Task[Any]] = []
    async with asyncio.TaskGroup() as waiting:
        while not until.is_set():
            word = f"{prefix}-{len(words)}"
            handle = await client.submit(call(QUEUE, "note", word=word))
            words.append(word)
            results.append(waiting.create_task(handle.result(60)))
            await asyncio.sleep(0.02)
    assert [result.result() for result in results] == words
    return words


def ran(folder: Path) -> Counter[str]:
    """Return how often each task ran."""
    return Counter(line.split()[1] for line in (folder / "drills.log").read_text().splitlines())
