"""What the gateway costs: `python -m benchmarks.gateway` prints a table.

The gateway is a process of its own, the broker another one, and the load comes from this one, which writes
prepared requests into kept connections.
"""

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

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
from tests.support.documents import free_port

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
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
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


async def _submits(port: int, gateway: psutil.Process, broker: psutil.Process) -> None:
    links = [await Connection.open(port) for _ in range(CONNECTIONS)]
    left = SUBMITS

    async def one(link: Connection) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            status, answer = await link.send("POST", _path("/tasks"), _BODY)
            assert status == 201, answer

    before, began = (sum(gateway.cpu_times()[:2]), sum(broker.cpu_times()[:2])), time.perf_counter()
    await asyncio.gather(*map(one, links))
    took = time.perf_counter() - began
    spent = sum(gateway.cpu_times()[:2]) - before[0], sum(broker.cpu_times()[:2]) - before[1]
    print(f"submit, {CONNECTIONS} connections: {SUBMITS / took:.0f}/s")
    each = [seconds / SUBMITS * 1e6 for seconds in spent]
    print(f"CPU per submit: gateway {each[0]:.0f} us, broker {each[1]:.0f} us")
    many = json.dumps({"tasks": [json.loads(_BODY)] * 1000}).encode()
    before_many, began = sum(gateway.cpu_times()[:2]), time.perf_counter()
    for _ in range(10):
        status, answer = await links[0].send("POST", _path("/submit-many"), many)
        assert status == 200, answer[:200]
    took = time.perf_counter() - began
    used = (sum(gateway.cpu_times()[:2]) - before_many) / 10_000 * 1e6
    print(f"submit-many of 1000: {10_000 / took:.0f}/s, CPU of the gateway {used:.0f} us each")
    for link in links:
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


async def _page(port: int, path: str, what: str) -> None:
    link = await Connection.open(port)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        status, _ = await link.send("GET", path)
        assert status == 200, path
        times.append((time.perf_counter() - began) * 1000)
    print(f"{what}: first {times[0]:.0f} ms, then {min(times[1:]):.0f} to {max(times[1:]):.0f} ms")


async def main() -> None:
    """Measure all."""
    server = NatsServer(Path(tempfile.mkdtemp(prefix="galley-bench-")), max_store_bytes=1024**5)
    await server.start()
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.gateway", "serve", server.url, str(port)
    )
    try:
        async with Broker(server.url, name="bench") as broker:
            for number in range(QUEUES):
                await ensure(broker, a_queue(f"q{number}", namespace=NAMESPACE, backlog=200_000))
        for _ in range(100):
            try:
                (await Connection.open(port)).close()
                break
            except OSError:
                await asyncio.sleep(0.1)
        gateway = psutil.Process(process.pid)
        nats = next(each for each in psutil.Process().children() if "nats-server" in " ".join(each.cmdline()))
        await _page(port, f"/ui/{NAMESPACE}/queues", f"first page, {QUEUES} queues")
        await _latency(port)
        await _submits(port, gateway, nats)
        await _page(port, f"/ui/{NAMESPACE}/queues", f"first page, {QUEUES} queues and {SUBMITS} tasks")
        await _waits(port, gateway)
        await _page(
            port, f"/ui/{NAMESPACE}/queues/q0/tasks", f"page of tasks of a queue of {SUBMITS + 11_000}"
        )
    finally:
        process.terminate()
        await process.wait()
        server.kill()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[2], int(sys.argv[3])) if sys.argv[1:2] == ["serve"] else main())
