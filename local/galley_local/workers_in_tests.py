"""Workers of queues for the length of a test."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from galley import AsyncClient, Client
from galley.broker.connection import Broker
from galley.broker.control import Heartbeat, hearing
from galley.broker.ensure import ensure
from galley.broker.errors import BrokerError
from galley.broker.layout import layout_of
from galley.resources import Metadata, TaskQueue, TaskQueueSpec
from galley_local.orphan_guard import dying_with_us

_STOP_SECONDS: Final = 10.0
_REST_SECONDS: Final = 5.0
"""How long a log is waited for whose worker runs something; its heartbeats are a second apart."""


class WorkersInTests:
    """The queues of one namespace on a server, each with a worker process; leaving it ends them."""

    def __init__(self, server: str, folder: Path) -> None:
        """Args: server: address of NATS; folder: for manifests, logs and caches."""
        self._server, self._folder = server, folder
        self._namespace = f"test-{secrets.token_hex(4)}"
        self._queues: list[str] = []
        self._ends = ExitStack()
        # What the kernel ends with the thread that started it has to be started by one that stays; and the
        # thread of a test may be in an event loop.
        self._beside = self._ends.enter_context(ThreadPoolExecutor(1, "galley-workers"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def start(self, name: str, *modules: str, **spec: Any) -> None:
        """Make a queue and start its worker.

        Args:
            name: of the queue.
            modules: with its handlers, found as in the process of the test.
            spec: fields of the TaskQueue's spec.

        Raises:
            pydantic.ValidationError: a field of the spec is wrong.
            BrokerError: the server does not answer.
        """
        self._beside.submit(self._start, name, modules, spec).result()

    def client(self) -> Client:
        """Return a client, which is closed after the test."""
        client = Client(self._server, self._namespace)
        self._ends.callback(client.close)
        return client

    def async_client(self) -> AsyncClient:
        """Return a client to be entered."""
        return AsyncClient(self._server, self._namespace)

    def logs(self) -> dict[str, str]:
        """Return what each worker has written, by its queue; of a task that has just ended, all of it."""
        with suppress(BrokerError, TimeoutError):
            self._beside.submit(lambda: asyncio.run(self._at_rest())).result()
        logs = sorted(self._folder.glob("*.log"))
        return {log.stem: text for log in logs if (text := log.read_text(errors="replace"))}

    def _start(self, name: str, modules: tuple[str, ...], spec: dict[str, Any]) -> None:
        worker = {"modules": list(modules), "gracePeriodSeconds": 1, **spec.pop("worker", {})}
        queue = TaskQueue(
            metadata=Metadata(name=name, namespace=self._namespace),
            spec=TaskQueueSpec.model_validate({"worker": worker, **spec}),
        )
        asyncio.run(self._create(queue))
        manifest = self._folder / f"{name}.json"
        manifest.write_text(json.dumps(queue.model_dump(mode="json", by_alias=True)))
        environment = {
            **os.environ,
            "GALLEY_SERVER": self._server,
            "GALLEY_QUEUE_MANIFEST": str(manifest),
            "GALLEY_WORKER": "test",
            "GALLEY_HEALTH_PORT": "0",
            "GALLEY_CACHE": str(self._folder / "cache"),
            "GALLEY_IMPORT_PATHS": json.dumps([path for path in sys.path if path]),
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            running = subprocess.Popen(
                # -P, so that a file `queue.py` in the working directory does not replace the library's.
                dying_with_us(sys.executable, "-P", "-m", "galley_worker"), env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._ends.callback(_end, running)
        self._queues.append(name)

    async def _at_rest(self) -> None:
        """Wait until each worker says that it runs nothing, and so has written what it has to say.

        Raises:
            TimeoutError: if one goes on.
            BrokerError: if the server does not answer.
        """
        at_rest = {queue: asyncio.Event() for queue in self._queues}
        async with (
            asyncio.timeout(_REST_SECONDS),
            Broker(self._server, name="galley tests") as broker,
            AsyncExitStack() as ears,
        ):
            for queue, event in at_rest.items():

                def heard(beat: Heartbeat, event: asyncio.Event = event) -> None:
                    if not beat.busy:
                        event.set()

                await ears.enter_async_context(hearing(broker, self._namespace, queue, heard))
            for event in at_rest.values():
                await event.wait()

    async def _create(self, queue: TaskQueue) -> None:
        async with Broker(self._server, name="galley tests") as broker:
            await ensure(broker, layout_of(queue, "tests"))


def _end(running: "subprocess.Popen[bytes]") -> None:
    running.terminate()
    try:
        running.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
