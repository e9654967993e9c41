"""What the gateway costs: `python -m benchmarks.gateway` prints a table.

The gateway is a process of its own, the broker another one, and the load comes from this one, which writes
prepared requests into kept connections. Pages and submits are given in processor time, too: that counts where
other programs use the machine.
"""

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.garbage import collect_rarely
from galley_gateway.access import OpenAccess
from galley_gateway.app import application
from galley_gateway.gateway import Gateway
from galley_gateway.limits import Limits
from galley_gateway.server import listen, serving
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.port import free_port

NAMESPACE: Final = "bench"
CONNECTIONS: Final = 32
SUBMITS: Final = int(os.environ.get("GALLEY_BENCH_SUBMITS", "20000"))
WAITS: Final = 1000
QUEUES: Final = 100


async def serve(server: str, port: int) -> None:
    """Be the gateway, until SIGTERM."""
    collect_rarely()  # as `galley_gateway.main` does
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Broker(server, name="gateway") as broker:
        gateway = Gateway(broker, OpenAccess(), Limits(rate=1e6), (NAMESPACE,))
        async with serving(application(gateway), gateway, listen("127.0.0.1", port)):
            await stop.wait()


def request_of(method: str, path: str, body: bytes = b"") -> bytes:
    """Return a request as it is sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """A kept connection that sends one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Return a new one."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return the status and the body of the answer."""
        self._writer.write(request_of(method, path, body))
        answered = await self._reader.readuntil(b"\r\n\r\n")
        lower = answered.lower()
        length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return int(answered[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Close it."""
        self._writer.close()


def _path(rest: str, queue: str = "q0") -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/queues/{queue}{rest}"


_BODY: Final = json.dumps({"handler": "echo", "input": {"value": "x" * 100}}).encode()


class _Load(asyncio.Protocol):
    """A connection that sends the same request as long as some are left, at little cost."""

    def __init__(self, request: bytes, left: list[None], ended: asyncio.Future[None]) -> None:
        self._request, self._left, self._ended = request, left, ended
        self._answer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        """Send the next request when the answer, one JSON object, is complete."""
        self._answer += data
        if self._answer.endswith(b"}"):
            if not self._answer.startswith(b"HTTP/1.1 201"):
                self._ended.set_exception(AssertionError(self._answer))
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it is closed."""
        del exc
        if not self._ended.done():
            self._ended.set_result(None)

    def _next(self) -> None:
        assert self._transport is not None
        self._answer = b""
        if not self._left or self._ended.done():
            self._transport.close()
            return
        self._left.pop()
        self._transport.write(self._request)


async def load(port: int, requests: int) -> None:
    """Submit so many tasks, as fast as they are taken."""
    loop = asyncio.get_running_loop()
    request, left = request_of("POST", _path("/tasks"), _BODY), [None] * requests
    ends = [loop.create_future() for _ in range(CONNECTIONS)]
    for end in ends:
        await loop.create_connection(partial(_Load, request, left, end), "127.0.0.1", port)
    await asyncio.gather(*ends)


async def _submits(port: int, gateway: psutil.Process, broker: psutil.Process) -> None:
    processes = {"gateway": gateway, "broker": broker, "load": psutil.Process()}
    before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    began = time.perf_counter()
    await load(port, SUBMITS)
    took = time.perf_counter() - began
    print(f"submit, {CONNECTIONS} connections: {SUBMITS / took:.0f}/s")
    each = {
        name: (sum(process.cpu_times()[:2]) - before[name]) / SUBMITS * 1e6
        for name, process in processes.items()
    }
    print("CPU per submit: " + ", ".join(f"{name} {spent:.0f} us" for name, spent in each.items()))
    link = await Connection.open(port)
    many = json.dumps({"tasks": [json.loads(_BODY)] * 1000}).encode()
    before_many, began = sum(gateway.cpu_times()[:2]), time.perf_counter()
    for _ in range(10):
        status, answer = await link.send("POST", _path("/submit-many"), many)
        assert status == 200, answer[:200]
    took = time.perf_counter() - began
    used = (sum(gateway.cpu_times()[:2]) - before_many) / 10_000 * 1e6
    print(f"submit-many of 1000: {10_000 / took:.0f}/s, CPU of the gateway {used:.0f} us each")
    link.close()


async def _latency(port: int) -> None:
    links = [await Connection.open(port) for _ in range(8)]
    times: list[float] = []

    async def one(link: Connection, at: float) -> None:
        await asyncio.sleep(at)
        began = time.perf_counter()
        await link.send("POST", _path("/tasks"), _BODY)
        times.append((time.perf_counter() - began) * 1000)

    async def series(number: int) -> None:
        for turn in range(125):
            began = time.perf_counter()
            await one(links[number], 0)
            await asyncio.sleep(max(0.0, 0.04 - (time.perf_counter() - began)))
            del turn

    await asyncio.gather(*map(series, range(8)))
    cuts = statistics.quantiles(times, n=100)
    print(f"submit at 200/s: median {statistics.median(times):.1f} ms, p99 {cuts[98]:.1f} ms")
    for link in links:
        link.close()


async def _waits(port: int, gateway: psutil.Process) -> None:
    link = await Connection.open(port)
    later = json.dumps({"handler": "echo", "id": "far", "notBefore": "2090-01-01T00:00:00Z"}).encode()
    await link.send("POST", _path("/tasks"), later)
    before = gateway.memory_info().rss
    waiting = [await Connection.open(port) for _ in range(WAITS)]
    tasks = [asyncio.create_task(one.send("GET", _path("/tasks/far/wait?seconds=60"))) for one in waiting]
    await asyncio.sleep(8)
    spent, began = sum(gateway.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(15)
    used = (sum(gateway.cpu_times()[:2]) - spent) / (time.perf_counter() - began)
    grown = (gateway.memory_info().rss - before) / 1e6
    print(f"{WAITS} open waits: {grown:.0f} MB more, {used * 100:.1f} % of a CPU")
    began = time.perf_counter()
    await link.send("POST", _path("/tasks/far/cancel"))
    await asyncio.gather(*tasks)
    print(f"all {WAITS} waits answered {time.perf_counter() - began:.2f} s after the end of the task")


class Site(NamedTuple):
    """A gateway and its broker, each a process of its own."""

    port: int
    broker: str
    gateway: psutil.Process
    nats: psutil.Process


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Run a gateway over an empty broker for as long as the block."""
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        server = NatsServer(Path(folder), max_store_bytes=1024**5)
        await server.start()
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.gateway", "serve", server.url, str(port)
        )
        try:
            while True:
                with contextlib.suppress(OSError):
                    (await Connection.open(port)).close()
                    break
                await asyncio.sleep(0.1)
            children = psutil.Process().children()
            nats = next(each for each in children if "nats-server" in " ".join(each.cmdline()))
            yield Site(port, server.url, psutil.Process(process.pid), nats)
        finally:
            process.terminate()
            await process.wait()
            server.kill()


async def _page(at: Site, path: str, what: str) -> None:
    link = await Connection.open(at.port)
    times = []
    before = sum(at.gateway.cpu_times()[:2])
    for _ in range(5):
        began = time.perf_counter()
        status, _ = await link.send("GET", path)
        assert status == 200, path
        times.append((time.perf_counter() - began) * 1000)
    used = (sum(at.gateway.cpu_times()[:2]) - before) / 5 * 1000
    then = f"then {min(times[1:]):.0f} to {max(times[1:]):.0f} ms"
    print(f"{what}: first {times[0]:.0f} ms, {then}; CPU of the gateway {used:.0f} ms each")
    link.close()


async def main() -> None:
    """Measure all."""
    async with site() as at:
        async with Broker(at.broker, name="bench") as broker:
            for number in range(QUEUES):
                await ensure(broker, a_queue(f"q{number}", namespace=NAMESPACE, backlog=200_000))
        queues = f"/ui/{NAMESPACE}/queues"
        await _page(at, queues, f"first page, {QUEUES} queues")
        await _latency(at.port)
        await _submits(at.port, at.gateway, at.nats)
        await _page(at, queues, f"first page, {QUEUES} queues and {SUBMITS + 11_000} tasks")
        await _waits(at.port, at.gateway)
        tasks = f"{queues}/q0/tasks"
        await _page(at, tasks, f"page of tasks of a queue of {SUBMITS + 11_000}")
        await _page(at, f"{tasks}?search=zzz", f"search among {SUBMITS + 11_000} tasks, none found")


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[2], int(sys.argv[3])) if sys.argv[1:2] == ["serve"] else main())
