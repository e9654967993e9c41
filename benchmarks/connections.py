"""What 10,000 connections at once do to a gateway: `python -m benchmarks.connections` prints it."""

import asyncio
import contextlib
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from benchmarks.gateway import NAMESPACE, Connection
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley_gateway.limits import Limits
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.documents import free_port

CONNECTIONS: Final = 10_000
KEPT: Final = Limits.connections
_PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/queues"


async def main() -> None:
    """Open them, count those that are closed, and ask on one that was open before."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = NatsServer(Path(tempfile.mkdtemp(prefix="galley-bench-")), max_store_bytes=1024**5)
    await server.start()
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.gateway", "serve", server.url, str(port)
    )
    try:
        async with Broker(server.url, name="bench") as broker:
            await ensure(broker, a_queue("q0", namespace=NAMESPACE))
        before = await _first(port)
        gateway = psutil.Process(process.pid)
        memory = gateway.memory_info().rss
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        ended = 0
        for reader, _ in links:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(reader.read(1), 0.0005)
                ended += 1
        # Those above the limit are closed at once, and others once they have sent nothing for ten seconds.
        assert ended >= CONNECTIONS - KEPT, ended
        grown = (gateway.memory_info().rss - memory) / 1e6
        print(f"{CONNECTIONS} connections: {ended} closed, {grown:.0f} MB more")
        began = time.perf_counter()
        status, _ = await before.send("GET", _PATH)
        print(f"a request beside them: {status} after {(time.perf_counter() - began) * 1000:.0f} ms")
        for _, writer in links:
            writer.close()
        after = await _first(port)
        print(f"a new one after them: {(await after.send('GET', _PATH))[0]}")
    finally:
        process.terminate()
        await process.wait()
        server.kill()


async def _first(port: int) -> Connection:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            link = await Connection.open(port)
            if (await link.send("GET", _PATH))[0] == 200:
                return link
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
