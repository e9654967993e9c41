"""Sends a file of so many megabytes through the objects of a queue and back, in how much memory it says."""

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from galley import File, call, connect
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley_local.nats_server import NatsServer
from tests.support.workers import a_task_queue

MEGABYTE = 1024**2


def memory() -> int:
    """Return the most this process has had in memory, in MB.

    `getrusage` would count what its parent had before this program took the place of its copy.
    """
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024


async def transfer(folder: Path, size: int) -> None:
    """Send it, fetch it, and print seconds and memory."""
    source, target = folder / "source", folder / "target"
    block = os.urandom(MEGABYTE)
    with source.open("wb") as written:
        for number in range(size):
            written.write(number.to_bytes(8, "big") + block[8:])
    server = NatsServer(folder / "nats")
    await server.start()
    async with connect(server.url, "default") as client:
        layout = layout_of(a_task_queue("default"), "tests")
        await ensure(client.broker, replace(layout, object_bytes=(size + 64) * MEGABYTE))
        began = time.monotonic()
        handle = await client.submit(call("drills", "measure", file=File(source)))
        assert handle.envelope is not None
        sent = time.monotonic()
        file = File.stored(handle.envelope.files[0])
        file.home = "default", "drills"
        await client.download(file, target)
        assert target.stat().st_size == size * MEGABYTE
        print(f"{size} MB sent in {sent - began:.1f} s, fetched in {time.monotonic() - sent:.1f} s")  # noqa: T201 - a command
    server.kill()


if __name__ == "__main__":
    megabytes, limit = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(transfer(Path(place), megabytes))
    print(f"at most {memory()} MB in memory, {limit} are allowed")  # noqa: T201 - a command
    sys.exit(memory() > limit)
