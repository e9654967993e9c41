"""What 10,000 connections at once do to a gateway: `python -m benchmarks.connections` prints it."""

import asyncio
import contextlib
import resource
import time
from typing import Final

from benchmarks.gateway import NAMESPACE, Connection, site
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley_gateway.limits import Limits
from tests.support.builders import a_queue

CONNECTIONS: Final = 10_000
KEPT: Final = Limits.connections
_PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/queues"


async def main() -> None:
    """Open them, count those that are closed, and ask on one that was open before."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    async with site() as at:
        async with Broker(at.broker, name="bench") as broker:
            await ensure(broker, a_queue("q0", namespace=NAMESPACE))
        before = await _first(at.port)
        memory = at.gateway.memory_info().rss
        links = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(CONNECTIONS)]
        ended = 0
        for reader, _ in links:
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(reader.read(1), 0.0005)
                ended += 1
        # Those above the limit are closed at once, and others once they have sent nothing for ten seconds.
        assert ended >= CONNECTIONS - KEPT, ended
        grown = (at.gateway.memory_info().rss - memory) / 1e6
        print(f"{CONNECTIONS} connections: {ended} closed, {grown:.0f} MB more")
        began = time.perf_counter()
        status, _ = await before.send("GET", _PATH)
        print(f"a request beside them: {status} after {(time.perf_counter() - began) * 1000:.0f} ms")
        for _, writer in links:
            writer.close()
        after = await _first(at.port)
        print(f"a new one after them: {(await after.send('GET', _PATH))[0]}")


async def _first(port: int) -> Connection:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            link = await Connection.open(port)
            if (await link.send("GET", _PATH))[0] == 200:
                return link
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
