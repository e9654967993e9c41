"""Galley: `python -m galley_worker` with sixteen slots and default settings."""

import asyncio
import json
import os
import sys
from pathlib import Path

from adapter import STORE, main
from galley_handlers import work

from galley import AsyncClient
from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.layout import layout_of
from galley.broker.topology import records_stream, work_stream
from galley.resources import TaskQueue

QUEUE = TaskQueue.model_validate({
    "apiVersion": "galley.dev/v1alpha1",
    "kind": "TaskQueue",
    "metadata": {"name": "rivals", "namespace": "default"},
    "spec": {"worker": {"modules": ["galley_handlers"], "concurrency": 16}, "scaling": {"maxWorkers": 1}},
})  # fmt: skip


def submit(tasks: int, seconds: float) -> None:
    async def send() -> None:
        async with AsyncClient(STORE, "default") as client:
            await ensure(client.broker, layout_of(QUEUE, "rivals"))
            await client.submit_many(work.call(seconds=seconds) for _ in range(tasks))

    asyncio.run(send())


def count() -> int:
    async def look() -> int:
        async with Broker(STORE, name="rivals") as broker:
            left = await stream_info(broker, work_stream("default", "rivals"))
            kept = await stream_info(broker, records_stream("default", "rivals"))
            assert left is not None
            assert kept is not None
            return min(left["state"]["last_seq"] - left["state"]["messages"], kept["state"]["messages"])

    return asyncio.run(look())


def run() -> None:
    if sys.argv[1] == "worker":
        manifest = Path(os.environ["RIVAL_FOLDER"], "queue.json")
        manifest.write_text(json.dumps(QUEUE.model_dump(mode="json", by_alias=True)))
        os.environ.update(
            GALLEY_SERVER=STORE, GALLEY_QUEUE_MANIFEST=str(manifest), GALLEY_WORKER="w",
            GALLEY_IMPORT_PATHS=str(Path(__file__).parent), GALLEY_LEASE_SECONDS="30",
        )  # fmt: skip
    main(submit, count, [sys.executable, "-m", "galley_worker"])
