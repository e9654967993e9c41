"""The real `galley` in real processes, as a person at a keyboard would use it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command import Said, run_command
from tests.support.eventually import eventually

GALLEY = str(Path(sys.executable).with_name("galley"))
START_SECONDS = 90.0


async def galley(folder: Path, *arguments: str, stdin: str = "", **variables: str) -> Said:
    """Run one command to its end; what depends on a process of its own gets one."""
    if arguments[0] not in {"dev", "apply"} and "PYTHONIOENCODING" not in variables:
        return await run_command(arguments, folder, environment() | variables, stdin)
    process = await asyncio.create_subprocess_exec(
        GALLEY, *arguments, cwd=folder, env=environment() | variables,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        process.kill()
        raise
    return Said(process.returncode or 0, out.decode(), err.decode())


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("GALLEY_")}


@dataclass
class Dev:
    """A running `galley dev`, which writes event lines since it has no terminal."""

    folder: Path
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    async def says(self, text: str, within: float = 60.0) -> None:
        def heard() -> bool:
            assert self.said(text), "\n".join(["", *self.lines[-30:]])
            return True

        await eventually(heard, within=within, why=f"galley dev says {text!r}")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def ends(self, within: float = 60.0) -> int:
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode().rstrip("\n"))


@asynccontextmanager
async def dev(folder: Path, *arguments: str, **variables: str) -> AsyncIterator[Dev]:
    """Start `galley dev` and wait until other commands find it; kill it if it is still there afterwards."""
    process = await asyncio.create_subprocess_exec(
        GALLEY, "dev", *arguments, cwd=folder, env=environment() | variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    running = Dev(folder, process)
    reading = asyncio.create_task(running.read())
    try:
        await eventually(lambda: running.said("serving "), within=START_SECONDS, why="galley dev is up")
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.wait([reading], timeout=5)
        reading.cancel()
