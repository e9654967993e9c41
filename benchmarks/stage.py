"""What both sides are measured on: one nats-server, the same streams for each, emptied before each run."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.handlers import benchmark_handlers
from benchmarks.plan import Plan
from galley.broker.connection import Broker
from galley.broker.ensure import ensure, stream_info
from galley.broker.layout import layout_of
from galley.broker.records import Records
from galley.broker.topology import records_stream, work_stream
from galley.lanes import Lane
from galley.record import Outcome
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer

NAMESPACE: Final = "bench"
GALLEY_QUEUE: Final = benchmark_handlers.QUEUE
RAW_QUEUE: Final = "bench-raw"

_MOST_WAITING: Final = 1_000_000
_LOOK_AGAIN_SECONDS: Final = 0.05
DONE_SECONDS: Final = 120.0
_LONGEST_HOLD: Final = timedelta(hours=1)
_LEAD: Final = timedelta(milliseconds=200)


class NotDone(Exception):
    """Tasks were not done, or not done well; the figures would mean nothing."""


def queue_of(name: str, plan: Plan) -> TaskQueue:
    """Return a queue with the defaults of a TaskQueue, but for slots and room."""
    worker = {"modules": ["benchmark_handlers"], "concurrency": plan.concurrency}
    return TaskQueue.model_validate(
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "worker": worker,
                "scaling": {"maxWorkers": 1},
                "retention": {"resultsSeconds": 3600},
                "limits": {"backlog": _MOST_WAITING, "backlogBytes": 1024**3},
            },
        }
    )


class Stage:
    """The server and its two queues."""

    def __init__(self, server: NatsServer, broker: Broker, patience_seconds: float = DONE_SECONDS) -> None:
        """Args: patience_seconds: how long workers may take for what is waited for."""
        self.server = server
        self.broker = broker
        self._patience = patience_seconds

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.server.url

    async def clear(self) -> None:
        """Forget all tasks and records."""
        for queue in (GALLEY_QUEUE, RAW_QUEUE):
            for stream in (work_stream(NAMESPACE, queue), records_stream(NAMESPACE, queue)):
                await self.broker.api(f"purge {stream}", f"STREAM.PURGE.{stream}")

    async def hold(self, queue: str) -> None:
        """Have the broker give out nothing of this queue; pulls wait."""
        await self._pause(queue, (datetime.now(UTC) + _LONGEST_HOLD).isoformat())

    async def release(self, queue: str) -> float:
        """Have the broker give out what waits, in a moment; returns the time of that moment.

        The end of a pause wakes pulls that wait; ending it at once, in place of its end, does not.
        """
        began = datetime.now(UTC) + _LEAD
        await self._pause(queue, began.isoformat())
        return began.timestamp()

    async def wait_for_pull(self, queue: str) -> None:
        """Wait until a worker has a pull open.

        Raises:
            NotDone: none came for minutes.
        """
        stream = work_stream(NAMESPACE, queue)
        give_up = time.monotonic() + self._patience
        while True:
            info = await self.broker.api(f"look at {stream}", f"CONSUMER.INFO.{stream}.{Lane.NORMAL}")
            if info["num_waiting"]:
                return
            if time.monotonic() > give_up:
                raise NotDone(f"no worker of {queue} asked for tasks in {self._patience:g} s")
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def wait_until_done(self, queue: str, count: int) -> float:
        """Wait until `count` tasks are done and taken off their stream; returns when the last one was done.

        The time is the server's for the last record, as seconds since the epoch, so that looking seldom
        costs neither precision nor CPU.

        Raises:
            NotDone: it took minutes.
        """
        give_up = time.monotonic() + self._patience
        while True:
            records = await self._state(records_stream(NAMESPACE, queue))
            left = await self._state(work_stream(NAMESPACE, queue))
            if records["messages"] >= count and not left["messages"]:
                return datetime.fromisoformat(records["last_ts"]).timestamp()
            if time.monotonic() > give_up:
                raise NotDone(f"{records['messages']} of {count} tasks of {queue} in {self._patience:g} s")
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    async def results(self, queue: str) -> list[Any]:
        """Return what the handlers returned.

        Raises:
            NotDone: a task failed.
        """
        found = []
        async for address, stored in Records(self.broker).all_of(NAMESPACE, queue):
            if stored.record.outcome is not Outcome.SUCCEEDED:
                raise NotDone(f"task {address}: {stored.record.failure}")
            found.append(msgspec.json.decode(stored.record.result))
        return found

    async def _pause(self, queue: str, until: str) -> None:
        stream = work_stream(NAMESPACE, queue)
        await self.broker.api(
            f"pause {stream}", f"CONSUMER.PAUSE.{stream}.{Lane.NORMAL}", {"pause_until": until}
        )

    async def _state(self, stream: str) -> dict[str, Any]:
        info = await stream_info(self.broker, stream)
        assert info is not None, stream
        state: dict[str, Any] = info["state"]
        return state


@asynccontextmanager
async def staged(folder: Path, plan: Plan, patience_seconds: float = DONE_SECONDS) -> AsyncIterator[Stage]:
    """Run a nats-server with its data in `folder`, and make the queues."""
    async with NatsServer(folder) as server, Broker(server.url, name="galley benchmarks") as broker:
        for name in (GALLEY_QUEUE, RAW_QUEUE):
            await ensure(broker, layout_of(queue_of(name, plan), "benchmarks"))
        yield Stage(server, broker, patience_seconds)
