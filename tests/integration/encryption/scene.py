"""An encrypted queue with a worker, a producer, and a recorder on the wire."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from galley import AsyncClient, connect
from galley.broker.connection import Broker
from galley.resources import TaskQueue
from galley_local.nats_server import NatsServer
from tests.support.workers import WorkerProcess, a_task_queue, ensure_with_leases, workers

QUEUE = "drills"
ENCRYPTED = {"encryption": {"secretName": "drills-keys"}}


def a_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def write_keys(folder: Path, primary: str, **keys: str) -> Path:
    """Make a folder what a mounted Secret with these keys is; all of it changes at once."""
    data = folder / f"..{os.urandom(4).hex()}"
    data.mkdir(parents=True)
    for name, text in {"primary": primary, **keys}.items():
        (data / name).write_text(f"{text}\n")
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    fresh = folder / "..data.new"
    fresh.symlink_to(data.name)
    fresh.replace(folder / "..data")
    for link in folder.iterdir():
        if not link.name.startswith(".") and link.name not in {"primary", *keys}:
            link.unlink()
    return folder


class Recorder:
    """Passes bytes on to a server, and keeps all of them."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.url = ""

    @asynccontextmanager
    async def before(self, url: str) -> AsyncIterator["Recorder"]:
        target = urlsplit(url)
        links: set[asyncio.Task[None]] = set()

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while chunk := await source.read(65_536):
                    self.heard += chunk
                    sink.write(chunk)
                    await sink.drain()
            except OSError:
                pass  # the other side has gone
            finally:
                sink.close()

        async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, here = await asyncio.open_connection(target.hostname, target.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, here))
                group.create_task(pump(there, writer))

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(link(reader, writer))
            links.add(task)
            task.add_done_callback(links.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in tuple(links):
                task.cancel()
            await asyncio.gather(*links, return_exceptions=True)


@asynccontextmanager
async def a_place(
    server: NatsServer, namespace: str, keys: Any, **spec: Any
) -> AsyncIterator[tuple[AsyncClient, TaskQueue]]:
    """Yield a client, with keys or none, and a queue whose streams are made."""
    queue = a_task_queue(namespace, QUEUE, **{"retry": {"attempts": 1}, **ENCRYPTED, **spec})
    async with Broker(server.url, name="maker") as maker:
        await ensure_with_leases(maker, queue, 5.0)
    async with connect(server.url, namespace, keys=keys) as client:
        yield client, queue


@asynccontextmanager
async def working(
    server: str, queue: TaskQueue, folder: Path, keys: Path | str, **environment: str
) -> AsyncIterator[WorkerProcess]:
    """Run a worker with keys."""
    with workers(server, queue, folder, GALLEY_KEYS=f"{QUEUE}={keys}", **environment) as (worker,):
        yield worker


def stored_under(folder: Path, word: Callable[[bytes], bool]) -> list[str]:
    """Return the files of a store whose bytes satisfy a condition."""
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and word(path.read_bytes())]
